//! When a node has come up: what it knows of children that are ours to decide about.
//!
//! A newcomer asks everyone, for everyone is new to it; everyone asks the newcomer, which may come
//! from another part of a split, or may have been alone with children of its own. The answer comes when
//! who asks has read what the other says in entries, what runs there among it: so nobody decides about
//! a child, or says that there is none, without having heard of what others have.

use std::time::Duration;

use purlin_proto::NodeName;
use purlin_proto::admin::children::{CHILDREN_PAGE, HandOverChildren, HandedOver};
use purlin_runtime::Runtime;
use tokio::time::{Instant, sleep, timeout_at};

use super::process::at;

/// How long one node may hold up decisions.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before one that has not seen us yet, or is busy, is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks a node for all that it has, and keeps it.
pub(super) async fn take_over(runtime: Runtime, from: NodeName) -> NodeName {
    let deadline = Instant::now() + PATIENCE;
    let to = runtime.name();
    let mut after = None;
    loop {
        let ask = HandOverChildren { to, after: after.clone() };
        let page = match timeout_at(deadline, runtime.call(at(from), ask)).await {
            Ok(Ok(HandedOver::Page(page))) => page,
            Ok(Ok(HandedOver::NotYet)) => {
                sleep(PAUSE).await;
                continue;
            }
            Ok(Err(error)) => {
                tracing::debug!(%from, %error, "children are not handed over");
                return from;
            }
            Err(_) => {
                tracing::warn!(%from, "children are not handed over in time");
                return from;
            }
        };
        let full = page.len() >= CHILDREN_PAGE;
        after = page.last().map(|(child, _)| child.clone());
        for (child, record) in page {
            runtime.children().keep(&child, record);
        }
        if !full {
            return from;
        }
    }
}
