//! Bodies of messages and replies in either codec, as the types that every node reads.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use purlin_proto::admin::{Event, MemberInfo, ProcessDetail, Status, TreeNode, Why};
use purlin_proto::{Codec, EntryKey, EntryValue, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn read<T: Serialize + DeserializeOwned>(payload: &Payload) {
    let Ok(value) = payload.decode::<T>() else { return };
    let written = Payload::encode(Codec::Bincode, &value).expect("what was read can be written");
    written.decode::<T>().expect("and read again");
}

fuzz_target!(|input: &[u8]| {
    let [codec, body @ ..] = input else { return };
    let codec = if codec % 2 == 0 { Codec::Bincode } else { Codec::Json };
    let payload = Payload { codec, bytes: Bytes::copy_from_slice(body) };
    read::<Status>(&payload);
    read::<Vec<MemberInfo>>(&payload);
    read::<ProcessDetail>(&payload);
    read::<Vec<TreeNode>>(&payload);
    read::<Why>(&payload);
    read::<Event>(&payload);
    read::<EntryKey>(&payload);
    read::<EntryValue>(&payload);
});
