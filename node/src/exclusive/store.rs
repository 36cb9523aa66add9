//! The voters' log and what it amounts to: the newest ring view and who votes.
//!
//! All of it is in memory, for it is a few entries, and written through to the [`Disk`] before it
//! counts. Whoever stops voting wipes it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    AnyError, Entry, EntryPayload, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder,
    Snapshot, SnapshotMeta, StorageIOError,
};
use purlin_cluster::exclusive::RingView;
use purlin_proto::codec;
use purlin_proto::limits::STATE_BYTES;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::raft::{LogId, Membership, Proposal, StorageError, Views, Vote};
use super::wire::Question;
use crate::disk::{Change, Disk, DiskError};

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const APPLIED: &[u8] = b"applied";
const LOG: &[u8] = b"log/";

/// The log and its outcome. Cheap to clone.
#[derive(Clone)]
pub(super) struct Store {
    disk: Disk,
    kept: Arc<Mutex<Kept>>,
    applied: Arc<watch::Sender<Option<LogId>>>,
    /// Held while what a leader says is looked at and then done.
    pub(super) led: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Kept {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    log: BTreeMap<u64, Entry<Views>>,
    applied: Applied,
    snapshot: Option<Applied>,
}

/// The outcome of the log up to an entry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId>,
    voters: Membership,
    view: RingView,
}

fn key_of(index: u64) -> Vec<u8> {
    [LOG, &index.to_be_bytes()].concat()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, io::Error> {
    codec::to_bytes(value).map(|bytes| bytes.to_vec()).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, io::Error> {
    codec::from_bytes(bytes, STATE_BYTES).map_err(io::Error::other)
}

/// Why what was kept cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("what is kept there is damaged: {0}")]
    Damaged(#[from] io::Error),
}

impl Store {
    /// What is on the disk, or nothing.
    pub(super) fn load(disk: Disk) -> Result<Self, LoadError> {
        let mut kept = Kept::default();
        for (key, value) in disk.read()? {
            match key.as_slice() {
                VOTE => kept.vote = decode(&value)?,
                COMMITTED => kept.committed = decode(&value)?,
                PURGED => kept.purged = decode(&value)?,
                APPLIED => kept.applied = decode(&value)?,
                key if key.starts_with(LOG) => {
                    let entry: Entry<Views> = decode(&value)?;
                    kept.log.insert(entry.log_id.index, entry);
                }
                _ => {}
            }
        }
        // The outcome up to here may be all that is left of the log.
        kept.snapshot = kept.applied.last.is_some().then(|| kept.applied.clone());
        let applied = Arc::new(watch::Sender::new(kept.applied.last));
        Ok(Self { disk, kept: Arc::new(Mutex::new(kept)), applied, led: Arc::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest view that is applied here.
    pub(super) fn view(&self) -> RingView {
        self.kept().applied.view.clone()
    }

    /// Whether it would have what is committed here, up to this, be something else, which no leader
    /// does.
    pub(super) fn contradicts(&self, question: &Question, committed: Option<LogId>) -> bool {
        let kept = self.kept();
        let Some(last) = committed.max(kept.applied.last) else { return false };
        let differs = |log: LogId| match kept.log.get(&log.index) {
            _ if log.index > last.index => false,
            Some(entry) => entry.log_id != log,
            None => log > last,
        };
        match question {
            Question::Append(append) => {
                let entries = append.entries.iter().map(|entry| entry.log_id);
                entries.chain(append.prev_log_id).any(differs)
            }
            Question::Snapshot(_, meta, _) => meta.last_log_id.is_some_and(differs),
            Question::Vote(_) => false,
        }
    }

    /// The first place where the log here is not that of a leader with such a snapshot, as that one
    /// has it: what lies there was written by the leader of a later term than the snapshot's, which was
    /// lost before a majority had it.
    pub(super) fn stray(&self, snapshot: LogId) -> Option<LogId> {
        let kept = self.kept();
        let mut before = kept.log.range(..=snapshot.index);
        let (index, _) = before.find(|(_, entry)| entry.log_id.leader_id > snapshot.leader_id)?;
        Some(LogId::new(snapshot.leader_id, *index))
    }

    /// Returns when the log is applied up to this entry. Cancel safe.
    pub(super) async fn applied_to(&self, log: Option<LogId>) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as this store.
        let _ = applied.wait_for(|last| *last >= log).await;
    }

    /// Forgets everything.
    pub(super) async fn wipe(&self) -> Result<(), DiskError> {
        let change = {
            let mut kept = self.kept();
            let keys = kept.log.keys().map(|index| key_of(*index));
            let named = [VOTE, COMMITTED, PURGED, APPLIED].map(<[u8]>::to_vec);
            let change = keys.chain(named).map(|key| (key, None)).collect();
            *kept = Kept::default();
            change
        };
        self.disk.write(change).await
    }

    async fn write(&self, change: Change) -> Result<(), AnyError> {
        self.disk.write(change).await.map_err(|error| AnyError::new(&error))
    }
}

fn any(error: &io::Error) -> AnyError {
    AnyError::new(error)
}

impl RaftLogReader<Views> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Views>>, StorageError> {
        Ok(self.kept().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Views> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Views>, StorageError> {
        let kept = self.kept();
        let last = kept.log.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: kept.purged, last_log_id: last.or(kept.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let bytes = encode(&Some(vote)).map_err(|e| StorageIOError::write_vote(any(&e)))?;
        let written = self.write(vec![(VOTE.to_vec(), Some(bytes))]).await;
        written.map_err(StorageIOError::write_vote)?;
        self.kept().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.kept().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        // Without a disk that is fast to sync it is not worth one: it is found out again.
        self.kept().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.kept().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Views>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<Views>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let mut change = Change::new();
        for entry in &entries {
            let bytes = encode(entry)
                .map_err(|e| StorageIOError::write_log_entry(entry.log_id, any(&e)))?;
            change.push((key_of(entry.log_id.index), Some(bytes)));
        }
        self.write(change).await.map_err(StorageIOError::write_logs)?;
        self.kept().log.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let gone: Vec<_> = self.kept().log.range(log_id.index..).map(|(index, _)| *index).collect();
        let change = gone.iter().map(|index| (key_of(*index), None)).collect();
        self.write(change).await.map_err(StorageIOError::write_logs)?;
        self.kept().log.retain(|index, _| *index < log_id.index);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let gone: Vec<_> =
            self.kept().log.range(..=log_id.index).map(|(index, _)| *index).collect();
        let mut change: Change = gone.iter().map(|index| (key_of(*index), None)).collect();
        let bytes = encode(&Some(log_id)).map_err(|e| StorageIOError::write_logs(any(&e)))?;
        change.push((PURGED.to_vec(), Some(bytes)));
        self.write(change).await.map_err(StorageIOError::write_logs)?;
        let mut kept = self.kept();
        kept.purged = Some(log_id);
        kept.log.retain(|index, _| *index > log_id.index);
        Ok(())
    }
}

impl Store {
    async fn save_applied(&self, applied: Applied, snapshot: bool) -> Result<(), StorageError> {
        let bytes = encode(&applied).map_err(|e| StorageIOError::write_state_machine(any(&e)))?;
        let written = self.write(vec![(APPLIED.to_vec(), Some(bytes))]).await;
        written.map_err(StorageIOError::write_state_machine)?;
        let last = applied.last;
        let mut kept = self.kept();
        if snapshot {
            kept.snapshot = Some(applied.clone());
        }
        kept.applied = applied;
        drop(kept);
        self.applied.send_replace(last);
        Ok(())
    }
}

impl RaftStateMachine<Views> for Store {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let kept = self.kept();
        Ok((kept.applied.last, kept.applied.voters.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry<Views>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.kept().applied.clone();
        let mut answers = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                // Two may have been proposed on top of one view: the first one counts.
                EntryPayload::Normal(Proposal { term, view }) => {
                    let in_time = term == entry.log_id.leader_id.term;
                    if in_time && view.epoch > applied.view.epoch {
                        applied.view = view;
                    }
                }
                EntryPayload::Membership(voters) => {
                    applied.voters = Membership::new(Some(entry.log_id), voters);
                }
            }
            answers.push(());
        }
        self.save_applied(applied, false).await?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::BasicNode>,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError> {
        let view = decode(&snapshot)
            .map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), any(&e)))?;
        let (last, voters) = (meta.last_log_id, meta.last_membership.clone());
        self.save_applied(Applied { last, voters, view }, true).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Views>>, StorageError> {
        let snapshot = self.kept().snapshot.clone();
        let snapshot = snapshot.map(snapshot_of).transpose();
        Ok(snapshot.map_err(|e| StorageIOError::read_snapshot(None, any(&e)))?)
    }
}

impl RaftSnapshotBuilder<Views> for Store {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Views>, StorageError> {
        let applied = {
            let mut kept = self.kept();
            kept.snapshot = Some(kept.applied.clone());
            kept.applied.clone()
        };
        Ok(snapshot_of(applied).map_err(|e| StorageIOError::write_snapshot(None, any(&e)))?)
    }
}

fn snapshot_of(applied: Applied) -> Result<Snapshot<Views>, io::Error> {
    let Applied { last, voters, view } = applied;
    let bytes = encode(&view)?;
    let snapshot_id = last.map_or_else(String::new, |last| last.to_string());
    let meta = SnapshotMeta { last_log_id: last, last_membership: voters, snapshot_id };
    Ok(Snapshot { meta, snapshot: Box::new(bytes) })
}
