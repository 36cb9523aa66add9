//! Any frame of an established connection: what is read can be written, and is then read the same;
//! and the two readers of messages agree.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use purlin_proto::{Envelope, Frame, MessageRef, Signal, Target};

fuzz_target!(|input: &[u8]| {
    let read = Frame::decode(Bytes::copy_from_slice(input));
    if let Ok(frame) = &read {
        let written = frame.to_bytes().expect("what was read fits a frame");
        assert_eq!(Frame::decode(written).as_ref(), Ok(frame));
    }
    let Some(in_place) = MessageRef::read(input, "") else { return };
    match (in_place, read) {
        (Ok(message), Ok(Frame::Envelope(Envelope { to: Target::Serial(to), from, signal }))) => {
            let (Signal::Send { message: name, payload, .. }
            | Signal::Call { message: name, payload, .. }) = signal
            else {
                panic!("another signal");
            };
            let place = (message.to, message.from, message.name, message.body);
            assert_eq!(place, (to, from, name.as_str(), &payload.bytes[..]));
        }
        (Err(_), Err(_)) => {}
        (in_place, read) => panic!("{in_place:?} or {read:?}"),
    }
});
