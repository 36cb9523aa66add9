//! Exit reasons that others have made, longer than one may be.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use purlin_proto::limits::{FRAME_BYTES, REASON_BYTES};
use purlin_proto::{Codec, ExitReason, Fault, Payload};

#[test]
fn a_reason_from_elsewhere_is_cut_in_either_codec() {
    let long = || "ä".repeat(REASON_BYTES);
    let fault = || Arc::new(Fault { message: long(), backtrace: Some(long()) });
    let reasons = [
        ExitReason::Other(long().into()),
        ExitReason::ShutdownWith(long().into()),
        ExitReason::Error(fault()),
        ExitReason::Panic(fault()),
    ];
    for (reason, codec) in
        reasons.iter().flat_map(|reason| [(reason, Codec::Bincode), (reason, Codec::Json)])
    {
        let said = Payload::encode(codec, reason).unwrap();
        assert!(said.bytes.len() > REASON_BYTES && said.bytes.len() < FRAME_BYTES);

        let heard: ExitReason = said.decode().unwrap();

        let text = heard.to_string();
        let all = text.len() + heard.backtrace().unwrap_or_default().len();
        assert!(all <= REASON_BYTES + 10, "{all} bytes");
        assert!(all > REASON_BYTES / 2, "{all} bytes are left");
        // What has been cut goes on as it is.
        assert_eq!(Payload::encode(codec, &heard).unwrap().decode(), Ok(heard));
    }
}
