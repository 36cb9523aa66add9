//! A member's side of joining: finds out whose token it is, and has it signed there.
//!
//! The request of somebody without a certificate goes to the member whose directory made the token:
//! this one, or the first that says so when all are asked for the token's id. The secret goes to
//! that one alone. If none says so the token is unknown; members that do not answer are counted,
//! since it may be one of them. Nothing is kept here: when this node, the other, or the connection
//! between them dies, whoever joins asks again, and a use that was counted is still its own.
//!
//! A stranger with a made-up token makes this node ask all the others. Who is refused so has to wait
//! before it is told, and keeps its place at the transport's door meanwhile: with 16 places that is
//! at most 16 questions a second.
//!
//! Refused requests are told, counted and logged on both members; secrets are never logged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use purlin_cluster::Membership;
use purlin_proto::admin::{self, KnowsToken, TakeIn};
use purlin_proto::join::{JoinAnswer, JoinRefusal, JoinRequest, TokenId};
use purlin_proto::limits::{JOIN_ANSWER_BYTES, JOIN_REQUEST_BYTES};
use purlin_proto::{Dest, Name, NodeName, codec};
use purlin_runtime::{Runtime, WeakRuntime};
use tokio::task::JoinSet;

use super::store::{Surroundings, Tokens, failed};
use crate::builder::WallClock;

/// How long members may take to say whose token it is, and then the one to sign.
const FIND_TIMEOUT: Duration = Duration::from_secs(3);
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one waits whose token nobody knows.
const GUESS_DELAY: Duration = Duration::from_secs(1);

/// Answers those who join, for as long as its node runs.
pub(crate) struct Desk {
    /// Of the data directory; none where credentials were handed in.
    tokens: Option<Tokens>,
    cluster: Name,
    runtime: WeakRuntime,
    membership: Arc<OnceLock<Mutex<Membership>>>,
    clock: WallClock,
    pub(crate) counts: Counts,
}

/// What became of requests since the node started.
#[derive(Default)]
pub(crate) struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    forwarded: AtomicU64,
}

impl Desk {
    pub(crate) fn new(
        tokens: Option<Tokens>,
        cluster: Name,
        runtime: WeakRuntime,
        membership: Arc<OnceLock<Mutex<Membership>>>,
        clock: WallClock,
    ) -> Arc<Self> {
        let counts = Counts::default();
        Arc::new(Self { tokens, cluster, runtime, membership, clock, counts })
    }

    /// Answers one who has come to this node; `None` if those bytes are no request.
    pub(crate) async fn answer(self: Arc<Self>, from: SocketAddr, bytes: Bytes) -> Option<Bytes> {
        let request: JoinRequest = codec::from_bytes(&bytes, JOIN_REQUEST_BYTES).ok()?;
        let (token, name) = (request.token, request.name);
        let answer = match self.knows(token).await {
            Ok(true) => self.take_in(request, from).await,
            Ok(false) => self.forward(request, from).await,
            Err(refusal) => {
                self.note(token, name, from, Some(&refusal));
                Err(refusal)
            }
        };
        if matches!(answer, Err(JoinRefusal::UnknownToken { .. })) {
            tokio::time::sleep(GUESS_DELAY).await;
        }
        let answer = codec::to_bytes(&answer).ok()?;
        (answer.len() <= JOIN_ANSWER_BYTES).then_some(answer)
    }

    /// Whether a token was made from this node's directory.
    pub(crate) async fn knows(&self, token: TokenId) -> Result<bool, JoinRefusal> {
        let Some(tokens) = self.tokens.clone() else { return Ok(false) };
        let known = on_disk(move || tokens.knows(token)).await?;
        known.map_err(failed)
    }

    /// Takes somebody in with a token that was made here.
    pub(crate) async fn take_in(
        self: &Arc<Self>,
        request: JoinRequest,
        from: SocketAddr,
    ) -> JoinAnswer {
        let (token, name) = (request.token, request.name);
        let desk = Arc::clone(self);
        let answer = on_disk(move || desk.sign(&request)).await.and_then(|answer| answer);
        self.note(token, name, from, answer.as_ref().err());
        answer
    }

    fn sign(&self, request: &JoinRequest) -> JoinAnswer {
        let tokens = self.tokens.as_ref().ok_or(JoinRefusal::UnknownToken { silent: 0 })?;
        let live = |name| {
            let membership = self.membership.get()?;
            let membership = membership.lock().unwrap_or_else(PoisonError::into_inner);
            let mut live = membership.members().filter(|member| member.state.is_live());
            live.find(|member| member.id.name == name).map(|member| member.address)
        };
        let around = Surroundings { cluster: &self.cluster, live: &live };
        tokens.take_in(request, &around, (self.clock)())
    }

    /// Hands a request on to the member whose token it is.
    async fn forward(&self, request: JoinRequest, from: SocketAddr) -> JoinAnswer {
        let (token, name) = (request.token, request.name);
        let stopped = || JoinRefusal::Failed { detail: "the node has stopped".to_owned() };
        let runtime = self.runtime.upgrade().ok_or_else(stopped)?;
        let answer = match self.find(&runtime, token).await {
            Ok(holder) => {
                self.counts.forwarded.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%token, %name, %from, by = %holder, "joining, to be signed");
                let asked = TakeIn { request, from };
                let called = runtime.call_timeout(system(holder), asked, SIGN_TIMEOUT).await;
                called.unwrap_or_else(|error| {
                    Err(JoinRefusal::Failed { detail: format!("{holder}: {error}") })
                })
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &answer {
            self.note(token, name, from, Some(refusal));
        }
        answer
    }

    async fn find(&self, runtime: &Runtime, token: TokenId) -> Result<NodeName, JoinRefusal> {
        let mut asked = JoinSet::new();
        for member in self.others(runtime.name()) {
            let runtime = runtime.clone();
            asked.spawn(async move {
                let asked = KnowsToken { token };
                (member, runtime.call_timeout(system(member), asked, FIND_TIMEOUT).await)
            });
        }
        let mut silent = 0;
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((member, Ok(true))) => return Ok(member),
                Ok((_, Ok(false))) => {}
                Ok((_, Err(_))) | Err(_) => silent += 1,
            }
        }
        Err(JoinRefusal::UnknownToken { silent })
    }

    fn others(&self, us: NodeName) -> Vec<NodeName> {
        let Some(membership) = self.membership.get() else { return Vec::new() };
        let membership = membership.lock().unwrap_or_else(PoisonError::into_inner);
        membership.live().filter(|name| *name != us).collect()
    }

    fn note(
        &self,
        token: TokenId,
        name: NodeName,
        from: SocketAddr,
        refused: Option<&JoinRefusal>,
    ) {
        match refused {
            None => {
                self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%token, %name, %from, "taken in, certificate signed");
            }
            Some(why) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%token, %name, %from, %why, "joining refused");
            }
        }
    }
}

impl Counts {
    /// All counts, by name.
    pub(crate) fn snapshot(&self) -> [admin::Counter; 3] {
        let count = |name: &str, count: &AtomicU64| admin::Counter {
            name: name.to_owned(),
            count: count.load(Ordering::Relaxed),
        };
        [
            count("joins.admitted", &self.admitted),
            count("joins.refused", &self.refused),
            count("joins.forwarded", &self.forwarded),
        ]
    }
}

fn system(node: NodeName) -> Dest {
    Dest::Remote(Name::new(admin::SYSTEM).expect("a name"), node)
}

/// Does something that waits for the disk; it goes on to its end, whoever stops waiting for it.
async fn on_disk<T: Send + 'static>(
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinRefusal> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(failed)
}
