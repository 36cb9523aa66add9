//! JSON that a client sends or an operator types: read as what it may stand for, and what was read
//! from JSON and written as JSON is read the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use purlin_proto::admin::{Status, TreeNode};
use purlin_proto::{Codec, Dest, ExitReason, Labels, NodeId, Payload, Pid};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

fn twice<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(payload: &Payload) {
    let Ok(value) = payload.decode::<T>() else { return };
    let Ok(written) = Payload::encode(Codec::Json, &value) else { return };
    assert_eq!(written.decode::<T>().as_ref(), Ok(&value));
}

fuzz_target!(|input: &[u8]| {
    let payload = Payload { codec: Codec::Json, bytes: Bytes::copy_from_slice(input) };
    let _ = payload.decode::<IgnoredAny>();
    twice::<Dest>(&payload);
    twice::<Pid>(&payload);
    twice::<NodeId>(&payload);
    twice::<Labels>(&payload);
    twice::<ExitReason>(&payload);
    twice::<Status>(&payload);
    twice::<Vec<TreeNode>>(&payload);
    twice::<i64>(&payload);
    twice::<String>(&payload);
});
