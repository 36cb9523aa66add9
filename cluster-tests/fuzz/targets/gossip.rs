//! A node's membership against members that say anything: nothing panics, the table keeps its bound,
//! and the node sees itself as live.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use purlin_cluster::{Config, Input, Me, Membership, Output};
use purlin_proto::limits::MEMBERS;
use purlin_proto::{Labels, NodeId, NodeName};

fn life(number: u8) -> (NodeId, SocketAddr) {
    let names = ["a", "b", "c", "d"];
    let name = NodeName::from(names[usize::from(number % 4)]);
    (NodeId::new(name, 1), SocketAddr::from(([10, 0, 0, number % 4], 7400)))
}

fuzz_target!(|input: &[u8]| {
    let (id, address) = life(0);
    let config = Config { detect_in: Duration::from_secs(5) };
    let me = Me { id, address, labels: Labels::default() };
    let mut now = Duration::ZERO;
    let mut membership = Membership::new(config, me, 1, now);
    for number in 1..4 {
        let (peer, address) = life(number);
        membership.handle(now, Input::Connected { peer, address });
    }
    let mut rest = input;
    // Each step: what happens, who says it, how many bytes, those bytes.
    while let [what, who, length, after @ ..] = rest {
        let (bytes, later) = after.split_at(after.len().min(usize::from(*length)));
        rest = later;
        let bytes = Bytes::copy_from_slice(bytes);
        let (from, address) = life(who % 3 + 1);
        membership.handle(
            now,
            match what % 6 {
                0 | 1 => Input::Datagram { from, bytes },
                2 | 3 => Input::State { from, bytes },
                4 => Input::Connected { peer: from, address },
                _ => {
                    now += Duration::from_millis(u64::from(*length) * 50);
                    Input::Tick
                }
            },
        );
        while let Some(output) = membership.poll_output() {
            if let Output::Reincarnate { at_least } = output {
                let id = NodeId::new(membership.me().id.name, at_least);
                membership.reincarnated(now, id);
            }
        }
        assert!(membership.members().count() <= MEMBERS);
        let name = membership.me().id.name;
        assert!(membership.live().any(|live| live == name), "it lives");
    }
});
