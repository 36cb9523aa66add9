//! Questions of one voter to another, over the links that there are.
//!
//! A question that gets no answer ends with the asker's timeout; one that cannot be sent is an error
//! at once, and the asker tries again by its heartbeat. Nothing waits in a queue for a link.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Snapshot};
use purlin_cluster::exclusive::AuthorityId;
use purlin_proto::{Frame, NodeName};
use purlin_transport::Endpoint;
use tokio::sync::oneshot;

use super::raft::{Views, Vote};
use super::wire::{Ask, Question, Reply, Say};
use crate::directory::Directory;

/// So many questions may be out; more fail at once.
const QUESTIONS: usize = 1_024;

/// Says things to other nodes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Mouth {
    endpoint: Endpoint,
    directory: Arc<Directory>,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    next: u64,
    /// By the question's number: who is asked, and who waits.
    waiting: BTreeMap<u64, (NodeName, oneshot::Sender<Result<Reply, String>>)>,
}

/// Forgets a question when its asker gives up.
struct Forget<'a> {
    mouth: &'a Mouth,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.mouth.asked().waiting.remove(&self.number);
    }
}

impl Mouth {
    pub(super) fn new(endpoint: Endpoint, directory: Arc<Directory>) -> Self {
        Self { endpoint, directory, asked: Arc::default() }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something to a node; `false` if there is no link to it, or no room on it.
    pub(super) fn say(&self, to: NodeName, say: &Say) -> bool {
        let link = self.directory.find(to).and_then(|place| self.endpoint.link(&place.id));
        let Some(link) = link else { return false };
        match say.encode().and_then(|bytes| Frame::Exclusive(bytes).to_bytes()) {
            Ok(frame) => link.send_control(frame) == purlin_transport::Sent::Accepted,
            Err(error) => {
                tracing::error!(%to, %error, "too much to say");
                false
            }
        }
    }

    /// An answer has come. Nobody may wait for it any more; one from a node that was not asked counts
    /// for nothing.
    pub(super) fn answered(&self, from: NodeName, number: u64, answer: Result<Reply, String>) {
        let mut asked = self.asked();
        if asked.waiting.get(&number).is_none_or(|(whom, _)| *whom != from) {
            return;
        }
        let waiting = asked.waiting.remove(&number);
        drop(asked);
        if let Some((_, waiting)) = waiting {
            drop(waiting.send(answer));
        }
    }

    /// Cancel safe; without a limit of its own.
    async fn ask(
        &self,
        to: NodeName,
        authority: AuthorityId,
        voter: u64,
        question: Question,
    ) -> io::Result<Reply> {
        let (send, receive) = oneshot::channel();
        let number = {
            let mut asked = self.asked();
            if asked.waiting.len() >= QUESTIONS {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            asked.next += 1;
            let number = asked.next;
            asked.waiting.insert(number, (to, send));
            number
        };
        let _forget = Forget { mouth: self, number };
        if !self.say(to, &Say::Ask(Ask { number, authority, voter, question })) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let answer = receive.await.map_err(io::Error::other)?;
        answer.map_err(io::Error::other)
    }
}

/// Makes connections to voters of one authority.
pub(super) struct Voters {
    pub(super) mouth: Mouth,
    pub(super) authority: AuthorityId,
}

/// One of them.
pub(super) struct Voter {
    mouth: Mouth,
    authority: AuthorityId,
    id: u64,
    name: Option<NodeName>,
}

impl RaftNetworkFactory<Views> for Voters {
    type Network = Voter;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Voter {
        let (mouth, authority) = (self.mouth.clone(), self.authority);
        Voter { mouth, authority, id: target, name: NodeName::new(&node.addr).ok() }
    }
}

impl Voter {
    async fn ask(&self, question: Question, option: &RPCOption) -> Result<Reply, NetworkError> {
        let failed = |error: io::Error| NetworkError::new(&error);
        let name = self.name.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let asked = self.mouth.ask(name, self.authority, self.id, question);
        let answer = tokio::time::timeout(option.hard_ttl(), asked).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if answer.is_err() {
            // It is tried again at once otherwise, without a pause.
            tokio::time::sleep(option.soft_ttl() / 4).await;
        }
        answer.map_err(failed)
    }
}

fn another() -> NetworkError {
    NetworkError::new(&io::Error::other("it answered something else"))
}

type RpcError = RPCError<u64, BasicNode, RaftError<u64>>;

impl RaftNetwork<Views> for Voter {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Views>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        match self.ask(Question::Append(rpc), &option).await? {
            Reply::Append(reply) => Ok(reply),
            _ => Err(another().into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        match self.ask(Question::Vote(rpc), &option).await? {
            Reply::Vote(reply) => Ok(reply),
            _ => Err(another().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Views>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Views, Fatal<u64>>> {
        // It is a ring view: small, and sent in one piece.
        let question = Question::Snapshot(vote, snapshot.meta, *snapshot.snapshot);
        match self.ask(question, &option).await? {
            Reply::Snapshot(reply) => Ok(reply),
            _ => Err(another().into()),
        }
    }
}
