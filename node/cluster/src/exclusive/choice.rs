//! Who votes: the most senior members, spread over zones.

use std::collections::{BTreeMap, BTreeSet};

use purlin_proto::NodeName;

/// A member that could vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub name: NodeName,
    /// Its creation: the smaller, the more senior.
    pub creation: u64,
    /// Where it is, if its labels say so; voters are spread over these.
    pub zone: Option<String>,
}

/// How many of so many members vote. An even number would bear no more losses than one fewer.
pub fn how_many(members: usize) -> usize {
    match members {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

/// Who is to vote. Those who do stay as long as they are members, unless there are too many; then the
/// most junior of the fullest zones go first. Those who are added are of the emptiest zones, the most
/// senior first. The same for the same members and voters.
pub fn choose_voters(members: &[Candidate], voting: &BTreeSet<NodeName>) -> BTreeSet<NodeName> {
    let count = how_many(members.len());
    let zone = |member: &Candidate| member.zone.clone().unwrap_or_default();
    let mut load: BTreeMap<String, usize> = BTreeMap::new();
    let mut chosen = Vec::new();
    for member in members.iter().filter(|member| voting.contains(&member.name)) {
        *load.entry(zone(member)).or_default() += 1;
        chosen.push(member);
    }
    let of = |load: &BTreeMap<String, usize>, member: &Candidate| {
        load.get(&zone(member)).copied().unwrap_or_default()
    };
    while chosen.len() > count {
        let least = |m: &&Candidate| (of(&load, m), m.creation, m.name);
        let Some(worst) = chosen.iter().copied().max_by_key(least) else { break };
        chosen.retain(|member| member.name != worst.name);
        *load.entry(zone(worst)).or_default() -= 1;
    }
    while chosen.len() < count {
        let free = members.iter().filter(|member| !chosen.contains(member));
        let Some(best) = free.min_by_key(|m| (of(&load, m), m.creation, m.name)) else { break };
        *load.entry(zone(best)).or_default() += 1;
        chosen.push(best);
    }
    chosen.into_iter().map(|member| member.name).collect()
}
