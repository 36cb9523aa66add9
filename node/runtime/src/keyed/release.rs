//! A new owner waits until the old one has let go of the key.
//!
//! When a node has joined or come back, the process of a key may still run where the key was before.
//! So for some time after a change of members a process that starts asks the nodes that may have had
//! its key ([`Remote::earlier_owners`](crate::Remote::earlier_owners)) to end theirs, and begins when
//! they have: what the old one saves at its end, the new one finds. Its mailbox fills meanwhile.
//!
//! The old owner works off what has reached its process before it ends; what comes for the key
//! afterwards it sends on, since it knows a new member before it hears anything from it.
//!
//! # What if
//!
//! - *the old owner does not answer*, because its process is busy or it is lost: after 5 s the
//!   new one begins all the same, and it is counted. Until the old one ends the key has two.
//! - *both take themselves for the owner*: neither waits for the other.

use std::time::Duration;

use purlin_proto::admin::{self, CALL_TIMEOUT, ReleaseKey};
use purlin_proto::{Codec, Dest, Key, Message, MessageName, Name, NodeName, Payload};

use crate::runtime::Runtime;

/// How long a busy process is left alone.
const BUSY: Duration = Duration::from_millis(5);

impl Runtime {
    /// Ends the process of a key as soon as it is idle, for another node that owns the key now.
    /// Returns when it has ended, or at once if there is none or this node is the owner. When it is
    /// dropped before, the process goes on unless it is ending already.
    pub async fn release_key(&self, kind: &Name, key: &Key) {
        let Some(table) = self.0.keyed.get(kind.as_str()).filter(|table| !table.exclusive) else {
            // The view barrier sees to it.
            return;
        };
        let Some(process) = table.entry(key) else { return };
        while !process.is_ending() {
            if self.key_owner(kind, key) == self.name() {
                return;
            }
            if process.retire() {
                self.counters().keyed_moved.add();
                break;
            }
            tokio::time::sleep(BUSY).await;
        }
        self.down(process.pid()).await;
    }

    /// Waits until those that may have had a key before have let go of it.
    pub(super) async fn wait_for_release(&self, kind: &'static str, key: &Key) {
        let Some(remote) = self.0.remote.get() else { return };
        let earlier = remote.earlier_owners([kind, key.as_str()].join("/").as_bytes());
        if earlier.is_empty() {
            return;
        }
        let Ok(release) = Name::new(kind).map(|kind| ReleaseKey { kind, key: key.clone() }) else {
            return;
        };
        let ask = |node: NodeName| {
            let system = Dest::Remote(admin::SYSTEM.parse().expect("a name"), node);
            let payload = Payload::encode(Codec::Bincode, &release).expect("two texts");
            self.request_encoded(&system, MessageName::of::<ReleaseKey>(), payload, CALL_TIMEOUT)
        };
        // All are asked before one is waited for.
        let asked: Vec<_> = earlier.into_iter().map(|node| (node, ask(node))).collect();
        for (node, answer) in asked {
            if let Err(error) = answer.await {
                self.counters().keyed_not_released.add();
                tracing::warn!(kind, %key, %node, %error, asked = ReleaseKey::NAME, "not released");
            }
        }
    }
}
