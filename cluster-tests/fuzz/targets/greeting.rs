//! What is read before anything is known of the other side: hellos, refusals, requests to join and
//! their answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purlin_proto::codec::{from_bytes, to_bytes};
use purlin_proto::join::{JoinAnswer, JoinRequest};
use purlin_proto::limits::{HELLO_BYTES, JOIN_ANSWER_BYTES, JOIN_REQUEST_BYTES};
use purlin_proto::{Hello, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn twice<T: Serialize + DeserializeOwned>(input: &[u8], limit: usize) -> Option<T> {
    let value: T = from_bytes(input, limit).ok()?;
    let written = to_bytes(&value).expect("what was read can be written");
    assert_eq!(written, input, "there is one way to write it");
    Some(value)
}

fuzz_target!(|input: &[u8]| {
    if let Some(hello) = twice::<Hello>(input, HELLO_BYTES) {
        let _ = hello.is_node();
        if let Some(node) = &hello.node {
            let _ = node.check();
        }
    }
    if let Some(refusal) = twice::<Refusal>(input, HELLO_BYTES) {
        let _ = refusal.to_string();
    }
    twice::<JoinRequest>(input, JOIN_REQUEST_BYTES);
    twice::<JoinAnswer>(input, JOIN_ANSWER_BYTES);
});
