//! Runs membership: feeds it what happens, and does what it wants.
//!
//! One task on the network's thread. Membership itself decides and does nothing; see
//! `purlin-cluster`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use purlin_cluster::{Event, Input, Membership, Output};
use purlin_proto::admin::What;
use purlin_proto::{Frame, NodeEvent, NodeHello, NodeId, Refusal};
use purlin_runtime::mutant::is_planted;
use purlin_runtime::{Observer, Runtime};
use purlin_transport::{DialError, Endpoint, Flow, Link, Priority};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::directory::Directory;
use crate::entries::Spread;
use crate::events::Gate;
use crate::inputs::{Told, Waiting};
use crate::revoked::spread::Warden;
use crate::seeds::{Outcome, Resolved, SeedResolver, Seeds};
use crate::silence::{LOOK_EVERY, Seen, Sign, Silence};

/// So many inputs are handled before anything else gets its turn.
const BATCH: usize = 256;

/// A creation above every earlier one of this node, and at least so high.
pub(crate) type NextCreation = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

pub(crate) struct Driver {
    pub(crate) membership: Arc<OnceLock<Mutex<Membership>>>,
    pub(crate) inputs: Waiting,
    /// Gates of connected lives that are not open yet.
    pub(crate) shut: Vec<Arc<Gate>>,
    pub(crate) endpoint: Endpoint,
    pub(crate) runtime: Runtime,
    pub(crate) directory: Arc<Directory>,
    pub(crate) observer: Observer,
    pub(crate) next_creation: NextCreation,
    pub(crate) seeds: Arc<Mutex<Seeds>>,
    pub(crate) seed_resolver: SeedResolver,
    /// How many members are live, for whoever waits for some.
    pub(crate) gathered: Arc<watch::Sender<usize>>,
    pub(crate) start: Instant,
    pub(crate) silence: Silence,
    pub(crate) dialing: BTreeSet<SocketAddr>,
    pub(crate) dials: JoinSet<(SocketAddr, Result<Link, DialError>)>,
    /// Seeds being resolved: a task of its own, since a resolver may take its time.
    pub(crate) resolving: JoinSet<Resolved>,
    pub(crate) spread: Spread,
    pub(crate) warden: Warden,
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
        loop {
            let wake = [self.membership().next_wake(), Some(self.spread.next_wake())];
            let wake = wake.into_iter().flatten().min().map(|wake| self.start + wake);
            // Inputs last: there may always be some, and nothing else is there for long.
            tokio::select! {
                biased;
                Some(dialed) = self.dials.join_next() => self.dialed(dialed.ok()),
                Some(Ok(found)) = self.resolving.join_next() => {
                    let seeds = self.seeds().resolved(found);
                    self.handle(Input::Join { seeds });
                }
                _ = look.tick() => {
                    self.look();
                    self.tend_seeds();
                }
                told = self.inputs.next() => self.take(told),
                () = sleep_until(wake) => {}
            }
            // What has come goes before a tick that is due: it may be the answer that is waited for.
            let more = self.inputs.try_next().map(|told| self.take(told)).is_some();
            if wake.is_some_and(|wake| Instant::now() >= wake) {
                self.handle(Input::Tick);
                self.spread.tick();
            }
            self.work_off();
            self.follow_draining();
            if more {
                // Others run on this thread, too: whoever accepts, reads and ends connections.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes what has been told by now, within bounds.
    fn take(&mut self, first: Told) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            match next {
                Some(Told::Input(input)) => self.take_input(input),
                Some(Told::Said(input, _said)) => self.take_input(input),
                Some(Told::Entries) => self.spread.own_changed(),
                Some(Told::Owned { from, bytes, said: _said }) => {
                    self.spread.said(from, bytes);
                    // Before its entry is answered for; see `drain.rs`.
                    self.follow_draining();
                }
                Some(Told::Certificates { from, bytes, said: _said }) => {
                    self.warden.said(from, &bytes);
                }
                Some(Told::Revoke { revocations, answer }) => {
                    // Whoever asked may have given up.
                    drop(answer.send(self.warden.heed(revocations, None)));
                }
                Some(Told::Believe { trust, answer }) => {
                    drop(answer.send(self.warden.believe(trust, None)));
                }
                Some(Told::Renewed { expires_ms }) => self.warden.renewed(expires_ms),
                Some(Told::Draining(done)) => {
                    self.directory.set_draining(self.runtime.name(), true);
                    self.runtime.set_draining(true);
                    self.rebuild_ring();
                    // Whoever waited may have stopped.
                    let _ = done.send(());
                }
                Some(Told::Open(gate)) => {
                    self.shut.push(gate);
                    self.open_gates();
                }
                // Whoever waited may have stopped.
                Some(Told::Done(done)) => drop(done.send(())),
                None => return,
            }
            next = self.inputs.try_next();
        }
    }

    /// What others send is delivered when this life knows all members, and not just the first that it
    /// has met: it would take itself for the owner of keys whose state is with those it has not.
    fn open_gates(&mut self) {
        if self.membership().is_synced() {
            self.shut.drain(..).for_each(|gate| gate.open());
        }
    }

    /// A node that is about to leave owns no keys.
    fn follow_draining(&mut self) {
        if std::mem::take(&mut self.spread.draining_changed) {
            self.rebuild_ring();
        }
    }

    fn take_input(&mut self, input: Input) {
        let (connected, disconnected) = match &input {
            Input::Connected { peer, .. } => (Some(*peer), None),
            Input::Disconnected { peer, .. } => (None, Some(*peer)),
            _ => (None, None),
        };
        self.handle(input);
        self.work_off();
        self.open_gates();
        if let Some(peer) = connected {
            self.spread.connected(peer);
            self.warden.connected(peer);
        }
        if let Some(peer) = disconnected {
            self.spread.disconnected(peer);
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
            Output::Disconnect { .. } if is_planted("resurrected") => {}
            Output::Disconnect { peer, why } => self.endpoint.close_peer(&peer, &why),
            Output::Event(event) => self.event(event),
            Output::Forgotten(name) => {
                self.directory.forget(name);
                self.endpoint.forget(name);
                self.runtime.forget_node(name);
            }
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
        let outcome = match &result {
            // There is a connection, or there is about to be.
            Ok(_) | Err(DialError::Refused(Refusal::Duplicate)) => Outcome::Answers,
            Err(DialError::Itself) => Outcome::Itself,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let news = self.seeds().dialed(address, &outcome);
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
            | DialError::Itself
            | DialError::Refused(Refusal::Duplicate | Refusal::Joining)
            | DialError::Unacceptable(_) => {
                tracing::debug!(%address, %error, "dial failed");
            }
            // Seeds are dialed every second: this is said once, and what else is to be said of them
            // in `tend_seeds`.
            _ if news => tracing::warn!(%address, %error, "cannot join there"),
            _ => tracing::debug!(%address, %error, "cannot join there"),
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

    /// Tells membership who has been heard of, ends links that are silent for too long, and looks
    /// for processes that hold a worker.
    fn look(&mut self) {
        self.runtime.check_workers();
        self.warden.tick(self.start.elapsed());
        let links = self.endpoint.links();
        let seen = links.iter().filter_map(|link| {
            let peer = link.peer();
            let id = peer.node.as_ref()?.id;
            Some(Seen { id, association: peer.association, packets: link.heard() })
        });
        for (id, sign) in self.silence.look(self.start.elapsed(), seen) {
            match sign {
                Sign::Heard => self.handle(Input::Heard { peer: id }),
                Sign::Ask => {
                    if let (Some(link), Ok(ping)) =
                        (self.endpoint.link(&id), Frame::Ping.to_bytes())
                    {
                        let _ = link.send_datagram(ping);
                    }
                }
                Sign::Lost => {
                    tracing::warn!(peer = %id, "no sign of life on the connection, ending it");
                    self.endpoint.close_peer(&id, &Refusal::Silent);
                }
            }
        }
    }

    fn seeds(&self) -> MutexGuard<'_, Seeds> {
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves seeds anew from time to time, and says so if nobody answers.
    fn tend_seeds(&mut self) {
        let (now, alone) = (self.start.elapsed(), *self.gathered.borrow() <= 1);
        if self.resolving.is_empty() {
            let round = self.seeds().resolve(now, alone, &self.seed_resolver);
            round.map(|round| self.resolving.spawn(round));
        }
        let complaint = self.seeds().complaint(now, alone);
        if let Some(seeds) = complaint {
            tracing::warn!(seeds, "no seed answers, trying on");
        }
    }

    fn event(&mut self, event: Event) {
        let us = self.runtime.id();
        match event {
            Event::Up(member) => {
                let (node, address) = (member.id, member.address);
                tracing::info!(%node, %address, "node up");
                // Whoever sees it may ask for children that only it knows.
                self.runtime.children().set_settling(true);
                self.directory.up(node, address);
                // What an earlier life of it said is over.
                self.directory.set_draining(node.name, false);
                self.rebuild_ring();
                self.runtime.node_event(&NodeEvent::Up { node, address, labels: member.labels });
                self.spread.up(node);
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

    /// A life is over: its link first, so that nothing of it is delivered any more, and with it what
    /// its processes meant to ours; then what it said of them; then those who watch nodes. A next life
    /// of the node may be there by now, and what ours have to do with that stays.
    fn gone(&mut self, id: NodeId, left: bool) {
        self.directory.down(id);
        self.directory.set_draining(id.name, false);
        let why = self.membership().refusal(id);
        if is_planted("resurrected") {
            self.runtime.connection_lost(id.name);
        } else {
            self.endpoint.close_peer(&id, &why);
        }
        self.rebuild_ring();
        self.spread.down(id);
        self.runtime.node_event(&NodeEvent::Down { node: id, left });
    }

    fn rebuild_ring(&self) {
        let members: Vec<_> = self.membership().live().collect();
        self.gathered.send_replace(members.len());
        self.directory.set_live(&members);
        self.runtime.owners_changed();
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
                // Not `Superseded`: that would speak of the life at the far end.
                self.endpoint.close_peer(&node.id, &Refusal::Joining);
            }
        }
        // Of connections that have just been closed.
        self.shut.clear();
        self.directory.clear();
        self.runtime.reincarnate(creation);
        self.spread.reincarnated(id);
        let now = self.start.elapsed();
        self.membership().reincarnated(now, id);
    }
}
