//! A voter's seat: a member of the Raft group, and what its leader does besides.
//!
//! The leader answers renewals in batches: one confirmation by a majority for all that have come
//! before it was asked for. After each it looks whether members are to be taken in or out, and who
//! should vote. One change of the view and one of the voters is under way at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use openraft::{BasicNode, ChangeMembers, Membership, ServerState};
use purlin_cluster::exclusive::{
    AuthorityId, Candidate, Keeper, Renewal, RingView, Times, choose_voters,
};
use purlin_proto::{NodeId, NodeName};

use super::network::{Mouth, Voters};
use super::raft::{Chance, Proposal, Raft, config};
use super::store::{LoadError, Store};
use super::wire::{Question, Reply};
use crate::disk::Disk;

/// How long a voter to be may take until it has the log.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Why a node cannot take its seat.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeatError {
    #[error("what it has promised cannot be read: {0}")]
    Load(#[from] LoadError),
    #[error("{0}")]
    Raft(String),
}

/// One voter, on this node.
pub(super) struct Seat {
    pub(super) authority: AuthorityId,
    pub(super) id: u64,
    pub(super) store: Store,
    pub(super) raft: Raft,
    /// When another voter last asked it something, or it was opened.
    pub(super) asked_at: Duration,
    /// Since when the leader says that it does not vote, and asks it nothing.
    pub(super) unwanted: Option<Duration>,
    /// Since when the leader does not vote, as one that has left; and when this one last stood for
    /// election because of that.
    vacant: Option<(Duration, Duration)>,
    times: Times,
    /// The term in which it leads, and what it knows since.
    pub(super) leading: Option<(u64, Keeper)>,
    /// Renewals that wait for the majority, one of each node.
    pub(super) pending: BTreeMap<NodeName, (NodeId, Renewal)>,
    pub(super) confirming: bool,
    pub(super) writing: bool,
    pub(super) changing: bool,
    /// The newest view and the barrier that others have been told of.
    pub(super) told: (u64, u64),
    /// Nodes that have said that they are ready to vote, and as which voter.
    pub(super) ready: BTreeMap<NodeName, u64>,
}

impl Seat {
    /// Takes a seat as this voter; what is on the disk must be its own.
    pub(super) async fn open(
        authority: AuthorityId,
        id: u64,
        disk: Disk,
        mouth: Mouth,
        chance: &Chance,
        times: Times,
        now: Duration,
    ) -> Result<Self, SeatError> {
        let store = Store::load(disk)?;
        let network = Voters { mouth, authority };
        let config = config(times).validate().map_err(|e| SeatError::Raft(e.to_string()))?;
        let raft = Raft::new(id, Arc::new(config), network, store.clone(), store.clone());
        let raft = chance.scope(raft).await.map_err(|e| SeatError::Raft(e.to_string()))?;
        Ok(Self {
            authority,
            id,
            store,
            raft,
            asked_at: now,
            unwanted: None,
            vacant: None,
            times,
            leading: None,
            pending: BTreeMap::new(),
            confirming: false,
            writing: false,
            changing: false,
            told: (0, 0),
            ready: BTreeMap::new(),
        })
    }

    /// Why it has stopped, if it has: what it was to promise could not be written.
    pub(super) fn failed(&self) -> Option<String> {
        self.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// Looks whether it leads, and since when.
    pub(super) fn look(&mut self, now: Duration) {
        let (leads, term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.state == ServerState::Leader, metrics.current_term)
        };
        match &self.leading {
            Some((known, _)) if leads && *known == term => {}
            _ if leads => {
                tracing::info!(term, "leads the voters");
                let keeper = Keeper::new(self.authority, self.times, now);
                let founds = self.store.view().epoch == 0;
                let keeper = if founds { keeper.founding() } else { keeper };
                self.leading = Some((term, keeper));
            }
            None => {}
            Some((term, _)) => {
                tracing::info!(term, "does not lead the voters any more");
                self.leading = None;
                self.pending.clear();
            }
        }
    }

    /// Whether this voter is to stand for election at once, since the leader has left: each waits a
    /// little longer than the one before it. Without that they would wait for it as for one that is
    /// lost, and leases might run out.
    pub(super) fn stands(&mut self, now: Duration) -> bool {
        let vacant = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let voters: BTreeSet<u64> =
                metrics.membership_config.membership().voter_ids().collect();
            let left = metrics.current_leader.is_some_and(|leader| !voters.contains(&leader));
            let rank = voters.iter().position(|voter| *voter == self.id);
            rank.filter(|_| left && metrics.current_leader != Some(self.id))
        };
        let Some(rank) = vacant else {
            self.vacant = None;
            return false;
        };
        let turn = self.times.lease / 12;
        let (since, last) = *self.vacant.get_or_insert((now, now));
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let due = now >= since + turn.saturating_mul(rank) && now >= last + turn;
        if due {
            self.vacant = Some((since, now));
        }
        due
    }

    /// Whether it is to be given up: for long the leader has not counted it among the voters. One that
    /// is about to become a voter is asked things all the time.
    pub(super) fn is_unwanted(&mut self, now: Duration, votes: bool, after: Duration) -> bool {
        if votes || now < self.asked_at + after {
            self.unwanted = None;
            return false;
        }
        now >= *self.unwanted.get_or_insert(now) + after
    }

    /// Who leads, as this voter sees it.
    pub(super) fn leader(&self) -> Option<NodeName> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        NodeName::new(&node.addr).ok()
    }

    /// Who votes, by name, as the log says here.
    pub(super) fn voters(&self) -> BTreeMap<NodeName, u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let ids: BTreeSet<u64> = membership.voter_ids().collect();
        let named = membership.nodes().filter(|(id, _)| ids.contains(id));
        named.filter_map(|(id, node)| Some((NodeName::new(&node.addr).ok()?, *id))).collect()
    }

    /// Who should vote, of the members of a view; the ones to be invited, and the change if all of
    /// them are ready. One that drains votes on if it did, until it leaves.
    pub(super) fn change(
        &mut self,
        us: NodeName,
        view: &RingView,
        zones: &BTreeMap<NodeName, String>,
    ) -> (Vec<NodeName>, Option<BTreeMap<u64, BasicNode>>) {
        let present = self.voters();
        let keeper = self.leading.iter().map(|(_, keeper)| keeper);
        let draining: BTreeSet<NodeId> = keeper.flat_map(Keeper::draining).collect();
        let votes = |id: &NodeId| present.contains_key(&id.name);
        let members = view.members.iter().filter(|id| !draining.contains(id));
        let members: BTreeSet<_> = members.chain(draining.iter().filter(|id| votes(id))).collect();
        let candidates: Vec<_> = members
            .into_iter()
            .map(|id| Candidate {
                name: id.name,
                creation: id.creation,
                zone: zones.get(&id.name).cloned(),
            })
            .collect();
        let wanted = choose_voters(&candidates, &present.keys().copied().collect());
        // Who is not wanted gives up its seat; it says anew that it is ready, and as whom.
        self.ready.retain(|name, _| wanted.contains(name));
        let voter = |name: &NodeName| match *name == us {
            true => Some(self.id),
            false => self.ready.get(name).or_else(|| present.get(name)).copied(),
        };
        let ids: Option<BTreeMap<u64, BasicNode>> =
            wanted.iter().map(|name| Some((voter(name)?, BasicNode::new(name)))).collect();
        let now: BTreeSet<u64> = present.into_values().collect();
        let other = ids.filter(|ids| !ids.is_empty() && !ids.keys().copied().eq(now));
        (wanted.into_iter().filter(|name| *name != us).collect(), other)
    }
}

/// Answers a question of another voter.
pub(super) async fn answer(raft: Raft, store: &Store, question: Question) -> Result<Reply, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // Nothing else that a leader says is done between the look at what is committed and this.
    let _led = match &question {
        Question::Append(_) | Question::Snapshot(..) => Some(store.led.lock().await),
        Question::Vote(_) => None,
    };
    let committed = raft.with_raft_state(|state| state.committed).await.map_err(|e| text(&e))?;
    match question {
        _ if store.contradicts(&question, committed) => {
            Err("it contradicts what is committed here".to_owned())
        }
        Question::Append(rpc) => {
            raft.append_entries(rpc).await.map(Reply::Append).map_err(|e| text(&e))
        }
        Question::Vote(rpc) => raft.vote(rpc).await.map(Reply::Vote).map_err(|e| text(&e)),
        Question::Snapshot(vote, meta, bytes) => {
            // openraft takes the end of a snapshot for later than that of a shorter log, and panics if
            // it is not. So what cannot be in its leader's log is cut off first, as it would be by an
            // entry of that leader.
            let news = meta.last_log_id.filter(|last| Some(*last) > committed);
            if let Some(stray) = news.and_then(|last| store.stray(last)) {
                let cut = AppendEntriesRequest {
                    vote,
                    prev_log_id: Some(stray),
                    entries: Vec::new(),
                    leader_commit: None,
                };
                raft.append_entries(cut).await.map_err(|e| text(&e))?;
            }
            let snapshot = openraft::Snapshot { meta, snapshot: Box::new(bytes) };
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            installed.map(Reply::Snapshot).map_err(|e| text(&e))
        }
    }
}

/// Makes the log say that this voter is the only one.
pub(super) async fn found(raft: &Raft, id: u64, us: NodeName) -> Result<(), SeatError> {
    let voters = BTreeMap::from([(id, BasicNode::new(us))]);
    raft.initialize(voters).await.map_err(|e| SeatError::Raft(e.to_string()))
}

/// A majority confirms that this voter leads, later than now; and the log is applied here as far as
/// anybody may have seen it.
///
/// The term in which it does; none if there is no majority.
pub(super) async fn confirm(raft: Raft, store: Store) -> Option<u64> {
    match raft.get_read_log_id().await {
        Ok((log, _)) => {
            store.applied_to(log).await;
            // Of a leader's first entry in its term, or a later one.
            log.map(|log| log.leader_id.term)
        }
        Err(error) => {
            tracing::debug!(%error, "not confirmed by a majority");
            None
        }
    }
}

/// Writes a view.
pub(super) async fn write(raft: Raft, term: u64, view: RingView) {
    let epoch = view.epoch;
    if let Err(error) = raft.client_write(Proposal { term, view }).await {
        tracing::debug!(epoch, %error, "the view is not written");
    }
}

/// Makes these the voters: those that are not, as soon as all of them have the log. Before that they
/// do not count: a majority of which some are not there could decide nothing, this neither.
pub(super) async fn change(raft: Raft, voters: BTreeMap<u64, BasicNode>) {
    let ids: BTreeSet<u64> = voters.keys().copied().collect();
    let present: BTreeSet<u64> = membership(&raft).voter_ids().collect();
    let changed = match follow(&raft, voters, &present).await {
        Ok(()) => raft.change_membership(ids, false).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    match changed {
        Ok(_) => tracing::info!("other voters"),
        Err(error) => tracing::debug!(%error, "the voters are not changed"),
    }
    // Who does not vote need not follow either, be it that it did, or that it was to.
    let idle: BTreeSet<u64> = membership(&raft).learner_ids().collect();
    if !idle.is_empty()
        && let Err(error) = raft.change_membership(ChangeMembers::RemoveNodes(idle), false).await
    {
        tracing::debug!(%error, "who does not vote follows on");
    }
}

/// Has those that do not vote follow the log, and waits until they have it.
async fn follow(
    raft: &Raft,
    voters: BTreeMap<u64, BasicNode>,
    present: &BTreeSet<u64>,
) -> Result<(), String> {
    for (id, node) in voters.into_iter().filter(|(id, _)| !present.contains(id)) {
        let name = node.addr.clone();
        let following = tokio::time::timeout(CATCH_UP, raft.add_learner(id, node, true)).await;
        following.map_err(|_| format!("{name} does not follow"))?.map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn membership(raft: &Raft) -> Membership<u64, BasicNode> {
    raft.metrics().borrow().membership_config.membership().clone()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io;

    use openraft::error::{
        Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError,
    };
    use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
    use openraft::raft::{AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
    use openraft::{
        CommittedLeaderId, Entry, EntryPayload, Snapshot, SnapshotMeta, StoredMembership,
    };
    use purlin_proto::codec;

    use super::*;
    use crate::exclusive::raft::{LogId, Views, Vote};

    /// Other voters, none of whom can be reached.
    struct Nobody;

    type RpcError = RPCError<u64, BasicNode, RaftError<u64>>;

    fn nobody() -> NetworkError {
        NetworkError::new(&io::Error::from(io::ErrorKind::NotConnected))
    }

    impl RaftNetworkFactory<Views> for Nobody {
        type Network = Self;

        async fn new_client(&mut self, _: u64, _: &BasicNode) -> Self {
            Self
        }
    }

    impl RaftNetwork<Views> for Nobody {
        async fn append_entries(
            &mut self,
            _: AppendEntriesRequest<Views>,
            _: RPCOption,
        ) -> Result<AppendEntriesResponse<u64>, RpcError> {
            Err(nobody().into())
        }

        async fn vote(
            &mut self,
            _: VoteRequest<u64>,
            _: RPCOption,
        ) -> Result<VoteResponse<u64>, RpcError> {
            Err(nobody().into())
        }

        async fn full_snapshot(
            &mut self,
            _: Vote,
            _: Snapshot<Views>,
            _: impl Future<Output = ReplicationClosed> + Send + 'static,
            _: RPCOption,
        ) -> Result<SnapshotResponse<u64>, StreamingError<Views, Fatal<u64>>> {
            Err(nobody().into())
        }
    }

    fn log(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 5), index)
    }

    fn entry(term: u64, index: u64) -> Entry<Views> {
        let payload = match index {
            0 => EntryPayload::Membership(voters()),
            epoch => {
                let view = RingView { epoch, members: Vec::new() };
                EntryPayload::Normal(Proposal { term, view })
            }
        };
        Entry { log_id: log(term, index), payload }
    }

    fn voters() -> Membership<u64, BasicNode> {
        let nodes = [(5, BasicNode::new("a")), (6, BasicNode::new("b"))];
        Membership::new(vec![BTreeSet::from([5, 6])], BTreeMap::from(nodes))
    }

    fn append(prev: Option<LogId>, entries: Vec<Entry<Views>>) -> Question {
        let term = entries.last().unwrap().log_id.leader_id.term;
        let vote = Vote::new_committed(term, 5);
        let leader_commit = Some(log(1, 3));
        Question::Append(AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit })
    }

    fn snapshot(by: u64, last: LogId) -> Question {
        let last_membership = StoredMembership::new(Some(log(1, 0)), voters());
        let snapshot_id = last.to_string();
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership, snapshot_id };
        let view = RingView { epoch: last.index, members: Vec::new() };
        Question::Snapshot(
            Vote::new_committed(by, 5),
            meta,
            codec::to_bytes(&view).unwrap().to_vec(),
        )
    }

    /// The leader of term 5 wrote to this voter alone before it was lost; another, of term 6, goes on
    /// from what was written in term 3, has committed that, and has nothing older left than a snapshot
    /// of it.
    #[tokio::test]
    async fn a_snapshot_replaces_what_a_later_leader_wrote_here_alone() {
        for stray in [vec![entry(5, 4)], vec![entry(2, 4), entry(5, 5), entry(5, 6)]] {
            let store = Store::load(Disk::Memory(Arc::default())).unwrap();
            let times = Times::new(Duration::from_secs(5));
            let config = Arc::new(config(times).validate().unwrap());
            let raft = Raft::new(6, config, Nobody, store.clone(), store.clone()).await.unwrap();
            let say = async |question| answer(raft.clone(), &store, question).await;
            let entries = (0..4).map(|index| entry(1, index)).chain(stray).collect();
            assert!(matches!(say(append(None, entries)).await, Ok(Reply::Append(_))));

            let installed = say(snapshot(6, log(3, 12))).await;

            assert!(matches!(installed, Ok(Reply::Snapshot(_))), "{installed:?}");
            let next = say(append(Some(log(3, 12)), vec![entry(6, 13)])).await;
            assert!(matches!(next, Ok(Reply::Append(AppendEntriesResponse::Success))), "{next:?}");
            store.applied_to(Some(log(3, 12))).await;
            assert_eq!(store.view().epoch, 12);
        }
    }
}
