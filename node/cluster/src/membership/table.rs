//! All members that are known, one life of each name: the newest.
//!
//! An older life of a name is over, and so is one that is listed as down or left; that is all the
//! memory there is of the dead. It is bounded: beyond [`MEMBERS`] names the one that has been dead
//! longest is forgotten, and without a dead one no new name is taken.

use std::collections::BTreeMap;

use purlin_proto::limits::{MEMBERS, VIEW_SAMPLE};
use purlin_proto::{Labels, NodeId, NodeName, View};
use xxhash_rust::xxh3::xxh3_64;

use super::config::{FORGET_AFTER, REMEMBERED};
use super::types::{Member, State, Time};
use super::wire::Life;

/// Who has told us the labels of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelsFrom {
    /// Nobody yet.
    Nobody,
    /// Another node; the life itself may correct it.
    Others,
    /// The life itself.
    Itself,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) member: Member,
    pub(super) labels_from: LabelsFrom,
    /// Who has told last that it is suspected, or is no more.
    pub(super) rumour: Option<NodeId>,
    /// From when on its next digest is answered.
    pub(super) compare_at: Time,
}

#[derive(Debug)]
pub(super) struct Table {
    me: NodeName,
    entries: BTreeMap<NodeName, Entry>,
}

impl Table {
    /// Only this node.
    pub(super) fn new(me: Member) -> Self {
        let name = me.id.name;
        let me = Entry {
            member: me,
            labels_from: LabelsFrom::Itself,
            rumour: None,
            compare_at: Time::ZERO,
        };
        Self { me: name, entries: BTreeMap::from([(name, me)]) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.entries.values().map(|entry| &entry.member)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.state.is_live())
    }

    /// The live ones, without this node.
    pub(super) fn others(&self) -> impl Iterator<Item = &Member> {
        self.live().filter(|member| member.id.name != self.me)
    }

    pub(super) fn named(&self, name: NodeName) -> Option<&Member> {
        self.entries.get(&name).map(|entry| &entry.member)
    }

    /// Exactly this life.
    pub(super) fn get(&self, id: NodeId) -> Option<&Member> {
        self.named(id.name).filter(|member| member.id == id)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Entry> {
        self.entries.get_mut(&id.name).filter(|entry| entry.member.id == id)
    }

    pub(super) fn is_live(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|member| member.state.is_live())
    }

    /// Whether this life is known to be over. It is for ever.
    pub(super) fn is_over(&self, id: NodeId) -> bool {
        self.named(id.name).is_some_and(|known| {
            known.id.creation > id.creation || known.id == id && !known.state.is_live()
        })
    }

    /// How many more names can be remembered, some of the dead being forgotten for them.
    pub(super) fn room(&self) -> usize {
        MEMBERS.saturating_sub(self.live().count())
    }

    /// Remembers a life in place of an older one of its name. Its state is that of now.
    pub(super) fn put(&mut self, now: Time, life: Life, state: State) -> Member {
        let Life { id, address } = life;
        let member = Member { id, address, labels: Labels::new(), state, since: now };
        let entry = Entry {
            member: member.clone(),
            labels_from: LabelsFrom::Nobody,
            rumour: None,
            compare_at: Time::ZERO,
        };
        self.entries.insert(id.name, entry);
        member
    }

    /// Forgets those that have been dead for too long, or are too many, and returns them.
    pub(super) fn forget(&mut self, now: Time) -> Vec<Life> {
        let mut dead: Vec<_> = self.iter().filter(|m| !m.state.is_live()).collect();
        dead.sort_unstable_by_key(|member| (member.since, member.id));
        let excess = dead.len().saturating_sub(REMEMBERED);
        let excess = excess.max(self.entries.len().saturating_sub(MEMBERS));
        let old = |m: &Member| now.saturating_sub(m.since) > FORGET_AFTER;
        let expired = dead.iter().take_while(|member| old(member)).count();
        let gone = dead.into_iter().take(excess.max(expired));
        let gone: Vec<_> = gone.map(|m| Life { id: m.id, address: m.address }).collect();
        for life in &gone {
            self.entries.remove(&life.id.name);
        }
        gone
    }

    /// The live members in short.
    pub(super) fn view(&self) -> View {
        view_of(self.live().map(|member| member.id)).unwrap_or_else(|| View {
            members: 0,
            first: self.me,
            sample: Vec::new(),
        })
    }

    /// Equal on nodes that know the same live members and their labels.
    pub(super) fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        for entry in self.entries.values().filter(|entry| entry.member.state.is_live()) {
            put_id(entry.member.id, &mut bytes);
            bytes.push(u8::from(entry.labels_from != LabelsFrom::Nobody));
        }
        xxh3_64(&bytes)
    }
}

fn put_id(id: NodeId, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(id.name.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&id.creation.to_le_bytes());
}

fn hash(id: NodeId) -> u64 {
    let mut bytes = Vec::new();
    put_id(id, &mut bytes);
    xxh3_64(&bytes)
}

/// These lives in short; `None` if there are none.
pub(super) fn view_of(ids: impl Iterator<Item = NodeId>) -> Option<View> {
    let ids: Vec<_> = ids.collect();
    let first = ids.iter().map(|id| id.name).min()?;
    let mut sample: Vec<_> = ids.iter().map(|&id| hash(id)).collect();
    sample.sort_unstable();
    sample.truncate(VIEW_SAMPLE);
    Some(View { members: u32::try_from(ids.len()).unwrap_or(u32::MAX), first, sample })
}
