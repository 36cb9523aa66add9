//! Properties of what travels: whatever is sent, and however a stream chops it up, the far end
//! reads the same frames, and each flow in its order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use purlin_proto::Pieces;

use crate::bulk;
use crate::frames::Cut;
use crate::lanes::{Entry, Held, LARGE, Lane, Parser, Put};
use crate::link::{Flow, Priority};

/// A frame of a flow, whose content tells its number.
#[derive(Debug, Clone)]
struct Sent {
    flow: Flow,
    size: usize,
}

fn body(number: usize, size: usize) -> Bytes {
    Bytes::from(vec![u8::try_from(number % 251).expect("less"); size])
}

/// Small ones mostly, some at the border to the large, some large.
fn frames(most: usize) -> impl Strategy<Value = Vec<Sent>> {
    let size = prop_oneof![
        8 => 0_usize..200,
        1 => LARGE - 2..LARGE + 3,
        1 => LARGE..3 * LARGE,
    ];
    let sent = (0_u32..4, size).prop_map(|(flow, size)| Sent { flow: Flow(flow), size });
    vec(sent, 0..most)
}

/// Sizes of pieces, used in turn.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![3 => 1_usize..20, 1 => 1_000_usize..80_000], 1..20)
}

fn chop(mut bytes: Bytes, pieces: &[usize]) -> Vec<Bytes> {
    let mut chopped = Vec::new();
    for piece in pieces.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        chopped.push(bytes.split_to(bytes.len().min(*piece)));
    }
    chopped
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

/// The same frame as if a part of it were shared.
fn in_pieces(mut frame: Pieces) -> Pieces {
    let mut pieces = Pieces::default();
    for most in [30, LARGE - 5_000, usize::MAX] {
        pieces.push(frame.take(most));
    }
    pieces
}

/// What a lane and one bulk stream carry of these frames.
fn encode(frames: &[Sent]) -> (Bytes, Bytes) {
    let lane = Arc::new(Lane::new(usize::MAX / 16));
    let outbox = bulk::Outbox::default();
    for (number, sent) in frames.iter().enumerate() {
        let id = number as u64;
        let put = lane.put(sent.flow, Priority::User, || id, &mut |out| {
            out.extend_from_slice(&body(number, sent.size));
            true
        });
        match put {
            Put::Done => assert!(sent.size <= LARGE),
            Put::Bulk { id, frame } => {
                outbox.push(id, in_pieces(frame), Arc::clone(&lane), sent.flow);
            }
            Put::Refused(_) | Put::Jammed => panic!("a lane without a bound is full"),
        }
    }
    let mut bulk = BytesMut::new();
    drop(outbox.finish());
    let mut batch = bulk::Batch::default();
    while at_once(outbox.next(&mut batch)).is_ok() {
        batch.bytes().iter().for_each(|bytes| bulk.extend_from_slice(bytes));
        batch.settle();
    }
    let mut small = Vec::new();
    if !frames.is_empty() {
        let taken = at_once(lane.take(&mut small));
        taken.unwrap_or_else(|_| panic!("nobody has asked for the end"));
    }
    (small.concat().into(), bulk.freeze())
}

/// The far end of one lane and its bulk, as a link puts them together.
#[derive(Default)]
struct FarEnd {
    held: Held,
    markers: HashMap<u64, Flow>,
    complete: HashMap<u64, Bytes>,
    delivered: BTreeMap<Flow, Vec<Bytes>>,
}

impl FarEnd {
    fn entries(&mut self, chunk: &Bytes, entries: &[Entry]) {
        for entry in entries {
            self.entry(chunk, entry);
        }
    }

    fn entry(&mut self, chunk: &Bytes, entry: &Entry) {
        match entry {
            Entry::Frame(Cut { flow, at }) if self.held.holds(*flow) => {
                self.held.frame(*flow, chunk.slice(at.clone()));
            }
            Entry::Frame(Cut { flow, at }) => {
                self.delivered.entry(*flow).or_default().push(chunk.slice(at.clone()));
            }
            &Entry::Marker { flow, id, .. } => {
                let bytes = self.complete.remove(&id);
                if bytes.is_none() {
                    self.markers.insert(id, flow);
                }
                self.held.marker(flow, id, bytes);
                self.release(flow);
            }
        }
    }

    fn large(&mut self, id: u64, frame: Bytes) {
        match self.markers.remove(&id) {
            None => drop(self.complete.insert(id, frame)),
            Some(flow) => {
                self.held.complete(flow, id, frame);
                self.release(flow);
            }
        }
    }

    fn release(&mut self, flow: Flow) {
        while let Some(frame) = self.held.next(flow) {
            self.delivered.entry(flow).or_default().push(frame);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_flow_keeps_its_order_however_lanes_and_bulk_are_chopped_and_interleaved(
        frames in frames(30),
        lane_pieces in pieces(),
        bulk_pieces in pieces(),
        turns in vec(any::<bool>(), 1..20),
    ) {
        let (lane, bulk) = encode(&frames);
        let mut lane: VecDeque<_> = chop(lane, &lane_pieces).into();
        let mut bulk: VecDeque<_> = chop(bulk, &bulk_pieces).into();
        let (mut parser, mut bulk_parser) = (Parser::default(), bulk::Parser::default());
        let mut inbox = bulk::Inbox::default();
        let mut far = FarEnd::default();

        for lane_first in turns.iter().cycle() {
            let lane_turn = if lane.is_empty() || bulk.is_empty() { !lane.is_empty() } else { *lane_first };
            if lane_turn {
                let piece = lane.pop_front().expect("it is not empty");
                let give = |chunk: &Bytes, entries: &[Entry]| {
                    far.entries(chunk, entries);
                    Ok(())
                };
                parser.feed(piece, give).expect("well formed");
            } else if let Some(piece) = bulk.pop_front() {
                let give = |id, total, part: &[u8]| {
                    if let Some(frame) = inbox.chunk(id, total, part)? {
                        far.large(id, frame);
                    }
                    Ok(())
                };
                bulk_parser.feed(piece, give).expect("well formed");
            } else {
                break;
            }
        }

        let mut expected: BTreeMap<Flow, Vec<Bytes>> = BTreeMap::new();
        for (number, sent) in frames.iter().enumerate() {
            expected.entry(sent.flow).or_default().push(body(number, sent.size));
        }
        prop_assert!(far.delivered == expected, "other frames, or in another order");
        prop_assert_eq!(far.held.bytes(), 0);
        prop_assert!(far.markers.is_empty() && far.complete.is_empty());
    }

    #[test]
    fn bytes_that_nobody_has_encoded_are_refused_or_read_but_never_panic(
        bytes in vec(any::<u8>(), 0..4_000),
        pieces in pieces(),
    ) {
        let (mut parser, mut bulk_parser) = (Parser::default(), bulk::Parser::default());
        let (mut inbox, mut far) = (bulk::Inbox::default(), FarEnd::default());
        let (mut lane, mut bulk) = (true, true);
        for piece in chop(bytes.into(), &pieces) {
            // After an error the link is closed.
            let give = |chunk: &Bytes, entries: &[Entry]| {
                far.entries(chunk, entries);
                Ok(())
            };
            lane = lane && parser.feed(piece.clone(), give).is_ok();
            bulk = bulk && bulk_parser
                .feed(piece, |id, total, part| inbox.chunk(id, total, part).map(drop))
                .is_ok();
        }
    }
}
