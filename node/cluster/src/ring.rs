//! From a key to the member that owns it.
//!
//! ```text
//! key bytes --xxh3 with a fixed seed--> shard 0..16384 --ring--> owner
//! ```
//!
//! The ring is built by `hashring` from the *names* of the live members alone, so a node that comes
//! back has its shards again. Each member has 256 points. What is hashed is spelled out byte by
//! byte, and the members are sorted and unique before they are added in one batch: so every node,
//! on every machine, builds the same ring from the same members. Golden vectors pin it.
//!
//! A ring is built anew for each change of members and never changed.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use purlin_proto::NodeName;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// How many shards keys are spread over.
pub const SHARDS: u16 = 16_384;

/// Points of one member on the ring; more would balance better and take longer to build.
const POINTS: u32 = 256;

/// Changing any of these moves keys: all nodes of a cluster must agree.
const KEY_SEED: u64 = 0x7075_726c_696e_3031;
const POINT_TAG: &[u8] = b"purlin-ring-1";
const SHARD_TAG: &[u8] = b"purlin-shard-1";

/// The owners of all shards, for one set of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    members: Vec<NodeName>,
    /// For each shard the index of its owner.
    owners: Vec<u16>,
    /// The members in the order of their points, each point once; for successors.
    points: Vec<(u64, u16)>,
    digest: u64,
}

/// One point of a member; hashes as the bytes written here and nothing else.
#[derive(Debug, Clone, Copy)]
struct Point {
    member: u16,
    position: u64,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.position);
    }
}

/// Positions are computed here; the ring's hasher hands them through.
#[derive(Debug, Clone, Copy, Default)]
struct Positions(u64);

impl Hasher for Positions {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only positions are hashed");
    }

    fn write_u64(&mut self, position: u64) {
        self.0 = position;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct BuildPositions;

impl BuildHasher for BuildPositions {
    type Hasher = Positions;

    fn build_hasher(&self) -> Positions {
        Positions::default()
    }
}

struct Position(u64);

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl Ring {
    /// Builds the ring of these members; order and repetition do not matter. At most 65,535.
    pub fn new(members: impl IntoIterator<Item = NodeName>) -> Self {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        members.truncate(usize::from(u16::MAX));
        let mut points: Vec<Point> = Vec::with_capacity(members.len() * POINTS as usize);
        for (member, name) in (0_u16..).zip(&members) {
            for replica in 0..POINTS {
                let position = position(POINT_TAG, name.as_str().as_bytes(), replica);
                points.push(Point { member, position });
            }
        }
        // Two members at one position: the smaller name has it, on every node.
        points.sort_by_key(|point| (point.position, point.member));
        points.dedup_by_key(|point| point.position);
        let mut ring = HashRing::with_hasher(BuildPositions);
        ring.batch_add(points.clone());
        let owner = |shard: u16| {
            let key = Position(position(SHARD_TAG, &shard.to_le_bytes(), 0));
            ring.get(&key).map(|point| point.member)
        };
        let owners = (0..SHARDS).filter_map(owner).collect();
        let points = points.into_iter().map(|point| (point.position, point.member)).collect();
        let digest = digest(&members);
        Self { members, owners, points, digest }
    }

    /// The members that the ring was built of, by name.
    pub fn members(&self) -> &[NodeName] {
        &self.members
    }

    /// Tells two rings apart: equal for equal members.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The shard that a key falls into; the same on every node and for every ring.
    pub fn shard_of(key: &[u8]) -> u16 {
        let shard = xxh3_64_with_seed(key, KEY_SEED) % u64::from(SHARDS);
        u16::try_from(shard).expect("less than SHARDS")
    }

    /// The owner of a key; `None` for a ring without members.
    pub fn owner(&self, key: &[u8]) -> Option<NodeName> {
        self.owner_of(Self::shard_of(key))
    }

    /// The owner of a shard.
    pub fn owner_of(&self, shard: u16) -> Option<NodeName> {
        let member = self.owners.get(usize::from(shard))?;
        self.members.get(usize::from(*member)).copied()
    }

    /// The one of these members that owns a key, or would own it next if those before it were gone.
    pub fn owner_among(&self, key: &[u8], among: &[NodeName]) -> Option<NodeName> {
        let shard = Self::shard_of(key);
        let owner = self.owner_of(shard).filter(|owner| among.contains(owner));
        owner.or_else(|| self.around(shard).find(|name| among.contains(name)))
    }

    /// The members in the order of their points from a shard on, each as often as it has points.
    fn around(&self, shard: u16) -> impl Iterator<Item = NodeName> {
        let start = position(SHARD_TAG, &shard.to_le_bytes(), 0);
        let from = self.points.partition_point(|(position, _)| *position < start);
        let around = self.points[from..].iter().chain(&self.points[..from]);
        around.map(|(_, member)| self.members[usize::from(*member)])
    }

    /// The owner of a shard and those that would own it next, `count` different members at most.
    pub fn preference(&self, shard: u16, count: usize) -> Vec<NodeName> {
        let mut chosen: Vec<NodeName> = Vec::new();
        for name in self.around(shard) {
            if !chosen.contains(&name) {
                chosen.push(name);
            }
            if chosen.len() == count.min(self.members.len()) {
                break;
            }
        }
        chosen
    }
}

fn position(tag: &[u8], bytes: &[u8], replica: u32) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(tag);
    hasher.update(&[0]);
    hasher.update(bytes);
    hasher.update(&replica.to_le_bytes());
    hasher.digest()
}

fn digest(members: &[NodeName]) -> u64 {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(POINT_TAG);
    bytes.extend_from_slice(&POINTS.to_le_bytes());
    for member in members {
        bytes.extend_from_slice(member.as_str().as_bytes());
        bytes.push(0);
    }
    xxh3_64(&bytes)
}
