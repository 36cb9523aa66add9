//! Closed ports: a hint of the system starts an immediate confirmation.
//!
//! When a process dies its host goes on and says so to whoever sends to the closed port. A hint may
//! be forged by anyone on the path, so alone it does nothing: it starts [`CONFIRM_PROBES`] probes,
//! [`CONFIRM_EVERY`] apart, and only a member that sends nothing at all meanwhile, while the hints
//! go on, is declared down. Who can forge hints and keep all packets of a live node away at the
//! same time for that long (360 ms) brings it down; who can do that for `detect_in` could anyway.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use purlin_proto::{NodeId, NodeName};
use rand::RngExt;

use super::config::{CONFIRM_EVERY, CONFIRM_PROBES, PROVOKE_EVERY, PROVOKED};
use super::jobs::Job;
use super::types::{Output, Time, Why};
use super::wire::Life;
use super::{Happened, Membership};

/// So many others are asked meanwhile: it may have left, and could not tell this node.
const ASKED: usize = 2;

/// Hints that are being confirmed.
pub(super) type Confirming = BTreeMap<NodeName, Confirmation>;

#[derive(Debug)]
pub(super) struct Confirmation {
    id: NodeId,
    number: u64,
    probes: u32,
    /// Hints since the first probe.
    hints: u32,
}

impl Membership {
    /// Makes some members send a packet; if the port of one is closed, its host will say so.
    pub(super) fn provoke(&mut self, now: Time) {
        let mut others: Vec<_> = self.table.others().map(|m| (m.id, m.address)).collect();
        for _ in 0..PROVOKED.min(others.len()) {
            let chosen = self.chance.random_range(0..others.len());
            let (to, address) = others.swap_remove(chosen);
            self.outputs.push_back(Output::Probe { to, address });
        }
        self.jobs.schedule(now + PROVOKE_EVERY, Job::Provoke);
    }

    /// A packet of this life has come: whatever was to be confirmed is refuted.
    pub(super) fn heard(&mut self, now: Time, peer: NodeId) {
        self.health.heard(now);
        if self.confirming.get(&peer.name).is_some_and(|c| c.id == peer) {
            self.confirming.remove(&peer.name);
            self.history.note(now, peer.name, Happened::Answered);
        }
    }

    pub(super) fn hint(&mut self, now: Time, address: SocketAddr) {
        let found = self.table.others().find(|member| member.address == address);
        let Some(id) = found.map(|member| member.id) else { return };
        match self.confirming.get_mut(&id.name) {
            Some(confirmation) => confirmation.hints += 1,
            None => {
                let number = self.jobs.next_number();
                let confirmation = Confirmation { id, number, probes: 1, hints: 0 };
                self.confirming.insert(id.name, confirmation);
                self.history.note(now, id.name, Happened::PortClosed);
                self.outputs.push_back(Output::Probe { to: id, address });
                self.jobs.schedule(now + CONFIRM_EVERY, Job::Confirm(id.name, number));
                self.sync(ASKED);
            }
        }
    }

    pub(super) fn confirm(&mut self, now: Time, name: NodeName, number: u64) {
        let confirmation = self.confirming.get_mut(&name).filter(|c| c.number == number);
        let Some(confirmation) = confirmation else { return };
        let id = confirmation.id;
        let Some(address) = self.table.get(id).filter(|m| m.state.is_live()).map(|m| m.address)
        else {
            self.confirming.remove(&name);
            return;
        };
        if confirmation.probes < CONFIRM_PROBES {
            confirmation.probes += 1;
            self.outputs.push_back(Output::Probe { to: id, address });
            self.jobs.schedule(now + CONFIRM_EVERY, Job::Confirm(name, number));
            return;
        }
        let closed = confirmation.hints > 0;
        self.confirming.remove(&name);
        if closed {
            self.declare_down(now, Life { id, address }, Why::PortClosed);
        }
    }
}
