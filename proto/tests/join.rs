//! What a stranger and a member say to each other is written down as it always was, and bytes of a
//! stranger cannot hurt.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write;

use proptest::prelude::*;
use purlin_proto::join::{Admission, JoinAnswer, JoinRefusal, JoinRequest, Secret, TokenId};
use purlin_proto::limits::{JOIN_ANSWER_BYTES, JOIN_REQUEST_BYTES};
use purlin_proto::{Role, codec};

fn request() -> JoinRequest {
    JoinRequest {
        cluster: "purlin".parse().unwrap(),
        token: TokenId(1),
        secret: Secret([2; 16]),
        role: Role::Node,
        name: "b".into(),
        request: vec![3; 4],
    }
}

fn answers() -> Vec<JoinAnswer> {
    let admission = Admission { certificate: "ours".to_owned(), authority: "its".to_owned() };
    let detail = || "disk on fire".to_owned();
    let refusals = [
        JoinRefusal::UnknownToken { silent: 1 },
        JoinRefusal::Expired { ago_s: 60 },
        JoinRefusal::Revoked,
        JoinRefusal::UsedUp { uses: 1 },
        JoinRefusal::Role { role: Role::Client },
        JoinRefusal::Cluster { theirs: "other".parse().unwrap() },
        JoinRefusal::NameTaken { name: "b".into(), address: "10.0.0.1:7400".parse().unwrap() },
        JoinRefusal::Request { detail: detail() },
        JoinRefusal::Failed { detail: detail() },
        JoinRefusal::Busy,
    ];
    [Ok(admission)].into_iter().chain(refusals.map(Err)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn the_bytes_of_joining_are_what_they_always_were() {
    let bytes = codec::to_bytes(&request()).unwrap();
    assert_eq!(codec::from_bytes::<JoinRequest>(&bytes, JOIN_REQUEST_BYTES), Ok(request()));
    let mut golden = String::new();
    let _ = writeln!(golden, "{}\n    {:?}", hex(&bytes), request());
    for answer in answers() {
        let bytes = codec::to_bytes(&answer).unwrap();
        assert_eq!(codec::from_bytes(&bytes, JOIN_ANSWER_BYTES), Ok(answer.clone()));
        let _ = writeln!(golden, "{}\n    {answer:?}", hex(&bytes));
    }
    insta::assert_snapshot!(golden);
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(codec::from_bytes::<JoinRequest>(&bytes, JOIN_REQUEST_BYTES));
        drop(codec::from_bytes::<JoinAnswer>(&bytes, JOIN_ANSWER_BYTES));
    }

    #[test]
    fn a_request_with_a_changed_byte_is_another_or_an_error(at in 0_usize..1000, by in 1_u8..) {
        let mut bytes = codec::to_bytes(&request()).unwrap().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= by;
        if let Ok(read) = codec::from_bytes::<JoinRequest>(&bytes, JOIN_REQUEST_BYTES) {
            prop_assert_ne!(read, request());
        }
    }
}
