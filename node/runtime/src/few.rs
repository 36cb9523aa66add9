//! A map of few: most processes have one link, or watch one other, or are watched by one.
//!
//! A `BTreeMap` makes room for eleven when the first comes, which for links are 900 bytes. Here the
//! first lies in the map itself, and a tree is made for the second. Whoever has had two keeps the
//! tree until it is empty, so that one who comes and goes makes none anew. Sorted, as the tree is.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default)]
pub(crate) enum Few<K, V> {
    #[default]
    Empty,
    One(K, V),
    Many(BTreeMap<K, V>),
}

impl<K: Ord, V> Few<K, V> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(..) => 1,
            Self::Many(tree) => tree.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Self::One(one, value) if one == key => Some(value),
            Self::Empty | Self::One(..) => None,
            Self::Many(tree) => tree.get(key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Self::One(one, value) if one == key => Some(value),
            Self::Empty | Self::One(..) => None,
            Self::Many(tree) => tree.get_mut(key),
        }
    }

    /// As [`BTreeMap::insert`]: what was there before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Self::Empty => {
                *self = Self::One(key, value);
                None
            }
            Self::One(one, before) if *one == key => Some(std::mem::replace(before, value)),
            Self::One(..) => {
                let mut tree: BTreeMap<_, _> = std::mem::take(self).into_iter().collect();
                tree.insert(key, value);
                *self = Self::Many(tree);
                None
            }
            Self::Many(tree) => tree.insert(key, value),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let removed = match self {
            Self::One(one, _) if one == key => {
                let Self::One(_, value) = std::mem::take(self) else { return None };
                return Some(value);
            }
            Self::Empty | Self::One(..) => return None,
            Self::Many(tree) => tree.remove(key),
        };
        self.tidy();
        removed
    }

    /// Keeps those of which this is true.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        match self {
            Self::Empty => {}
            Self::One(key, value) => {
                if !keep(key, value) {
                    *self = Self::Empty;
                }
            }
            Self::Many(tree) => {
                tree.retain(keep);
                self.tidy();
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (one, tree) = match self {
            Self::Empty => (None, None),
            Self::One(key, value) => (Some((key, value)), None),
            Self::Many(tree) => (None, Some(tree)),
        };
        one.into_iter().chain(tree.into_iter().flatten())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = (K, V)> {
        let (one, tree) = match self {
            Self::Empty => (None, None),
            Self::One(key, value) => (Some((key, value)), None),
            Self::Many(tree) => (None, Some(tree)),
        };
        one.into_iter().chain(tree.into_iter().flatten())
    }

    fn tidy(&mut self) {
        if matches!(self, Self::Many(tree) if tree.is_empty()) {
            *self = Self::Empty;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Insert(u8, u8),
        Remove(u8),
        Change(u8, u8),
        /// All keys but multiples of this.
        Retain(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        // Few keys, so that they meet.
        let key = 0..4_u8;
        prop_oneof![
            (key.clone(), any::<u8>()).prop_map(|(key, value)| Act::Insert(key, value)),
            key.clone().prop_map(Act::Remove),
            (key, any::<u8>()).prop_map(|(key, value)| Act::Change(key, value)),
            (1..4_u8).prop_map(Act::Retain),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_tree_to_whoever_uses_it(acts in prop::collection::vec(act(), 0..40)) {
            let (mut few, mut tree) = (Few::default(), BTreeMap::new());
            for act in acts {
                match act {
                    Act::Insert(key, value) => {
                        prop_assert_eq!(few.insert(key, value), tree.insert(key, value));
                    }
                    Act::Remove(key) => prop_assert_eq!(few.remove(&key), tree.remove(&key)),
                    Act::Change(key, value) => {
                        let (ours, theirs) = (few.get_mut(&key), tree.get_mut(&key));
                        prop_assert_eq!(ours.is_some(), theirs.is_some());
                        if let (Some(ours), Some(theirs)) = (ours, theirs) {
                            (*ours, *theirs) = (value, value);
                        }
                    }
                    Act::Retain(of) => {
                        few.retain(|key, _| key % of != 0);
                        tree.retain(|key, _| key % of != 0);
                    }
                }
                prop_assert_eq!(few.len(), tree.len());
                prop_assert_eq!(few.is_empty(), tree.is_empty());
                prop_assert!(few.iter().eq(tree.iter()));
                prop_assert!((0..4).all(|key| few.get(&key) == tree.get(&key)));
            }
            prop_assert!(few.into_iter().eq(tree));
        }
    }
}
