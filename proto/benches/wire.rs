//! What it costs to write a message into a frame and to read it again: time and allocations.
//!
//! `cargo bench -p purlin-proto --bench wire`. The body is a byte string, so that the figures grow
//! with bytes copied, not with fields; its decoding allocates once, for the string itself. An
//! envelope is decoded from a copy of its frame, as the transport hands it on. The allocator is the
//! system's and counts, unlike the stock binary's: the first line says what an allocation adds to
//! the times. Machines differ: compare lines of one run.

#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use purlin_proto::codec::Fit;
use purlin_proto::{Codec, Direct, DirectKind, Envelope, MessageRef, Payload, Reference, Target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const NAME: &str = "sensor.reading";
const ROUNDS: u32 = 5;
const COUNT: u32 = 200_000;

#[derive(Serialize, Deserialize)]
struct Reading(#[serde(with = "serde_bytes")] Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Part(#[serde(with = "purlin_proto::zero_copy")] Bytes);

fn measure<T>(name: &str, work: impl FnMut() -> T) {
    measure_some(COUNT, name, work);
}

/// Time and allocations of one `work`, in the best of some rounds.
fn measure_some<T>(count: u32, name: &str, mut work: impl FnMut() -> T) {
    let mut best = Duration::MAX;
    let before = ALLOCATOR.stats();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..count {
            black_box(work());
        }
        best = best.min(begun.elapsed());
    }
    let made = ALLOCATOR.stats() - before;
    let of_each = |sum: usize| sum as f64 / f64::from(ROUNDS * count);
    println!(
        "{name:<34} {:>8.1} ns {:>8.2} allocations {:>8.1} bytes",
        best.as_secs_f64() * 1e9 / f64::from(count),
        of_each(made.allocations + made.reallocations),
        of_each(made.bytes_allocated),
    );
}

fn message(size: usize) {
    let (value, to) = (Reading(vec![7; size]), Target::Serial(42));
    let send = Direct { to: &to, from: 41, what: DirectKind::Send(NAME), value: &value };
    let (reference, remaining) = (Reference(9), Duration::from_secs(5));
    let what = DirectKind::Call { message: NAME, reference, remaining };
    let call = Direct { what, ..send };

    println!("a body of {size} bytes");
    let mut out = BytesMut::with_capacity(2 * size + 256);
    let mut encode = |direct: &Direct<'_, Reading>| {
        out.clear();
        direct.encode(&mut out).unwrap();
        out.len()
    };
    measure("  encode a message", || encode(black_box(&send)));
    measure("  encode a call", || encode(black_box(&call)));

    let frame = |direct: Direct<'_, Reading>| {
        let mut out = BytesMut::new();
        direct.encode(&mut out).unwrap();
        out.freeze()
    };
    let (send, call) = (frame(send), frame(call));
    measure("  read a message in place", || MessageRef::read(black_box(&send), "").is_some());
    measure("  read a call in place", || MessageRef::read(black_box(&call), "").is_some());
    let kept = || Bytes::copy_from_slice(black_box(&send));
    measure("  copy it and decode an envelope", || Envelope::decode(kept()).unwrap());
    let payload = Payload::encode(Codec::Bincode, &value).unwrap();
    measure("  decode the body", || black_box(&payload).decode::<Reading>().unwrap());
}

/// A large body, copied and shared; there are few of these a second.
fn large(size: usize) {
    let (copied, shared) = (Reading(vec![7; size]), Part(Bytes::from(vec![7; size])));
    println!("a body of {size} bytes");
    both("copied", &copied);
    both("shared", &shared);
}

fn both<T: Serialize + DeserializeOwned>(how: &str, value: &T) {
    const COUNT: u32 = 200;
    let to = Target::Serial(42);
    let send = Direct { to: &to, from: 41, what: DirectKind::Send(NAME), value };
    let room = match send.encode_small(&mut BytesMut::new()).unwrap() {
        Fit::Whole => 0,
        Fit::TooLarge { at_least } => at_least,
    };
    let encode = || black_box(&send).encode_pieces(room).unwrap().len();
    measure_some(COUNT, &format!("  encode a message, {how}"), encode);
    let payload = Payload::encode(Codec::Bincode, value).unwrap();
    let decode = || black_box(&payload).decode::<T>().unwrap();
    measure_some(COUNT, &format!("  decode the body, {how}"), decode);
}

fn main() {
    measure("an allocation and its end, counted", || Box::new(black_box(7_u64)));
    message(64);
    message(1024);
    large(1 << 20);
}
