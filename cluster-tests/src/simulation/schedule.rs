//! What is done to a cluster, and when: from a seed.

use std::time::Duration;

use purlin::NodeName;
use purlin::testing::{Cluster, DiskState, Road};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::leaving;

/// One thing done to a cluster.
#[derive(Debug, Clone)]
pub enum Fault {
    Roads(Road),
    Road(NodeName, NodeName, Road),
    Cut(NodeName, NodeName),
    CutOneWay(NodeName, NodeName),
    Split(Vec<NodeName>),
    Heal,
    Crash(NodeName),
    Kill(NodeName),
    /// It is back before anybody has missed it.
    Bounce(NodeName),
    Stop(NodeName),
    /// Takes it out of service, and stops it when that is done.
    Drain(NodeName),
    /// All that do not run.
    Restart,
    Freeze(NodeName, Duration),
    Slow(NodeName, Duration),
    Skew(NodeName, f64),
    Disk(NodeName, DiskState),
}

/// What runs in a cluster besides workers and trees. Each costs time, so a run has one at most.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    #[default]
    None,
    /// Keyed processes of an exclusive kind.
    Keys,
    /// Children of cluster supervisors, exclusive and available.
    Children,
}

/// A run, as its seed has it.
#[derive(Debug)]
pub struct Schedule {
    pub nodes: usize,
    /// No machine and no road fails for good; packets suffer, and clocks differ.
    pub benign: bool,
    pub part: Part,
    /// What is done, and how long to wait before it.
    pub faults: Vec<(Duration, Fault)>,
}

impl Schedule {
    /// The schedule of a seed, with faults for so long.
    pub fn of(seed: u64, length: Duration) -> Self {
        let mut chance = StdRng::seed_from_u64(seed ^ 0x5C4E_D01E);
        let nodes = chance.random_range(2..=5);
        let names: Vec<_> =
            (0..nodes).map(|index| NodeName::new(&format!("n{index}")).expect("a name")).collect();
        let benign = chance.random_bool(0.3);
        let part = match chance.random_range(0..5) {
            0 | 1 => Part::Keys,
            2 | 3 => Part::Children,
            _ => Part::None,
        };
        let mut faults = Vec::new();
        for &name in &names {
            let rate = 1.0 + chance.random_range(-0.02..0.02);
            faults.push((Duration::ZERO, Fault::Skew(name, rate)));
        }
        let mut passed = Duration::ZERO;
        while passed < length {
            let wait = Duration::from_millis(chance.random_range(50..3_000));
            passed += wait;
            let fault = match benign {
                true => harmless(&names, &mut chance),
                false => harmful(&names, &mut chance),
            };
            faults.push((wait, fault));
        }
        Self { nodes, benign, part, faults }
    }
}

fn one(names: &[NodeName], chance: &mut StdRng) -> NodeName {
    *names.choose(chance).expect("there are nodes")
}

fn two(names: &[NodeName], chance: &mut StdRng) -> (NodeName, NodeName) {
    let first = chance.random_range(0..names.len());
    let second = (first + chance.random_range(1..names.len())) % names.len();
    (names[first], names[second])
}

fn millis(chance: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(chance.random_range(range))
}

fn rough(chance: &mut StdRng, loss: f64) -> Road {
    Road {
        loss: chance.random_range(0.0..loss),
        duplication: chance.random_range(0.0..0.1),
        latency: Duration::from_micros(chance.random_range(100..20_000)),
        jitter: Duration::from_micros(chance.random_range(0..10_000)),
        ..Road::default()
    }
}

/// A road with room for so many bytes a second at least.
fn narrow(chance: &mut StdRng, bandwidth: u64) -> Road {
    Road {
        bandwidth: Some(chance.random_range(bandwidth..20 * bandwidth)),
        queue: chance.random_range(16 << 10..256 << 10),
        ..rough(chance, 0.02)
    }
}

fn disk(chance: &mut StdRng) -> DiskState {
    match chance.random_range(0..5) {
        0 | 1 => DiskState::Slow(millis(chance, 1..2_000)),
        2 => DiskState::ReadOnly,
        3 => DiskState::Full,
        _ => DiskState::Sound,
    }
}

/// What QUIC and membership must bear without anybody noticing.
fn harmless(names: &[NodeName], chance: &mut StdRng) -> Fault {
    match chance.random_range(0..10) {
        0..3 => Fault::Roads(rough(chance, 0.05)),
        3 => {
            let (from, to) = two(names, chance);
            Fault::Road(from, to, narrow(chance, 1_000_000))
        }
        4..8 => {
            let (from, to) = two(names, chance);
            Fault::Road(from, to, rough(chance, 0.05))
        }
        8 => Fault::Slow(one(names, chance), millis(chance, 0..10)),
        _ => Fault::Heal,
    }
}

fn harmful(names: &[NodeName], chance: &mut StdRng) -> Fault {
    match chance.random_range(0..100) {
        0..6 => Fault::Roads(rough(chance, 0.2)),
        6..11 => {
            let (from, to) = two(names, chance);
            Fault::Road(from, to, rough(chance, 0.5))
        }
        11..15 => {
            let (from, to) = two(names, chance);
            Fault::Road(from, to, narrow(chance, 20_000))
        }
        15..20 => {
            let (from, to) = two(names, chance);
            let flapping = Some((millis(chance, 50..3_000), millis(chance, 50..3_000)));
            Fault::Road(from, to, Road { flapping, ..rough(chance, 0.1) })
        }
        20..32 => {
            let (a, b) = two(names, chance);
            Fault::Cut(a, b)
        }
        32..40 => {
            let (from, to) = two(names, chance);
            Fault::CutOneWay(from, to)
        }
        40..48 => {
            let count = chance.random_range(1..=names.len() / 2);
            Fault::Split(names.sample(chance, count).copied().collect())
        }
        48..60 => Fault::Heal,
        60..64 => Fault::Crash(one(names, chance)),
        64..67 => Fault::Kill(one(names, chance)),
        67..70 => Fault::Bounce(one(names, chance)),
        70..73 => Fault::Stop(one(names, chance)),
        73..77 => Fault::Drain(one(names, chance)),
        77..86 => Fault::Restart,
        86..93 => Fault::Freeze(one(names, chance), millis(chance, 50..9_000)),
        93..95 => Fault::Slow(one(names, chance), millis(chance, 0..100)),
        95..99 => Fault::Disk(one(names, chance), disk(chance)),
        _ => Fault::Skew(one(names, chance), 1.0 + chance.random_range(-0.02..0.02)),
    }
}

impl Fault {
    /// Does it. What does not apply, since a node runs or does not, is not done.
    pub async fn befall(self, cluster: &Cluster) {
        let runs = |name: NodeName| cluster.node(name).is_running();
        match self {
            Self::Roads(road) => cluster.set_roads(&road),
            Self::Road(from, to, road) => cluster.set_road(from, to, road),
            Self::Cut(a, b) => cluster.cut(a, b),
            Self::CutOneWay(from, to) => cluster.cut_one_way(from, to),
            Self::Split(side) => cluster.split(&side),
            Self::Heal => cluster.heal(),
            Self::Crash(name) if runs(name) => cluster.crash(name),
            Self::Kill(name) if runs(name) => cluster.kill(name),
            Self::Bounce(name) if runs(name) => {
                cluster.crash(name);
                super::start(cluster, name).await;
            }
            Self::Stop(name) if runs(name) => cluster.stop(name).await,
            Self::Drain(name) => leaving::begin(cluster, name).await,
            Self::Restart => {
                for name in cluster.names().into_iter().filter(|name| !runs(*name)) {
                    super::start(cluster, name).await;
                }
            }
            Self::Freeze(name, span) => cluster.freeze(name, span),
            Self::Slow(name, pause) => cluster.slow(name, pause),
            Self::Skew(name, rate) => cluster.skew(name, rate),
            Self::Disk(name, state) => cluster.set_disk(name, state),
            Self::Crash(_) | Self::Kill(_) | Self::Bounce(_) | Self::Stop(_) => {}
        }
    }
}
