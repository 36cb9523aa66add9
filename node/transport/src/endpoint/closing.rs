//! How connections end because their owner says so: one, some, or all in good order.

use std::sync::atomic::Ordering;
use std::time::Duration;

use purlin_proto::{NodeId, Refusal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Endpoint, lock};
use crate::error::{Closed, DialError};
use crate::link::{Link, Peer};

/// How long a graceful end waits for dials that something waits for.
/// QUIC repeats a first packet that was lost after one second.
const DIALS_TIMEOUT: Duration = Duration::from_secs(2);

impl Endpoint {
    /// Returns when no node is being dialed.
    async fn dials_done(&self) {
        while let Some(mut changes) = self.any_dialing() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn any_dialing(&self) -> Option<watch::Receiver<u64>> {
        let mut peers = lock(&self.0.peers);
        peers.dialing().map(|node| peers.changes(node))
    }

    /// Ends the link to a node at once, and says why. When this returns, nothing more of it is
    /// delivered, and [`Events::down`](crate::Events::down) has been called; or, if it was being
    /// dialed, what waited for that is dropped and [`Events::unreachable`](crate::Events::unreachable)
    /// has been called. Another life of the node is left alone.
    pub fn close_peer(&self, node: &NodeId, why: &Refusal) {
        if let Some(link) = self.link(node) {
            self.end(&link, &Closed::Local(why.clone()));
            link.close(why);
            return;
        }
        let dialed = lock(&self.0.peers).abandon(*node);
        if let Some(at) = dialed {
            self.0.events.unreachable(*node, at, &DialError::Unacceptable(why.clone()));
            lock(&self.0.peers).ended(node.name);
        }
    }

    /// Ends the connections to all peers for which this says why, clients too. A peer for which it
    /// says so from now on has none when this returns, also if its connection was just being made:
    /// if [`Events::admit`](crate::Events::admit) refuses it from then on.
    pub fn close_where(&self, why: &dyn Fn(&Peer) -> Option<Refusal>) {
        let mut links: Vec<_> = {
            // What is being established is there afterwards, or is refused.
            let peers = lock(&self.0.peers);
            let links = peers.links();
            links.values().chain(lock(&self.0.clients).iter()).cloned().collect()
        };
        links.retain(|link| match why(link.peer()) {
            None => false,
            Some(why) => {
                if link.peer().node.is_some() {
                    self.end(link, &Closed::Local(why.clone()));
                }
                link.close(&why);
                true
            }
        });
        for link in links {
            tracing::warn!(peer = %link.peer().name, "connection ended, its certificate is revoked");
        }
    }

    /// Delivers every frame that was accepted, as long as something gets through
    /// ([`Link::close_gracefully`]). Only control frames and datagrams are taken from then on: for a
    /// farewell on them, which must not overtake what was said before.
    pub async fn flush(&self) {
        self.0.closing.store(true, Ordering::Release);
        // What waits for a dial was accepted as well.
        drop(tokio::time::timeout(DIALS_TIMEOUT, self.dials_done()).await);
        self.for_each_link(|link| async move { link.finish_lanes().await }).await;
    }

    /// Ends everything: what was accepted is delivered first, as by [`flush`](Self::flush).
    pub async fn close(&self, why: &Refusal) {
        self.flush().await;
        self.for_each_link(|link| {
            let why = why.clone();
            async move { link.close_gracefully(&why).await }
        })
        .await;
        self.0.wire.close().await;
        lock(&self.0.tasks).abort_all();
    }

    /// Does something with all links at once, to nodes and to clients.
    async fn for_each_link<F>(&self, act: impl Fn(Link) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut links = self.links();
        links.append(&mut lock(&self.0.clients).clone());
        links.into_iter().map(act).collect::<JoinSet<()>>().join_all().await;
    }
}
