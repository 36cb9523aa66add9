//! The members of one group: those of this node, and those of each other node.

use std::collections::BTreeMap;

use purlin_proto::{NodeId, NodeName};
use rustc_hash::FxHashMap;

use super::{below, mix};
use crate::relations::Address;

/// Processes of one node, each with how often it has joined. Any one can be had by its index.
#[derive(Debug, Default)]
pub(super) struct Bag {
    at: FxHashMap<u64, usize>,
    list: Vec<(u64, u32)>,
}

impl Bag {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn count(&self, serial: u64) -> u32 {
        self.at.get(&serial).map_or(0, |at| self.list[*at].1)
    }

    /// Sets how often a process has joined; how often it had.
    pub(super) fn set(&mut self, serial: u64, count: u32) -> u32 {
        match (self.at.get(&serial).copied(), count) {
            (None, 0) => 0,
            (None, _) => {
                self.at.insert(serial, self.list.len());
                self.list.push((serial, count));
                0
            }
            (Some(at), 0) => {
                self.at.remove(&serial);
                let (_, before) = self.list.swap_remove(at);
                if let Some((moved, _)) = self.list.get(at) {
                    self.at.insert(*moved, at);
                }
                before
            }
            (Some(at), _) => std::mem::replace(&mut self.list[at].1, count),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.list.iter().copied()
    }

    /// The one that a key belongs to: the highest of hashes of key and serial, so that every node
    /// finds the same one, and most keys stay where they are when others come and go.
    fn owner(&self, key: &[u8]) -> Option<u64> {
        // FNV-1a; it must be the same in every build.
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let key = key.iter().fold(0xcbf2_9ce4_8422_2325, fold);
        let serials = self.list.iter().map(|(serial, _)| *serial);
        serials.max_by_key(|serial| (mix(key ^ mix(*serial)), *serial))
    }
}

#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) here: Bag,
    pub(super) there: BTreeMap<NodeId, Bag>,
    turn: u64,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty() && self.there.is_empty()
    }

    /// Each member and how often it has joined.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Address, u32)> {
        let here = self.here.iter().map(|(serial, count)| (Address::Local(serial), count));
        let there = self.there.iter().flat_map(|(node, bag)| {
            bag.iter().map(|(serial, count)| (Address::Remote(node.pid(serial)), count))
        });
        here.chain(there)
    }

    /// The one with this index among all.
    fn nth(&self, mut index: usize) -> Option<Address> {
        if let Some((serial, _)) = self.here.list.get(index) {
            return Some(Address::Local(*serial));
        }
        index -= self.here.len();
        for (node, bag) in &self.there {
            if let Some((serial, _)) = bag.list.get(index) {
                return Some(Address::Remote(node.pid(*serial)));
            }
            index -= bag.len();
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.here.len() + self.there.values().map(Bag::len).sum::<usize>()
    }

    pub(super) fn random(&self, chance: u64) -> Option<Address> {
        if self.is_empty() { None } else { self.nth(below(chance, self.len())) }
    }

    pub(super) fn next(&mut self) -> Option<Address> {
        self.turn += 1;
        self.random(self.turn - 1)
    }

    pub(super) fn random_here(&self, chance: u64) -> Option<Address> {
        let serial = self.here.list.get(below(chance, self.here.len().max(1)));
        serial.map(|(serial, _)| Address::Local(*serial))
    }

    /// The nodes that have members; this one by its name.
    pub(super) fn nodes(&self, us: NodeName) -> Vec<NodeName> {
        let here = (!self.here.is_empty()).then_some(us);
        here.into_iter().chain(self.there.keys().map(|node| node.name)).collect()
    }

    /// One of a node.
    pub(super) fn random_on(&self, node: NodeName, chance: u64) -> Option<Address> {
        let (node, bag) = self.there.iter().find(|(id, _)| id.name == node)?;
        let (serial, _) = bag.list.get(below(chance, bag.len().max(1)))?;
        Some(Address::Remote(node.pid(*serial)))
    }

    /// The one of a node that a key belongs to.
    pub(super) fn owner_on(&self, node: NodeName, us: NodeName, key: &[u8]) -> Option<Address> {
        if node == us {
            return self.here.owner(key).map(Address::Local);
        }
        let (node, bag) = self.there.iter().find(|(id, _)| id.name == node)?;
        bag.owner(key).map(|serial| Address::Remote(node.pid(serial)))
    }
}
