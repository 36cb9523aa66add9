//! Links and monitors from the side of the process that makes them.

use std::sync::Arc;

use purlin_proto::{
    Dest, Down, Envelope, ExitReason, NodeName, Pick, Pid, Reference, Signal, Target,
};
use tokio::sync::oneshot;

use crate::mutant::is_planted;
use crate::process::Process;
use crate::raw::Received;
use crate::relations::{Address, Monitoring};
use crate::remote::{Peer, Priority, Sent, for_the_dead, for_the_unreachable};
use crate::runtime::Runtime;
use crate::spawn::RawKind;

static WATCH: RawKind = RawKind::new("watch");

/// A serial that no process ever has stands for a name that nobody has.
const NOBODY: Address = Address::Local(u64::MAX);

/// Ends a process that watches for somebody who has stopped waiting.
struct StopWatch<'a> {
    runtime: &'a Runtime,
    pid: Pid,
}

impl Drop for StopWatch<'_> {
    fn drop(&mut self) {
        self.runtime.exit(self.pid, ExitReason::Kill);
    }
}

impl Runtime {
    pub(crate) fn link(&self, process: &Arc<Process>, other: Pid) {
        let other = self.address_of(&other);
        if other == Address::Local(process.serial) {
            return;
        }
        process.relations(|relations| relations.link(other));
        self.relate_to(process, other);
        self.signal(process.serial, other, Signal::Link);
    }

    pub(crate) fn unlink(&self, process: &Arc<Process>, other: Pid) {
        let other = self.address_of(&other);
        let request = self.reference();
        let linked = process.relations(|relations| relations.unlink(other, request));
        let lost = is_planted("lost-unlink") && request.0.is_multiple_of(4);
        if linked == Some(true) && !lost {
            self.signal(process.serial, other, Signal::Unlink { reference: request });
        }
    }

    pub(crate) fn monitor(&self, watcher: &Arc<Process>, target: Dest) -> Reference {
        let reference = self.reference();
        let node = target.node().filter(|&node| node != self.name());
        let name = match &target {
            Dest::Pid(pid) => {
                let address = self.address_of(pid);
                self.monitor_address(watcher, reference, target, address);
                return reference;
            }
            Dest::Local(name) | Dest::Remote(name, _) => name.clone(),
            Dest::Key { kind, key } if self.key_owner(kind, key) != self.name() => {
                let (node, kind, key) = (self.key_owner(kind, key), kind.clone(), key.clone());
                let to = Target::Key { kind, key, forwarded: true };
                self.monitor_there(watcher, reference, target, node, to);
                return reference;
            }
            _ => {
                let address = self.one_of(&target).unwrap_or(NOBODY);
                self.monitor_address(watcher, reference, target, address);
                return reference;
            }
        };
        let Some(node) = node else {
            let address = self.serial_of(&name).map_or(NOBODY, Address::Local);
            self.monitor_address(watcher, reference, target, address);
            return reference;
        };
        self.monitor_there(watcher, reference, target, node, Target::Name(name));
        reference
    }

    /// Monitors who has a name, or a key, on another node.
    fn monitor_there(
        &self,
        watcher: &Arc<Process>,
        reference: Reference,
        target: Dest,
        node: NodeName,
        to: Target,
    ) {
        let monitoring = Box::new(Monitoring { target, address: None, node: Some(node) });
        watcher.relations(|relations| relations.monitors.insert(reference, monitoring));
        self.relate(watcher, node);
        let signal = Signal::Monitor { reference };
        let envelope = Envelope { to, from: watcher.serial, signal };
        let answer = match self.send_remote(Peer::Name(node), &envelope, Priority::System) {
            Sent::Accepted | Sent::Full | Sent::NotEncodable => None,
            Sent::Unreachable => for_the_unreachable(&envelope.signal),
            Sent::Gone => for_the_dead(&envelope.signal),
        };
        if let Some(answer) = answer {
            watcher.apply(Address::Local(0), answer);
        }
    }

    fn monitor_address(
        &self,
        watcher: &Arc<Process>,
        reference: Reference,
        target: Dest,
        address: Address,
    ) {
        if address == Address::Local(watcher.serial) {
            return;
        }
        let monitoring = Box::new(Monitoring { target, address: Some(address), node: None });
        watcher.relations(|relations| relations.monitors.insert(reference, monitoring));
        match address {
            Address::Remote(pid) if pid.node.name != self.name() => {
                self.watch(watcher, reference, pid);
            }
            // Here, or dead with a life of this node before this runtime's.
            _ => self.signal(watcher.serial, address, Signal::Monitor { reference }),
        }
    }

    /// Waits for the end of a process, or of whoever has a name now: a monitor for what is not a
    /// process itself. At once with `NoProcess` if there is none, with `NoConnection` if its node
    /// cannot be reached. Cancel safe.
    pub async fn down(&self, target: impl Into<Dest>) -> Down {
        let target = target.into();
        let (tell, told) = oneshot::channel();
        let wanted = target.clone();
        let watcher = self.spawn_raw(&WATCH, |mut ctx| async move {
            ctx.monitor(wanted);
            loop {
                if let Received::Down(down) = ctx.receive().await? {
                    // Whoever waited may have stopped.
                    drop(tell.send(down));
                    return Ok(());
                }
            }
        });
        // Kept until the end of the wait, so that nobody watches for nobody.
        let _stop = watcher.ok().map(|pid| StopWatch { runtime: self, pid });
        let ended = Down { reference: Reference(0), target, reason: ExitReason::NoProcess };
        told.await.unwrap_or(ended)
    }

    pub(crate) fn demonitor(&self, watcher: &Arc<Process>, reference: Reference) -> bool {
        let monitoring = watcher.relations(|relations| relations.monitors.remove(&reference));
        match monitoring.flatten() {
            Some(monitoring) => {
                self.send_demonitor(watcher.serial, reference, &monitoring);
                true
            }
            None => false,
        }
    }

    pub(crate) fn send_demonitor(&self, watcher: u64, reference: Reference, of: &Monitoring) {
        let signal = Signal::Demonitor { reference };
        match (of.address, of.node) {
            (Some(Address::Remote(pid)), None) => self.unwatch(pid, reference),
            (Some(address), _) => self.signal(watcher, address, signal),
            (None, Some(node)) => {
                let envelope = Envelope { to: Target::Node, from: watcher, signal };
                // If the node is out of reach, its side of the monitor goes with the connection.
                self.send_remote(Peer::Name(node), &envelope, Priority::System);
            }
            (None, None) => {}
        }
    }

    /// Sends a signal without a message to any destination; a name is resolved on its node.
    pub(crate) fn signal_dest(&self, from: u64, to: &Dest, signal: Signal) {
        match to {
            Dest::Pid(pid) => self.signal(from, self.address_of(pid), signal),
            Dest::Remote(name, node) if *node != self.name() => {
                let envelope = Envelope { to: Target::Name(name.clone()), from, signal };
                if self.send_remote(Peer::Name(*node), &envelope, Priority::System)
                    != Sent::Accepted
                {
                    self.counters().dropped_no_connection.add();
                }
            }
            Dest::Local(name) | Dest::Remote(name, _) => match self.serial_of(name) {
                Some(serial) => self.signal(from, Address::Local(serial), signal),
                None => self.counters().dropped_no_process.add(),
            },
            Dest::Group(group, Pick::All) => {
                for member in self.every_member(group) {
                    self.signal(from, member, signal.clone());
                }
            }
            _ => match self.one_of(to) {
                Some(address) => self.signal(from, address, signal),
                None => self.counters().dropped_no_process.add(),
            },
        }
    }
}
