//! The ring: the same on every machine, and moving no more than it must.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use purlin_cluster::{Ring, SHARDS};
use purlin_proto::NodeName;

fn members(count: usize) -> Vec<NodeName> {
    (0..count).map(|n| NodeName::new(&format!("node-{n}")).expect("a name")).collect()
}

#[test]
fn owners_and_shards_are_what_they_always_were() {
    let ring = Ring::new(members(5));
    let owners: Vec<_> = (0..SHARDS)
        .step_by(256)
        .map(|shard| format!("{shard} {}", ring.owner_of(shard).expect("an owner")))
        .collect();
    let keys =
        ["", "a", "user:42", "ключ"].map(|k| format!("{k:?} {}", Ring::shard_of(k.as_bytes())));
    insta::assert_snapshot!(format!(
        "digest {:016x}\n{}\n{}\n",
        ring.digest(),
        keys.join("\n"),
        owners.join("\n")
    ));
}

#[test]
fn order_and_repetition_of_members_do_not_matter() {
    let mut other_order = members(7);
    other_order.reverse();
    other_order.extend(members(3));
    assert_eq!(Ring::new(members(7)), Ring::new(other_order));
}

#[test]
fn a_member_that_joins_or_leaves_moves_only_its_own_shards_and_few_of_them() {
    for count in [1, 3, 10, 50] {
        let (before, after) = (Ring::new(members(count)), Ring::new(members(count + 1)));
        let newcomer = members(count + 1).pop();
        let moved: Vec<_> =
            (0..SHARDS).filter(|s| before.owner_of(*s) != after.owner_of(*s)).collect();
        assert!(moved.iter().all(|shard| after.owner_of(*shard) == newcomer));
        let bound = usize::from(SHARDS) * 3 / 2 / (count + 1);
        assert!(moved.len() <= bound, "{} of at most {bound} for {count}", moved.len());
    }
}

#[test]
fn shares_are_even() {
    // A thousand have sixteen shards each on average, and chance alone gives one of them twice that.
    for (count, most) in [(10, 135), (20, 135), (100, 135), (1_000, 225)] {
        let ring = Ring::new(members(count));
        let mut shares = BTreeMap::new();
        for shard in 0..SHARDS {
            *shares.entry(ring.owner_of(shard)).or_insert(0_usize) += 1;
        }
        let largest = shares.values().max().copied().unwrap_or(0);
        let percent = largest * 100 * count / usize::from(SHARDS);
        assert!(percent <= most, "{count} members: the largest share is {percent} % of the mean");
    }
}

#[test]
fn successors_begin_with_the_owner_and_are_all_different() {
    let ring = Ring::new(members(5));
    for shard in (0..SHARDS).step_by(100) {
        let preference = ring.preference(shard, 9);
        assert_eq!(preference.first().copied(), ring.owner_of(shard));
        let mut unique = preference.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!((preference.len(), unique.len()), (5, 5));
    }
}

#[test]
fn a_ring_without_members_owns_nothing() {
    let ring = Ring::new([]);
    assert_eq!(ring.owner(b"key"), None);
    assert!(ring.preference(0, 3).is_empty());
}

fn name() -> impl Strategy<Value = NodeName> {
    "[a-z0-9][a-z0-9.-]{0,15}".prop_map(|text| NodeName::new(&text).expect("a name"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equal_members_in_any_order_make_equal_rings(
        (names, shuffled) in prop::collection::vec(name(), 1..40)
            .prop_flat_map(|names| (Just(names.clone()), Just(names).prop_shuffle())),
    ) {
        prop_assert_eq!(Ring::new(names), Ring::new(shuffled));
    }

    #[test]
    fn a_member_takes_shards_when_it_joins_and_gives_them_back_when_it_leaves(
        names in prop::collection::btree_set(name(), 4..40),
        chosen in any::<prop::sample::Index>(),
    ) {
        let newcomer = *chosen.get(&names.iter().copied().collect::<Vec<_>>());
        let others: BTreeSet<_> = names.iter().copied().filter(|name| *name != newcomer).collect();
        let (without, with) = (Ring::new(others), Ring::new(names.iter().copied()));

        let moved: Vec<_> =
            (0..SHARDS).filter(|s| without.owner_of(*s) != with.owner_of(*s)).collect();

        prop_assert!(moved.iter().all(|shard| with.owner_of(*shard) == Some(newcomer)));
        prop_assert_ne!(without.digest(), with.digest());
        prop_assert!(moved.len() * names.len() * 2 <= usize::from(SHARDS) * 3, "{}", moved.len());
    }
}
