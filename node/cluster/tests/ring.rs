//! The ring: the same on every machine, and moving no more than it must.

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
    let ring = Ring::new(members(20));
    let mut shares = std::collections::BTreeMap::new();
    for shard in 0..SHARDS {
        *shares.entry(ring.owner_of(shard)).or_insert(0_u32) += 1;
    }
    let mean = u32::from(SHARDS) / 20;
    let largest = shares.values().max().copied().unwrap_or(0);
    assert!(largest * 100 <= mean * 135, "{largest} of a mean of {mean}");
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
