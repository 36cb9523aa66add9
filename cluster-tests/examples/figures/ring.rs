//! Looking a key up on the ring.

use std::hint::black_box;
use std::time::{Duration, Instant};

use purlin::Ring;
use purlin::prelude::*;

use super::Figure;

const LOOKUPS: u32 = 1_000_000;

pub(crate) fn ring() -> Vec<Figure> {
    let names: Vec<_> = (0..100).map(|n| NodeName::new(&format!("node-{n}")).unwrap()).collect();
    let begun = Instant::now();
    let ring = Ring::new(names);
    let built = begun.elapsed();
    let keys: Vec<_> = (0..1_000).map(|key| format!("cart/customer-{key}")).collect();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for key in keys.iter().cycle().take(LOOKUPS as usize) {
            black_box(ring.owner(black_box(key.as_bytes())));
        }
        best = best.min(begun.elapsed() / LOOKUPS);
    }
    let measured = format!("{best:?}, 256 points a node; built in {built:.1?}");
    let goal = Duration::from_nanos(200);
    vec![Figure::new("ring: owner of a key, 100 nodes", "<= 200 ns", best <= goal, measured)]
}
