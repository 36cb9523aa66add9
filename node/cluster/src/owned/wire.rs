//! What nodes say to one another about their logs, in the codec of the wire.

use purlin_proto::NodeId;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// How far the sender has read the log of each node that it sees as live; its own, how long it
    /// is.
    Heads {
        heads: Vec<(NodeId, u64)>,
        /// Whether the receiver is to answer with its own if the sender lacks something.
        answer: bool,
    },
    /// The sender has read the log of this owner up to here, and wants what comes next.
    Ask {
        owner: NodeId,
        at: Position,
        /// Whatever was sent to it after that has not arrived and will not.
        again: bool,
    },
    /// A page of the log of this owner.
    Page { owner: NodeId, page: Page },
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) after: u64,
    /// Within a full copy: the floor of the log that the copy is made of.
    pub(super) copy: Option<u64>,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    /// Whether this begins a full copy, in place of all that the reader has.
    pub(super) fresh: bool,
    /// The position that it goes on from.
    pub(super) after: u64,
    /// The position of whoever has read it.
    pub(super) upto: u64,
    /// How long the log is that it was taken from.
    pub(super) head: u64,
    /// Up to where removals may be forgotten in that log.
    pub(super) floor: u64,
    /// By number.
    pub(super) ops: Vec<Op>,
}

/// The last change of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Op {
    pub(super) number: u64,
    #[serde(with = "serde_bytes")]
    pub(super) key: Vec<u8>,
    /// `None` if the key was removed.
    #[serde(with = "serde_bytes")]
    pub(super) value: Option<Vec<u8>>,
}

impl Op {
    /// Bytes it takes besides key and value.
    pub(super) const OVERHEAD: usize = 25;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::fmt::Write;

    use purlin_proto::codec;

    use super::*;

    #[test]
    fn the_bytes_of_all_that_is_said_are_what_they_always_were() {
        let owner = NodeId::new("web-1".into(), 1_763_700_000_000);
        let set = Op { number: 7, key: b"key".into(), value: Some(b"value".into()) };
        let removed = Op { number: 9, key: b"gone".into(), value: None };
        let (after, upto, head, floor) = (6, 9, 12, 3);
        let page = Page { fresh: false, after, upto, head, floor, ops: vec![set, removed] };
        let all = [
            Said::Heads { heads: vec![(owner, 12)], answer: true },
            Said::Ask { owner, at: Position { after: 9, copy: None }, again: false },
            Said::Ask { owner, at: Position { after: 2, copy: Some(3) }, again: true },
            Said::Page { owner, page },
        ];

        let mut golden = String::new();
        for said in all {
            let bytes = codec::to_bytes(&said).unwrap();
            assert_eq!(codec::from_bytes(&bytes, 1 << 10), Ok(said.clone()));
            for byte in &bytes[..] {
                write!(golden, "{byte:02x}").unwrap();
            }
            write!(golden, "\n    {said:?}\n").unwrap();
        }
        insta::assert_snapshot!(golden);
    }
}
