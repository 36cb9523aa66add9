//! What nodes and voters say to each other, in frame `0x33`.
//!
//! The first byte is a kind, then its value. Kinds are never changed and never reused; one that is
//! unknown is of a later version and is passed over.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, SnapshotMeta};
use purlin_cluster::exclusive::{AuthorityId, Grant, Renewal};
use purlin_proto::NodeName;
use purlin_proto::codec::{self, DecodeError, EncodeError};
use purlin_proto::limits::EXCLUSIVE_BYTES;
use serde::{Deserialize, Serialize};

use super::raft::{Views, Vote};

/// An authority as others hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) id: AuthorityId,
    /// Who votes, as far as the sender knows.
    pub(super) voters: Vec<NodeName>,
}

/// One thing said.
#[derive(Debug)]
pub(super) enum Say {
    /// What the sender knows; once on each connection and whenever it changes.
    Here(Here),
    /// To a voter.
    Renew(Renewal),
    /// The leader's answer, and who votes.
    Granted(Grant, Vec<NodeName>),
    /// A voter's answer that does not lead.
    Elsewhere(Known, Option<NodeName>),
    /// The leader wants the receiver to vote.
    Invite(AuthorityId),
    /// It is ready to, as this voter.
    Ready(AuthorityId, u64),
    /// A question of one voter to another.
    Ask(Ask),
    /// The answer, or why there is none.
    Answer(u64, Result<Reply, String>),
    /// To a voter: the sender is about to leave. With each renewal.
    Drains(AuthorityId),
    /// From the leader: there is a view of this number, and the barrier is passed up to that one; who
    /// does not know so asks for its lease at once.
    News(AuthorityId, u64, u64),
}

/// See [`Say::Here`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Here {
    /// Whether anything exclusive is to run there.
    pub(super) takes_part: bool,
    pub(super) authority: Option<Known>,
}

/// See [`Say::Ask`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    /// Tells its answer from others.
    pub(super) number: u64,
    pub(super) authority: AuthorityId,
    /// Which voter is meant: not a later one on the same node.
    pub(super) voter: u64,
    pub(super) question: Question,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Append(AppendEntriesRequest<Views>),
    Vote(VoteRequest<u64>),
    Snapshot(Vote, SnapshotMeta<u64, BasicNode>, Vec<u8>),
}

impl Question {
    /// Of who asks, or of the leader it claims to be.
    pub(super) fn vote(&self) -> &Vote {
        match self {
            Self::Append(append) => &append.vote,
            Self::Vote(asked) => &asked.vote,
            Self::Snapshot(vote, ..) => vote,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(SnapshotResponse<u64>),
}

const HERE: u8 = 0;
const RENEW: u8 = 1;
const GRANTED: u8 = 2;
const ELSEWHERE: u8 = 3;
const INVITE: u8 = 4;
const READY: u8 = 5;
const ASK: u8 = 6;
const ANSWER: u8 = 7;
const DRAINS: u8 = 16;
const NEWS: u8 = 17;

impl Say {
    /// The frame's bytes.
    pub(super) fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        let put = |out: &mut BytesMut, kind: u8| out.put_u8(kind);
        match self {
            Self::Here(here) => {
                put(&mut out, HERE);
                codec::encode(here, &mut out)?;
            }
            Self::Renew(renewal) => {
                put(&mut out, RENEW);
                codec::encode(renewal, &mut out)?;
            }
            Self::Granted(grant, voters) => {
                put(&mut out, GRANTED);
                codec::encode(&(grant, voters), &mut out)?;
            }
            Self::Elsewhere(known, leader) => {
                put(&mut out, ELSEWHERE);
                codec::encode(&(known, leader), &mut out)?;
            }
            Self::Invite(authority) => {
                put(&mut out, INVITE);
                codec::encode(authority, &mut out)?;
            }
            Self::Ready(authority, voter) => {
                put(&mut out, READY);
                codec::encode(&(authority, voter), &mut out)?;
            }
            Self::Ask(ask) => {
                put(&mut out, ASK);
                codec::encode(ask, &mut out)?;
            }
            Self::Answer(number, answer) => {
                put(&mut out, ANSWER);
                codec::encode(&(number, answer), &mut out)?;
            }
            Self::Drains(authority) => {
                put(&mut out, DRAINS);
                codec::encode(authority, &mut out)?;
            }
            Self::News(authority, epoch, cleared) => {
                put(&mut out, NEWS);
                codec::encode(&(authority, epoch, cleared), &mut out)?;
            }
        }
        Ok(out.freeze())
    }

    /// Reads one; `None` for a kind of a later version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((&kind, body)) = bytes.split_first() else {
            return Err(DecodeError::Malformed { detail: "nothing said".to_owned() });
        };
        let limit = EXCLUSIVE_BYTES;
        Ok(Some(match kind {
            HERE => Self::Here(codec::from_bytes(body, limit)?),
            RENEW => Self::Renew(codec::from_bytes(body, limit)?),
            GRANTED => {
                let (grant, voters) = codec::from_bytes(body, limit)?;
                Self::Granted(grant, voters)
            }
            ELSEWHERE => {
                let (known, leader) = codec::from_bytes(body, limit)?;
                Self::Elsewhere(known, leader)
            }
            INVITE => Self::Invite(codec::from_bytes(body, limit)?),
            READY => {
                let (authority, voter) = codec::from_bytes(body, limit)?;
                Self::Ready(authority, voter)
            }
            ASK => Self::Ask(codec::from_bytes(body, limit)?),
            ANSWER => {
                let (number, answer) = codec::from_bytes(body, limit)?;
                Self::Answer(number, answer)
            }
            DRAINS => Self::Drains(codec::from_bytes(body, limit)?),
            NEWS => {
                let (authority, epoch, cleared) = codec::from_bytes(body, limit)?;
                Self::News(authority, epoch, cleared)
            }
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use openraft::{EntryPayload, LeaderId, LogId};
    use purlin_cluster::exclusive::RingView;
    use purlin_proto::NodeId;

    use super::*;
    use crate::exclusive::raft::Proposal;

    fn authority() -> AuthorityId {
        AuthorityId { founded: 7, founder: "a".into() }
    }

    fn entry() -> openraft::Entry<Views> {
        let view = RingView { epoch: 8, members: vec![NodeId::new("a".into(), 3)] };
        let log_id = LogId::new(openraft::CommittedLeaderId::new(2, 5), 1);
        openraft::Entry { log_id, payload: EntryPayload::Normal(Proposal { term: 2, view }) }
    }

    fn all() -> Vec<Say> {
        let known = Known { id: authority(), voters: vec!["a".into(), "b".into()] };
        let renewal = Renewal {
            authority: authority(),
            number: 1,
            known: 2,
            installed: 3,
            seen: 4,
            leaving: false,
        };
        let view = RingView { epoch: 8, members: vec![NodeId::new("a".into(), 3)] };
        let grant = Grant {
            authority: authority(),
            number: 1,
            leased: true,
            epoch: 8,
            cleared: 7,
            view: Some(view),
        };
        let append = AppendEntriesRequest {
            vote: Vote::new_committed(2, 5),
            prev_log_id: None,
            entries: vec![entry()],
            leader_commit: None,
        };
        let vote = VoteResponse::<u64> {
            vote: Vote { leader_id: LeaderId::new(2, 5), committed: false },
            vote_granted: true,
            last_log_id: None,
        };
        let question = Question::Append(append);
        vec![
            Say::Here(Here { takes_part: true, authority: Some(known.clone()) }),
            Say::Renew(renewal),
            Say::Granted(grant, known.voters.clone()),
            Say::Elsewhere(known, Some("b".into())),
            Say::Invite(authority()),
            Say::Ready(authority(), 9),
            Say::Ask(Ask { number: 4, authority: authority(), voter: 9, question }),
            Say::Answer(4, Ok(Reply::Vote(vote))),
            Say::Answer(5, Err("gone".to_owned())),
            Say::Drains(authority()),
            Say::News(authority(), 8, 7),
        ]
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        for said in all() {
            let bytes = said.encode().unwrap();
            let heard = Say::decode(&bytes).unwrap().unwrap();
            assert_eq!(format!("{heard:?}"), format!("{said:?}"));
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_passed_over_and_half_of_anything_is_an_error() {
        assert!(Say::decode(&[200, 1, 2]).unwrap().is_none());
        assert!(Say::decode(&[]).is_err());
        for said in all() {
            let bytes = said.encode().unwrap();
            assert!(Say::decode(&bytes[..bytes.len() - 1]).is_err(), "{said:?}");
        }
    }
}
