//! A child that moves: its new host waits until the old one has let go of it, and gets its state.
//!
//! The process is there already, with its mailbox, when the old host is asked; so that one sends on what
//! comes for it from then on, works off what has come, and answers when its process has ended. An
//! exclusive child asks when its node may run it, which is when the old process has ended anyway.
//!
//! Two owners that know different members for a moment may have a child moved from the same node, to one
//! node each. The old host tells whoever asks second of the first, which has what came since, and that one
//! is asked next: so no state is handed out twice, as long as those who have it can be asked. Who waits has
//! a later generation than whom it waits for; so none wait in circles.
//!
//! # What if
//!
//! - *the old host is lost, or its answer is*: the child begins anew, as after a crash. While that node
//!   is a member it is asked again; for a minute it has the answer still.
//! - *whom the old host has told of is lost, or has no such child*: the old host is asked again, for what
//!   it has.
//! - *its process does not end*: it is ended as its plan says, if that has a limit; this waits as long.
//! - *the old host is of a version that does not know this*: it is asked to end the child, and the child
//!   begins without its state.
//! - *the new host is of such a version*: it says so to the owner, which has the old one end it first.
//! - *who asks is behind*, and a later generation runs there, or the same: this one does not begin. That is
//!   no end of the child: its owner is told, and sees the other soon.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use purlin_proto::admin::children::{ChildReleased, EndChild, ReleaseChild};
use purlin_proto::{CallError, ChildId, NodeId, Snapshot};
use purlin_runtime::{Before, Runtime};
use tokio::time::Instant;

use super::process::at;
use crate::node::Shared;

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(20);

/// Before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What the owner knew of a node when it placed a child is known here as well after so long.
const NEWS: Duration = Duration::from_secs(5);

/// So many nodes are asked for one child.
const TRAIL: usize = 16;

/// Who wants a child.
pub(super) struct Taker {
    pub(super) child: ChildId,
    pub(super) us: NodeId,
    /// The generation that begins.
    pub(super) generation: u64,
}

/// What a process that takes over a child waits for.
pub(super) struct Taking {
    pub(super) before: Before,
    pub(super) behind: Behind,
}

/// The generation that runs elsewhere, so that this process does not begin: it has not ended then, it has
/// never been there.
pub(super) type Behind = Arc<OnceLock<u64>>;

/// Where a child is looked for.
struct Trail {
    /// Each has told of the next; the last is to be asked.
    open: Vec<NodeId>,
    /// They do not have it.
    closed: Vec<NodeId>,
}

impl Trail {
    /// Whoever is to be asked, and need not tell of these.
    fn next(&self) -> Option<(NodeId, Vec<NodeId>)> {
        let (on, before) = self.open.split_last()?;
        Some((*on, [before, &self.closed].concat()))
    }

    fn follow(&mut self, to: NodeId, us: NodeId) {
        let known = to.name == us.name || self.open.contains(&to);
        match known || self.open.len() + self.closed.len() >= TRAIL {
            true => self.turn_back(),
            false => self.open.push(to),
        }
    }

    /// Whoever was asked last does not have it.
    fn turn_back(&mut self) {
        self.closed.extend(self.open.pop());
    }
}

/// Comes when the old host has let go of a child, or whoever has taken it over since.
pub(super) fn let_go(node: Weak<Shared>, from: NodeId, taker: Taker) -> Taking {
    let trail = Trail { open: vec![from], closed: Vec::new() };
    taking(node, trail, None, taker)
}

/// Comes when nobody has a child that was let go of here, with what it has left here or there.
pub(super) fn take_back(
    node: Weak<Shared>,
    has: Option<NodeId>,
    left: Option<Snapshot>,
    taker: Taker,
) -> Taking {
    let trail = Trail { open: has.into_iter().collect(), closed: vec![taker.us] };
    taking(node, trail, left, taker)
}

fn taking(node: Weak<Shared>, trail: Trail, left: Option<Snapshot>, taker: Taker) -> Taking {
    let behind = Behind::default();
    let found = Arc::clone(&behind);
    let before = Box::pin(async move { Ok(ask(&node, &taker, trail, &found).await?.or(left)) });
    Taking { before, behind }
}

async fn ask(
    node: &Weak<Shared>,
    taker: &Taker,
    mut trail: Trail,
    behind: &Behind,
) -> Result<Option<Snapshot>, String> {
    let Taker { child, us, generation } = taker;
    let began = Instant::now();
    while let Some((on, but)) = trail.next() {
        let Some(shared) = node.upgrade() else { return Ok(None) };
        let runtime = shared.runtime.clone();
        drop(shared);
        let ask = ReleaseChild { child: child.clone(), to: *us, generation: *generation, but };
        match runtime.call_timeout(at(on.name), ask, ANSWER).await {
            Ok(ChildReleased::Free(state)) => {
                let with_state = state.is_some();
                tracing::debug!(%child, from = %on, with_state, "taken over");
                return Ok(state);
            }
            Ok(ChildReleased::Stale { generation }) => {
                behind.get_or_init(|| generation);
                return Err(format!("generation {generation} runs on {on}"));
            }
            Ok(ChildReleased::Elsewhere(Some(to))) => trail.follow(to, *us),
            // Its children end with the process that would have answered.
            Ok(ChildReleased::Elsewhere(None)) | Err(CallError::NoProcess) => trail.turn_back(),
            Err(CallError::NotUnderstood { .. }) => return end(&runtime, on, taker).await,
            Err(error) => {
                if is_live(node, on) || (began.elapsed() < NEWS && is_unknown(node, on)) {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                tracing::warn!(%child, from = %on, %error, "what it has had there is lost");
                trail.turn_back();
            }
        }
    }
    Ok(None)
}

fn is_live(node: &Weak<Shared>, id: NodeId) -> bool {
    let place = node.upgrade().and_then(|node| node.directory.find(id.name));
    place.is_some_and(|place| place.live && place.id == id)
}

/// Whether this node has not heard of that life of a node yet.
fn is_unknown(node: &Weak<Shared>, id: NodeId) -> bool {
    let place = node.upgrade().and_then(|node| node.directory.find(id.name));
    place.is_none_or(|place| place.id.creation < id.creation)
}

async fn end(runtime: &Runtime, on: NodeId, taker: &Taker) -> Result<Option<Snapshot>, String> {
    let generation = taker.generation.saturating_sub(1);
    let end = EndChild { child: taker.child.clone(), generation, kept: None };
    let ended = runtime.call_timeout(at(on.name), end, ANSWER).await;
    ended.map(|()| None).map_err(|error| error.to_string())
}
