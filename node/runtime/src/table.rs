//! The processes of a node by serial.
//!
//! Sharded, so that processes that start, end and send on many threads seldom meet at one lock.
//! Serials are made one after the other and never again, so processes that were started together lie
//! together, in pages: what is done to many of them, one after the other, finds the next one in the
//! cache. A page goes with its last process; so one that outlives all its neighbours costs a page of
//! its own, 150 bytes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use rustc_hash::FxHashMap;

/// Powers of two, both.
const SHARDS: usize = 32;
const PAGE: usize = 16;

/// Those with these serials that are alive, and how many they are.
struct Page<T> {
    slots: [Option<Arc<T>>; PAGE],
    len: usize,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { slots: [const { None }; PAGE], len: 0 }
    }
}

struct Shard<T> {
    /// By number. Serials are made here, so nobody can choose them to collide.
    pages: FxHashMap<u64, Box<Page<T>>>,
    /// The page of the latest serial, which stays though it be empty: the next one goes there.
    latest: u64,
}

impl<T> Shard<T> {
    /// Makes a page the latest, if it is.
    fn reach(&mut self, page: u64) {
        if page > self.latest {
            let before = std::mem::replace(&mut self.latest, page);
            self.end_if_empty(before);
        }
    }

    fn end_if_empty(&mut self, page: u64) {
        if page != self.latest && self.pages.get(&page).is_some_and(|page| page.len == 0) {
            self.pages.remove(&page);
        }
    }
}

/// Where a process is.
struct Place {
    shard: usize,
    page: u64,
    slot: usize,
}

impl Place {
    fn of(serial: u64) -> Self {
        let index = |number| usize::try_from(number).expect("less than a small power of two");
        let (shards, slots) = (SHARDS as u64, PAGE as u64);
        let within = serial / shards;
        Self { shard: index(serial % shards), page: within / slots, slot: index(within % slots) }
    }
}

pub(crate) struct Table<T> {
    shards: [RwLock<Shard<T>>; SHARDS],
    len: AtomicUsize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let shard = |_| RwLock::new(Shard { pages: FxHashMap::default(), latest: 0 });
        Self { shards: std::array::from_fn(shard), len: AtomicUsize::new(0) }
    }
}

impl<T> Table<T> {
    fn write(&self, place: &Place) -> RwLockWriteGuard<'_, Shard<T>> {
        self.shards[place.shard].write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, serial: u64, process: Arc<T>) {
        let place = Place::of(serial);
        let mut shard = self.write(&place);
        shard.reach(place.page);
        let page = shard.pages.entry(place.page).or_default();
        if page.slots[place.slot].replace(process).is_none() {
            page.len += 1;
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&self, serial: u64) {
        let place = Place::of(serial);
        let mut shard = self.write(&place);
        let Some(page) = shard.pages.get_mut(&place.page) else { return };
        if page.slots[place.slot].take().is_some() {
            page.len -= 1;
            self.len.fetch_sub(1, Ordering::Relaxed);
            if page.len == 0 {
                shard.end_if_empty(place.page);
            }
        }
    }

    pub(crate) fn find(&self, serial: u64) -> Option<Arc<T>> {
        let place = Place::of(serial);
        let shard = self.shards[place.shard].read().unwrap_or_else(PoisonError::into_inner);
        shard.pages.get(&place.page)?.slots[place.slot].clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Every process with a larger serial, by serial.
    pub(crate) fn after(&self, serial: u64) -> Vec<Arc<T>> {
        let mut all = Vec::with_capacity(self.len());
        for (number, shard) in (0_u64..).zip(&self.shards) {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            for (page, held) in &shard.pages {
                let first = page * (PAGE * SHARDS) as u64 + number;
                let serials = (first..).step_by(SHARDS);
                let here = serials.zip(&held.slots).filter(|(found, _)| *found > serial);
                all.extend(
                    here.filter_map(|(found, slot)| Some((found, Arc::clone(slot.as_ref()?)))),
                );
            }
        }
        all.sort_unstable_by_key(|(serial, _)| *serial);
        all.into_iter().map(|(_, process)| process).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pages(table: &Table<u64>) -> usize {
        table
            .shards
            .iter()
            .map(|shard| shard.read().expect("nobody panics with it").pages.len())
            .sum()
    }

    proptest! {
        /// Serials as they are made, some of which come late; each lives for a while.
        #[test]
        fn whoever_lives_is_found_and_an_empty_page_is_not_kept(
            lives in prop::collection::vec((0..40_u64, 1..3_000_u64), 1..3_000),
        ) {
            let (table, mut living, mut ends) = (Table::default(), BTreeSet::new(), BTreeSet::new());
            let begins = (1_u64..).zip(&lives).map(|(serial, (late, life))| (serial + late, serial, *life));
            let mut begins: Vec<_> = begins.collect();
            begins.sort_unstable();
            for (now, serial, life) in begins {
                table.insert(serial, Arc::new(serial));
                living.insert(serial);
                ends.insert((now + life, serial));
                while let Some((_, over)) = ends.first().filter(|(end, _)| *end <= now).copied() {
                    ends.pop_first();
                    table.remove(over);
                    // A second time it is nothing.
                    table.remove(over);
                    living.remove(&over);
                    prop_assert_eq!(table.find(over), None);
                }
                let found = table.find(serial);
                prop_assert_eq!(found.as_deref(), living.get(&serial));
                prop_assert_eq!(table.len(), living.len());
            }
            let middle = lives.len() as u64 / 2;
            let found: Vec<u64> = table.after(middle).iter().map(|process| **process).collect();
            prop_assert!(found.iter().eq(living.range(middle + 1..)));
            prop_assert!(pages(&table) <= living.len() + SHARDS);
        }
    }
}
