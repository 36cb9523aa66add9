//! The log of one owner: its entries, each with the number of its last change.
//!
//! Only the last change of each key is kept, so the log is as long as the map it describes, and what
//! it keeps of removed keys. A *position* is a number such that the reader has every change up to it
//! that is still the last one of its key; what came before and was overwritten, nobody needs. So a
//! reader may read on at any copy of the log, the owner's or another reader's.
//!
//! Removals are forgotten after a while, the oldest first. A reader whose position is before the last
//! that was forgotten (the *floor*) cannot know what is gone: it gets a full copy, and begins that
//! anew should the floor rise meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use purlin_proto::limits::{OWNED_ENTRIES, OWNED_ENTRY_BYTES, OWNED_PAGE_BYTES, OWNED_REMOVALS};

use super::wire::{Op, Page, Position};

/// What a key or a value is here: bytes that others give a meaning.
pub type Blob = Arc<[u8]>;

/// A key and its new value; `None` if it is gone.
pub type Change = (Blob, Option<Blob>);

/// How much a log keeps and says at once; tests make it little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// [`OWNED_PAGE_BYTES`].
    pub page_bytes: usize,
    /// [`OWNED_REMOVALS`].
    pub removals: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { page_bytes: OWNED_PAGE_BYTES, removals: OWNED_REMOVALS }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    bounds: Bounds,
    records: BTreeMap<Blob, Record>,
    order: BTreeMap<u64, Blob>,
    /// The number of the last change.
    head: u64,
    /// Removals up to here may be forgotten.
    floor: u64,
    removals: usize,
}

#[derive(Debug, Clone)]
struct Record {
    number: u64,
    value: Option<Blob>,
}

impl Log {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Changes a key, as the owner. Nothing happens if it has that value.
    pub(super) fn change(&mut self, key: Blob, value: Option<Blob>) {
        let before = self.records.get(&key).and_then(|record| record.value.as_ref());
        if before != value.as_ref() {
            self.head += 1;
            self.set(self.head, key, value);
            self.forget();
        }
    }

    /// The live entries, by key.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Blob, &Blob)> {
        self.records.iter().filter_map(|(key, record)| Some((key, record.value.as_ref()?)))
    }

    fn set(&mut self, number: u64, key: Blob, value: Option<Blob>) {
        self.removals += usize::from(value.is_none());
        self.order.insert(number, Arc::clone(&key));
        if let Some(before) = self.records.insert(key, Record { number, value }) {
            self.order.remove(&before.number);
            self.removals -= usize::from(before.value.is_none());
        }
    }

    /// Forgets the older half of the removals when they are too many.
    fn forget(&mut self) {
        let live = self.records.len() - self.removals;
        if self.removals <= self.bounds.removals.max(live) {
            return;
        }
        let mut too_many = self.removals / 2;
        let (records, floor) = (&mut self.records, &mut self.floor);
        self.order.retain(|&number, key| {
            let removed = too_many > 0 && records[key].value.is_none();
            if removed {
                too_many -= 1;
                *floor = number;
                records.remove(key);
            }
            !removed
        });
        self.removals -= self.removals / 2;
    }

    /// What comes after a position, as much as fits a page; from the beginning if that is too far
    /// back.
    pub(super) fn page(&self, at: Position) -> Page {
        let fresh = at.after < self.floor && at.copy != Some(self.floor);
        let after = if fresh { 0 } else { at.after };
        let Self { head, floor, .. } = *self;
        let mut page = Page { fresh, after, upto: head, head, floor, ops: Vec::new() };
        let mut bytes = 0;
        for (&number, key) in self.order.range((Bound::Excluded(after), Bound::Unbounded)) {
            let value = self.records[key].value.as_deref();
            bytes += key.len() + value.map_or(0, <[u8]>::len) + Op::OVERHEAD;
            if bytes > self.bounds.page_bytes && !page.ops.is_empty() {
                page.upto = page.ops.last().map_or(after, |op| op.number);
                break;
            }
            page.ops.push(Op { number, key: key.to_vec(), value: value.map(<[u8]>::to_vec) });
        }
        page
    }

    /// Reads a page on from this position, which is in it; what has changed.
    fn read(&mut self, page: Page) -> Result<Vec<Change>, Invalid> {
        let mut changes = Vec::new();
        let position = self.head;
        for op in page.ops.into_iter().filter(|op| op.number > position) {
            let (key, value): (Blob, Option<Blob>) = (op.key.into(), op.value.map(Into::into));
            let before = self.records.get(&key).and_then(|record| record.value.as_ref());
            if before != value.as_ref() {
                changes.push((Arc::clone(&key), value.clone()));
            }
            self.set(op.number, key, value);
        }
        self.head = page.upto;
        // An owner has no more removals than that, or than entries.
        let (live, removals) = (self.records.len() - self.removals, self.removals);
        if live > OWNED_ENTRIES || removals > OWNED_ENTRIES + OWNED_REMOVALS {
            return Err(Invalid("more entries than an owner may have"));
        }
        Ok(changes)
    }
}

/// A page that no log has: whoever sent it breaks the protocol, or its owner did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Invalid(&'static str);

/// What has become of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It went on from here; what has changed for others to see.
    On(Vec<Change>),
    /// All of it was known.
    Known,
    /// Something before it is missing.
    Gap,
}

/// Another node's log, as far as it is known here.
#[derive(Debug)]
pub(super) struct Replica {
    log: Log,
    /// A full copy that is not complete yet. What is in the log stays until it is, so that nobody
    /// sees entries go and come back.
    copy: Option<Log>,
    /// Whether something of it was read from another than its owner.
    hearsay: bool,
}

impl Replica {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { log: Log::new(bounds), copy: None, hearsay: false }
    }

    /// What can be served to others.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// How far it is read.
    pub(super) fn position(&self) -> Position {
        match &self.copy {
            Some(copy) => Position { after: copy.head, copy: Some(copy.floor) },
            None => Position { after: self.log.head, copy: None },
        }
    }

    /// The owner can be asked: what others have said of it is read anew.
    pub(super) fn verify(&mut self) {
        if std::mem::take(&mut self.hearsay) {
            self.copy = Some(Log::new(self.log.bounds));
        }
    }

    /// Takes a page, from the owner or from another.
    pub(super) fn take(&mut self, page: Page, owner: bool) -> Result<Read, Invalid> {
        check(&page)?;
        self.hearsay |= !owner;
        if page.fresh && (page.head > self.log.head || self.copy.is_some()) {
            self.copy = Some(Log { floor: page.floor, ..Log::new(self.log.bounds) });
        }
        let position = self.position().after;
        if page.after > position {
            return Ok(Read::Gap);
        }
        let complete = page.upto == page.head;
        // A copy of nothing is complete at once.
        if page.upto < position || (page.upto == position && !(complete && self.copy.is_some())) {
            return Ok(Read::Known);
        }
        match &mut self.copy {
            None => {
                let changes = self.log.read(page)?;
                self.log.forget();
                Ok(Read::On(changes))
            }
            // Its floor is that of its source until it is complete.
            Some(copy) => {
                copy.read(page)?;
                Ok(Read::On(if complete { self.swap() } else { Vec::new() }))
            }
        }
    }

    /// The copy is complete: puts it in place of the log. What has changed, all at once.
    fn swap(&mut self) -> Vec<Change> {
        let Some(copy) = self.copy.take() else { return Vec::new() };
        let (old, new) = (&self.log.records, &copy.records);
        let value = |records: &BTreeMap<Blob, Record>, key: &Blob| {
            records.get(key).and_then(|record| record.value.clone())
        };
        let gone = old.keys().filter(|key| value(old, key).is_some() && value(new, key).is_none());
        let gone = gone.map(|key| (Arc::clone(key), None));
        let come = copy.entries().filter(|(key, new)| value(old, key).as_ref() != Some(*new));
        let come = come.map(|(key, new)| (Arc::clone(key), Some(Arc::clone(new))));
        let changes = gone.chain(come).collect();
        self.log = copy;
        changes
    }
}

fn check(page: &Page) -> Result<(), Invalid> {
    let numbers = page.ops.iter().map(|op| op.number);
    let rising = numbers.clone().zip(numbers.clone().skip(1)).all(|(one, next)| one < next);
    let within = numbers.clone().all(|number| page.after < number && number <= page.upto);
    let last = page.upto == page.head || page.ops.last().is_some_and(|op| op.number == page.upto);
    let ordered = page.after <= page.upto && page.upto.max(page.floor) <= page.head;
    if !(rising && within && last && ordered && (page.after == 0 || !page.fresh)) {
        return Err(Invalid("a page out of order"));
    }
    let keys: BTreeSet<_> = page.ops.iter().map(|op| &op.key).collect();
    if keys.len() < page.ops.len() {
        return Err(Invalid("a key that is there twice"));
    }
    let bytes = |op: &Op| op.key.len() + op.value.as_ref().map_or(0, Vec::len);
    if page.ops.iter().any(|op| bytes(op) > OWNED_ENTRY_BYTES) {
        return Err(Invalid("an entry larger than one may be"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ops: &[(u64, &str, Option<&str>)]) -> Page {
        let op = |(number, key, value): &(u64, &str, Option<&str>)| Op {
            number: *number,
            key: key.as_bytes().to_vec(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        let upto = ops.last().map_or(0, |op| op.0);
        let ops = ops.iter().map(op).collect();
        Page { fresh: false, after: 0, upto, head: upto, floor: 0, ops }
    }

    /// Whoever is told of changes is told of each key once.
    #[test]
    fn a_page_has_each_key_once() {
        let mut replica = Replica::new(Bounds::default());
        let twice = page(&[(1, "a", Some("x")), (2, "b", Some("x")), (3, "a", None)]);
        assert!(replica.take(twice, true).is_err());

        let taken = replica.take(page(&[(2, "b", Some("x")), (3, "a", Some("y"))]), true);
        assert!(matches!(taken, Ok(Read::On(changes)) if changes.len() == 2));
    }
}
