//! A child that moves: its new host waits until the old one has let go of it, and gets its state.
//!
//! The process is there already, with its mailbox, when the old host is asked; so that one sends on what
//! comes for it from then on, works off what has come, and answers when its process has ended. An
//! exclusive child asks when its node may run it, which is when the old process has ended anyway.
//!
//! # What if
//!
//! - *the old host is lost, or its answer is*: the child begins anew, as after a crash. While that node
//!   is a member it is asked again; for a minute it has the answer still.
//! - *its process does not end*: it is ended as its plan says, if that has a limit; this waits as long.
//! - *the old host is of a version that does not know this*: it is asked to end the child, and the child
//!   begins without its state.
//! - *the new host is of such a version*: it says so to the owner, which has the old one end it first.
//! - *who asks is behind*, and a later generation runs there: this one does not begin.

use std::sync::Weak;
use std::time::Duration;

use purlin_proto::admin::children::{ChildReleased, EndChild, ReleaseChild};
use purlin_proto::{CallError, NodeId, Snapshot};
use purlin_runtime::{Before, Runtime};

use super::process::at;
use crate::node::Shared;

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(20);

/// Before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Comes when the old host has let go of a child.
pub(super) fn let_go(node: Weak<Shared>, from: NodeId, ask: ReleaseChild) -> Before {
    Box::pin(async move {
        loop {
            let Some(shared) = node.upgrade() else { return Ok(None) };
            let runtime = shared.runtime.clone();
            drop(shared);
            match runtime.call_timeout(at(from.name), ask.clone(), ANSWER).await {
                Ok(ChildReleased::Free(state)) => {
                    let with_state = state.is_some();
                    tracing::debug!(child = %ask.child, %from, with_state, "taken over");
                    return Ok(state);
                }
                Ok(ChildReleased::Stale { generation }) => {
                    return Err(format!("generation {generation} runs on {from}"));
                }
                Err(CallError::NotUnderstood { .. }) => return end(&runtime, from, &ask).await,
                // Its children end with the process that would have answered.
                Err(CallError::NoProcess) => return Ok(None),
                Err(error) => {
                    let node = node.upgrade();
                    let place = node.and_then(|node| node.directory.find(from.name));
                    if !place.is_some_and(|place| place.live && place.id == from) {
                        tracing::warn!(child = %ask.child, %from, %error, "moves without its state");
                        return Ok(None);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

async fn end(
    runtime: &Runtime,
    from: NodeId,
    ask: &ReleaseChild,
) -> Result<Option<Snapshot>, String> {
    let generation = ask.generation.saturating_sub(1);
    let end = EndChild { child: ask.child.clone(), generation, kept: None };
    let ended = runtime.call_timeout(at(from.name), end, ANSWER).await;
    ended.map(|()| None).map_err(|error| error.to_string())
}
