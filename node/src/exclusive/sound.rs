//! What nobody says who keeps to the rules; it is passed over.
//!
//! Raft believes its voters, so a member that lies can have what is exclusive stop, or run twice
//! (`ARCHITECTURE.md`, what we do not defend against). But `openraft` does not check what it is told
//! either: it panics, or goes on with a broken log, when that makes no sense or a number is as high as
//! can be. That does not get past here. What only this voter can tell is in
//! [`Store::contradicts`](super::store::Store).
//!
//! Whoever says such a thing may have been told it by another, so its connection stays.

use std::collections::BTreeSet;

use openraft::raft::AppendEntriesRequest;
use openraft::{BasicNode, EntryPayload};
use purlin_cluster::exclusive::{AuthorityId, Grant, RingView};
use purlin_proto::codec;
use purlin_proto::limits::{CREATION, EXCLUSIVE_BYTES, MEMBERS};

use super::raft::{LogId, Views, Vote};
use super::wire::{Ask, Here, Question, Reply, Say};

/// Highest epoch, term and index, as of creations: counted up from a time, or from nothing, none can
/// come near.
const HIGHEST: u64 = CREATION;

type Membership = openraft::Membership<u64, BasicNode>;

/// Whether it is what a node may say; if not, what is wrong.
pub(super) fn check(said: &Say) -> Result<(), &'static str> {
    match said {
        Say::Here(Here { authority: Some(known), .. }) | Say::Elsewhere(known, _) => {
            authority(known.id)
        }
        Say::Renew(renewal) => authority(renewal.authority),
        Say::Granted(given, _) => grant(given),
        Say::Invite(id) | Say::Ready(id, _) | Say::Drains(id) | Say::News(id, ..) => authority(*id),
        Say::Ask(Ask { authority: id, question, voter, .. }) => {
            authority(*id)?;
            if question.vote().leader_id.node_id == *voter {
                return Err("a question in the name of the voter that is asked");
            }
            match question {
                Question::Append(append) => appends(append),
                Question::Vote(asked) => {
                    candidate(&asked.vote)?;
                    asked.last_log_id.as_ref().map_or(Ok(()), |last| place(last, &asked.vote))
                }
                Question::Snapshot(vote, meta, bytes) => {
                    leads(vote)?;
                    let last = meta.last_log_id.as_ref().ok_or("a snapshot of nothing")?;
                    place(last, vote)?;
                    voters(meta.last_membership.membership())?;
                    if meta.last_membership.log_id().as_ref() > Some(last) {
                        return Err("voters of later than the snapshot");
                    }
                    let known = codec::from_bytes::<RingView>(bytes, EXCLUSIVE_BYTES);
                    view(&known.map_err(|_| "a snapshot that is none")?)
                }
            }
        }
        Say::Answer(_, Ok(answer)) => match answer {
            Reply::Append(openraft::raft::AppendEntriesResponse::HigherVote(vote)) => bounded(vote),
            Reply::Append(openraft::raft::AppendEntriesResponse::PartialSuccess(_)) => {
                Err("half of what is appended")
            }
            Reply::Append(_) => Ok(()),
            Reply::Vote(answer) => {
                bounded(&answer.vote)?;
                answer.last_log_id.as_ref().map_or(Ok(()), index)
            }
            Reply::Snapshot(answer) => bounded(&answer.vote),
        },
        Say::Here(Here { authority: None, .. }) | Say::Answer(_, Err(_)) => Ok(()),
    }
}

fn authority(id: AuthorityId) -> Result<(), &'static str> {
    if id.founded > HIGHEST { Err("founded after all times") } else { Ok(()) }
}

fn grant(given: &Grant) -> Result<(), &'static str> {
    authority(given.authority)?;
    if given.epoch > HIGHEST {
        return Err("an epoch beyond all");
    }
    given.view.as_ref().map_or(Ok(()), view)
}

fn view(view: &RingView) -> Result<(), &'static str> {
    match view {
        view if view.epoch > HIGHEST => Err("an epoch beyond all"),
        view if view.members.len() > MEMBERS => Err("more members than there may be"),
        _ => Ok(()),
    }
}

fn bounded(vote: &Vote) -> Result<(), &'static str> {
    if vote.leader_id.term > HIGHEST { Err("a term beyond all") } else { Ok(()) }
}

fn leads(vote: &Vote) -> Result<(), &'static str> {
    if !vote.committed {
        return Err("it does not claim to lead");
    }
    bounded(vote)
}

fn candidate(vote: &Vote) -> Result<(), &'static str> {
    if vote.committed {
        return Err("who leads asks for votes");
    }
    bounded(vote)
}

fn index(log: &LogId) -> Result<(), &'static str> {
    if log.index > HIGHEST { Err("a log beyond all") } else { Ok(()) }
}

/// Of the log of whoever has this vote.
fn place(log: &LogId, vote: &Vote) -> Result<(), &'static str> {
    if log.leader_id.term > vote.leader_id.term {
        return Err("a log of a later term");
    }
    index(log)
}

fn appends(append: &AppendEntriesRequest<Views>) -> Result<(), &'static str> {
    let vote = &append.vote;
    leads(vote)?;
    let mut before = append.prev_log_id;
    for log in before.iter().chain(&append.leader_commit) {
        place(log, vote)?;
    }
    for entry in &append.entries {
        let log = entry.log_id;
        place(&log, vote)?;
        let follows = match before {
            Some(before) => log.index == before.index + 1 && log > before,
            None => log.index == 0,
        };
        if !follows {
            return Err("a log with gaps");
        }
        before = Some(log);
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(proposal) => view(&proposal.view)?,
            EntryPayload::Membership(membership) => voters(membership)?,
        }
    }
    Ok(())
}

fn voters(membership: &Membership) -> Result<(), &'static str> {
    let sets = membership.get_joint_config();
    let nodes: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
    let named = |set: &BTreeSet<u64>| !set.is_empty() && set.is_subset(&nodes);
    match sets.len() {
        1 | 2 if sets.iter().all(named) => Ok(()),
        _ => Err("no voters"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use openraft::raft::{AppendEntriesResponse, VoteRequest};
    use openraft::{CommittedLeaderId, Entry, LogId, SnapshotMeta, StoredMembership};
    use purlin_proto::NodeId;

    use super::*;
    use crate::exclusive::raft::Proposal;
    use crate::exclusive::wire::Known;

    fn id() -> AuthorityId {
        AuthorityId { founded: 7, founder: "a".into() }
    }

    fn log(term: u64, index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(term, 5), index)
    }

    fn ask(question: Question) -> Say {
        Say::Ask(Ask { number: 1, authority: id(), voter: 9, question })
    }

    fn leader(term: u64) -> Vote {
        Vote::new_committed(term, 5)
    }

    fn entry(log_id: LogId<u64>, epoch: u64) -> Entry<Views> {
        let view = RingView { epoch, members: vec![NodeId::new("a".into(), 3)] };
        Entry { log_id, payload: EntryPayload::Normal(Proposal { term: 2, view }) }
    }

    fn append(entries: Vec<Entry<Views>>) -> AppendEntriesRequest<Views> {
        let leader_commit = Some(log(1, 3));
        AppendEntriesRequest {
            vote: leader(2),
            prev_log_id: Some(log(1, 3)),
            entries,
            leader_commit,
        }
    }

    fn snapshot(voters: Membership) -> Say {
        let last = Some(log(2, 8));
        let last_membership = StoredMembership::new(Some(log(1, 0)), voters);
        let meta = SnapshotMeta { last_log_id: last, last_membership, snapshot_id: "s".to_owned() };
        let bytes = codec::to_bytes(&RingView::default()).unwrap().to_vec();
        ask(Question::Snapshot(leader(2), meta, bytes))
    }

    fn one_voter() -> Membership {
        Membership::new(vec![BTreeSet::from([5])], BTreeMap::from([(5, BasicNode::new("a"))]))
    }

    #[test]
    fn what_voters_say_passes() {
        let known = Known { id: id(), voters: vec!["a".into()] };
        let voters = Entry { log_id: log(2, 4), payload: EntryPayload::Membership(one_voter()) };
        let mut first = append(vec![Entry { log_id: log(2, 0), ..voters.clone() }]);
        first.prev_log_id = None;
        let vote = VoteRequest { vote: Vote::new(3, 5), last_log_id: Some(log(2, 8)) };
        let said = [
            Say::Here(Here { takes_part: true, authority: Some(known) }),
            ask(Question::Append(append(vec![]))),
            ask(Question::Append(append(vec![voters, entry(log(2, 5), 9)]))),
            ask(Question::Append(first)),
            ask(Question::Vote(vote)),
            snapshot(one_voter()),
            Say::Answer(1, Ok(Reply::Append(AppendEntriesResponse::HigherVote(leader(3))))),
        ];
        for said in said {
            assert_eq!(check(&said), Ok(()), "{said:?}");
        }
    }

    #[test]
    fn what_no_voter_says_does_not() {
        let late = AuthorityId { founded: HIGHEST + 1, ..id() };
        let mut uncommitted = append(vec![]);
        uncommitted.vote.committed = false;
        let mut ours = append(vec![]);
        ours.vote.leader_id.node_id = 9;
        let mut later = append(vec![]);
        later.leader_commit = Some(log(3, 1));
        let mut without_first = append(vec![entry(log(2, 4), 9)]);
        without_first.prev_log_id = None;
        let nobody = Membership::new(vec![], BTreeMap::<u64, BasicNode>::new());
        let said = [
            Say::Invite(late),
            ask(Question::Append(uncommitted)),
            ask(Question::Append(ours)),
            ask(Question::Append(later)),
            ask(Question::Append(without_first)),
            ask(Question::Append(append(vec![entry(log(2, 5), 9)]))),
            ask(Question::Append(append(vec![entry(log(0, 4), 9)]))),
            ask(Question::Append(append(vec![entry(log(2, 4), HIGHEST + 1)]))),
            ask(Question::Vote(VoteRequest { vote: leader(3), last_log_id: None })),
            ask(Question::Vote(VoteRequest { vote: Vote::new(u64::MAX, 5), last_log_id: None })),
            snapshot(nobody),
            Say::Answer(1, Ok(Reply::Append(AppendEntriesResponse::PartialSuccess(None)))),
        ];
        for said in said {
            assert!(check(&said).is_err(), "{said:?}");
        }
    }
}
