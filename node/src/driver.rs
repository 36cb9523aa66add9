//! Runs membership: feeds it what happens, and does what it wants.
//!
//! One task on the network's thread. Membership itself decides and does nothing; see
//! `purlin-cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use purlin_cluster::{Event, Input, Membership, Output, Ring};
use purlin_proto::admin::What;
use purlin_proto::{Frame, NodeEvent, NodeHello, NodeId, NodeName, Refusal};
use purlin_runtime::mutant::is_planted;
use purlin_runtime::{Observer, Runtime};
use purlin_transport::{DialError, Endpoint, Flow, Link, Priority};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::directory::Directory;
use crate::events::Told;

/// How often links are looked at for signs of life.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often seeds given by name are resolved anew.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// A resolver that takes longer counts as one that fails.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// So many inputs are handled before anything else gets its turn.
const BATCH: usize = 256;

/// A creation above every earlier one of this node, and at least so high.
pub(crate) type NextCreation = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

pub(crate) struct Driver {
    pub(crate) membership: Arc<OnceLock<Mutex<Membership>>>,
    pub(crate) inputs: mpsc::UnboundedReceiver<Told>,
    pub(crate) endpoint: Endpoint,
    pub(crate) runtime: Runtime,
    pub(crate) directory: Arc<Directory>,
    pub(crate) observer: Observer,
    pub(crate) next_creation: NextCreation,
    pub(crate) seeds: Arc<[String]>,
    pub(crate) start: Instant,
    pub(crate) heard: BTreeMap<NodeName, (u64, u64)>,
    pub(crate) dialing: BTreeSet<SocketAddr>,
    pub(crate) dials: JoinSet<(SocketAddr, Result<Link, DialError>)>,
    /// Seeds being resolved: a task of its own, since a resolver may take its time.
    pub(crate) resolving: JoinSet<Vec<SocketAddr>>,
}

async fn addresses_of(seed: String) -> Vec<SocketAddr> {
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(&seed)).await {
        Ok(Ok(found)) => return found.collect(),
        Ok(Err(error)) => tracing::warn!(seed, %error, "seed does not resolve"),
        Err(_) => tracing::warn!(seed, "seed does not resolve: no answer in time"),
    }
    Vec::new()
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    fn membership(&self) -> MutexGuard<'_, Membership> {
        let membership = self.membership.get().expect("set before the driver runs");
        membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, input: Input) {
        let now = self.start.elapsed();
        self.membership().handle(now, input);
    }

    /// Runs until the node is gone.
    pub(crate) async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut resolve = tokio::time::interval(RESOLVE_EVERY);
        resolve.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.membership().next_wake().map(|wake| self.start + wake);
            tokio::select! {
                biased;
                told = self.inputs.recv() => match told {
                    Some(told) => self.take(told),
                    None => return,
                },
                Some(dialed) = self.dials.join_next() => self.dialed(dialed.ok()),
                Some(Ok(seeds)) = self.resolving.join_next() => {
                    self.handle(Input::Join { seeds });
                }
                _ = look.tick() => self.look(),
                _ = resolve.tick(), if !self.seeds.is_empty() => self.resolve(),
                () = sleep_until(wake) => {}
            }
            if wake.is_some_and(|wake| Instant::now() >= wake) {
                self.handle(Input::Tick);
            }
            self.work_off();
        }
    }

    /// Takes what has been told by now, within bounds.
    fn take(&mut self, first: Told) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            match next {
                Some(Told::Input(input)) => {
                    self.handle(input);
                    self.work_off();
                }
                Some(Told::Open(gate)) => gate.open(),
                // Whoever waited may have stopped.
                Some(Told::Done(done)) => drop(done.send(())),
                None => return,
            }
            next = self.inputs.try_recv().ok();
        }
    }

    fn work_off(&mut self) {
        loop {
            let output = self.membership().poll_output();
            match output {
                Some(output) => self.act(output),
                None => return,
            }
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Dial { address } => self.dial(address),
            Output::Datagram { to, address, bytes } => {
                self.datagram(to, address, &Frame::Gossip(bytes));
            }
            Output::Probe { to, address } => self.datagram(to, address, &Frame::Ping),
            Output::State { to, bytes } => {
                if let (Some(link), Ok(frame)) =
                    (self.endpoint.link(&to), Frame::State(bytes).to_bytes())
                {
                    link.send_control(frame);
                }
            }
            Output::Disconnect { peer, why } => self.endpoint.close_peer(&peer, &why),
            Output::Event(event) => self.event(event),
            Output::Reincarnate { at_least } => self.reincarnate(at_least),
        }
    }

    fn dial(&mut self, address: SocketAddr) {
        if address == self.endpoint.local_address() || !self.dialing.insert(address) {
            return;
        }
        let endpoint = self.endpoint.clone();
        self.dials.spawn(async move { (address, endpoint.dial(address, None).await) });
    }

    fn dialed(&mut self, dialed: Option<(SocketAddr, Result<Link, DialError>)>) {
        let Some((address, result)) = dialed else { return };
        self.dialing.remove(&address);
        let Err(error) = result else { return };
        match &error {
            DialError::Refused(Refusal::DeclaredDown { creation, by, view }) => {
                let (creation, by, view) = (*creation, *by, view.clone());
                self.handle(Input::DeclaredDown { creation, by, at: address, view });
            }
            DialError::Refused(Refusal::Superseded { newest }) => {
                self.handle(Input::Superseded { newest: *newest });
            }
            DialError::NoAnswer
            | DialError::Closed
            | DialError::Refused(Refusal::Duplicate | Refusal::Joining)
            | DialError::Unacceptable(_) => {
                tracing::debug!(%address, %error, "dial failed");
            }
            _ => tracing::warn!(%address, %error, "cannot join there"),
        }
    }

    /// Sends a datagram; without a link it makes one, and waits for it.
    fn datagram(&self, to: NodeId, address: SocketAddr, frame: &Frame) {
        let Ok(bytes) = frame.to_bytes() else { return };
        match self.endpoint.link(&to) {
            Some(link) => drop(link.send_datagram(bytes)),
            // Lost like any datagram if the node cannot be reached.
            None => drop(self.endpoint.send_bytes(to, address, Flow(0), Priority::User, &bytes)),
        }
    }

    /// Tells membership who has been heard of, and looks for processes that hold a worker.
    fn look(&mut self) {
        self.runtime.check_workers();
        for link in self.endpoint.links() {
            let Some(node) = &link.peer().node else { continue };
            let now = (link.peer().association, link.heard());
            if self.heard.insert(node.id.name, now).is_some_and(|before| before != now) {
                self.handle(Input::Heard { peer: node.id });
            }
        }
    }

    /// Every address of every seed; a name that does not resolve now may do so later.
    fn resolve(&mut self) {
        if !self.resolving.is_empty() {
            return;
        }
        let seeds = Arc::clone(&self.seeds);
        self.resolving.spawn(async move {
            let lookups: JoinSet<_> = seeds.iter().cloned().map(addresses_of).collect();
            lookups.join_all().await.concat()
        });
    }

    fn event(&mut self, event: Event) {
        let us = self.runtime.id();
        match event {
            Event::Up(member) => {
                let (node, address) = (member.id, member.address);
                tracing::info!(%node, %address, "node up");
                self.directory.up(node, address);
                self.rebuild_ring();
                self.runtime.node_event(&NodeEvent::Up { node, address, labels: member.labels });
                (self.observer)(What::NodeUp { id: node, address });
            }
            Event::Down { id, why } => {
                tracing::warn!(node = %id, %why, "node down");
                self.gone(id, false);
                (self.observer)(What::NodeDown { id, why: why.to_string() });
            }
            Event::Left(id) => {
                tracing::info!(node = %id, "node left");
                self.gone(id, true);
                (self.observer)(What::NodeLeft { id });
            }
            Event::Suspect(id) => {
                tracing::debug!(node = %id, "node suspect");
                (self.observer)(What::NodeSuspect { id });
            }
            Event::Alive(id) => {
                tracing::debug!(node = %id, "node alive after all");
                (self.observer)(What::NodeAlive { id });
            }
            Event::Labels(id) => tracing::debug!(node = %id, by = %us, "labels known"),
        }
    }

    /// A life is over: its link first, so that nothing of it is delivered any more; then what its
    /// processes meant to ours; then those who watch nodes.
    fn gone(&mut self, id: NodeId, left: bool) {
        self.directory.down(id);
        let why = self.membership().refusal(id);
        if !is_planted("resurrected") {
            self.endpoint.close_peer(&id, &why);
        }
        self.runtime.connection_lost(id.name);
        self.rebuild_ring();
        self.runtime.node_event(&NodeEvent::Down { node: id, left });
    }

    fn rebuild_ring(&self) {
        let members: Vec<_> = self.membership().live().collect();
        self.directory.set_ring(Ring::new(members));
    }

    fn reincarnate(&mut self, at_least: u64) {
        let creation = (self.next_creation)(at_least);
        let (before, address) = {
            let membership = self.membership();
            (membership.me().id, membership.me().address)
        };
        let id = NodeId::new(before.name, creation);
        tracing::warn!(%before, now = %id, "declared down by others, coming back");
        self.endpoint.set_node(Some(NodeHello { id, address }));
        for link in self.endpoint.links() {
            if let Some(node) = &link.peer().node {
                self.endpoint.close_peer(&node.id, &Refusal::Superseded { newest: creation });
            }
        }
        self.directory.clear();
        self.runtime.reincarnate(creation);
        let now = self.start.elapsed();
        self.membership().reincarnated(now, id);
    }
}
