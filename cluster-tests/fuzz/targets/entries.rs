//! The logs of entries against members that say anything: nothing panics, and nothing is told of a
//! node that is not live, or in the name of this one.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use purlin_cluster::Owned;
use purlin_cluster::owned::{Blob, Bounds, Input, Output};
use purlin_proto::{NodeId, NodeName};

fn life(number: u8) -> NodeId {
    NodeId::new(NodeName::from(["a", "b", "c", "d"][usize::from(number % 4)]), 1)
}

fuzz_target!(|input: &[u8]| {
    let mut now = Duration::ZERO;
    let bounds = Bounds { page_bytes: 200, removals: 4 };
    let mut owned = Owned::new(life(0), bounds, 1, now);
    owned.handle(now, Input::Up(life(1)));
    owned.handle(now, Input::Up(life(2)));
    let mut live = [false, true, true, false];
    let mut rest = input;
    while let [what, who, length, after @ ..] = rest {
        let (bytes, later) = after.split_at(after.len().min(usize::from(*length)));
        rest = later;
        let peer = life(who % 3 + 1);
        let place = usize::from(who % 3 + 1);
        owned.handle(
            now,
            match what % 9 {
                0..=3 => Input::Said { from: peer, bytes: Bytes::copy_from_slice(bytes) },
                4 => {
                    live[place] = true;
                    Input::Up(peer)
                }
                5 => {
                    live[place] = false;
                    Input::Down(peer)
                }
                6 => Input::Connected(peer),
                7 => Input::Disconnected(peer),
                _ => {
                    now += Duration::from_secs(1);
                    let key = Blob::from(&bytes[..bytes.len().min(2)]);
                    let value = (length % 2 == 0).then(|| Blob::from(bytes));
                    owned.handle(now, Input::Own(vec![(key, value)]));
                    Input::Tick
                }
            },
        );
        while let Some(output) = owned.poll_output() {
            if let Output::Changed { owner, .. } = output {
                let of = (1..4_u8).find(|number| life(*number) == owner);
                assert!(of.is_some_and(|number| live[usize::from(number)]), "{owner}");
            }
        }
    }
});
