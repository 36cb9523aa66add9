//! Properties of what travels: whatever is sent, and however a stream chops it up, the far end
//! reads the same frames, and each flow in its order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use purlin_proto::Pieces;

use crate::bulk;
use crate::frames::Cut;
use crate::lanes::{BadEntry, Entry, Held, LARGE, Lane, Parser, Put};
use crate::link::{Flow, Priority};
use crate::reassembly::{Complete, Reassembly};

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

/// What a lane and the bulk streams carry of these frames.
fn encode(frames: &[Sent]) -> (Bytes, [Bytes; bulk::STREAMS]) {
    let lane = Arc::new(Lane::new(usize::MAX / 16));
    let outboxes = [(); bulk::STREAMS].map(|()| bulk::Outbox::default());
    for (number, sent) in frames.iter().enumerate() {
        let id = number as u64;
        let put = lane.put(sent.flow, Priority::User, || id, &mut |out| {
            out.extend_from_slice(&body(number, sent.size));
            true
        });
        match put {
            Put::Done => assert!(sent.size <= LARGE),
            Put::Bulk { id, frame } => {
                let outbox = &outboxes[number % bulk::STREAMS];
                outbox.push(id, in_pieces(frame), Arc::clone(&lane), sent.flow);
            }
            Put::Refused(_) | Put::Jammed => panic!("a lane without a bound is full"),
        }
    }
    let bulk = outboxes.map(|outbox| {
        let mut bulk = BytesMut::new();
        drop(outbox.finish());
        let mut batch = bulk::Batch::default();
        while at_once(outbox.next(&mut batch)).is_ok() {
            batch.bytes().iter().for_each(|bytes| bulk.extend_from_slice(bytes));
            batch.settle();
        }
        bulk.freeze()
    });
    let mut small = Vec::new();
    if !frames.is_empty() {
        let taken = at_once(lane.take(&mut small));
        taken.unwrap_or_else(|_| panic!("nobody has asked for the end"));
    }
    (small.concat().into(), bulk)
}

/// The far end of one lane and its bulk, as a link puts them together.
#[derive(Default)]
struct FarEnd {
    held: Held,
    reassembly: Reassembly,
    delivered: BTreeMap<Flow, Vec<Bytes>>,
}

impl FarEnd {
    fn entries(&mut self, chunk: &Bytes, entries: &[Entry]) -> Result<(), BadEntry> {
        entries.iter().try_for_each(|entry| self.entry(chunk, entry))
    }

    fn entry(&mut self, chunk: &Bytes, entry: &Entry) -> Result<(), BadEntry> {
        match entry {
            Entry::Frame(Cut { flow, at }) if self.held.holds(*flow) => {
                self.held.frame(*flow, chunk.slice(at.clone()));
            }
            Entry::Frame(Cut { flow, at }) => {
                self.delivered.entry(*flow).or_default().push(chunk.slice(at.clone()));
            }
            &Entry::Marker { flow, id, length } => {
                let bytes = self.reassembly.marker(0, flow, id, length)?;
                self.held.marker(flow, id, bytes);
                self.release(flow);
            }
        }
        Ok(())
    }

    fn chunk(&mut self, id: u64, total: usize, chunk: &[u8]) -> Result<(), BadEntry> {
        if let Some(Complete { flow, id, frame, .. }) = self.reassembly.chunk(id, total, chunk)? {
            self.held.complete(flow, id, frame);
            self.release(flow);
        }
        Ok(())
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
        turns in vec(0..=bulk::STREAMS, 1..20),
    ) {
        let (lane, bulk) = encode(&frames);
        let bulk = bulk.into_iter().map(|bulk| chop(bulk, &bulk_pieces));
        let mut streams: Vec<VecDeque<_>> =
            [chop(lane, &lane_pieces)].into_iter().chain(bulk).map(VecDeque::from).collect();
        let mut parser = Parser::default();
        let mut bulk_parsers = [(); bulk::STREAMS].map(|()| bulk::Parser::default());
        let mut far = FarEnd::default();

        for turn in turns.iter().cycle() {
            // The one whose turn it is, or the next that has something.
            let mut in_turn = (0..=bulk::STREAMS).map(|after| (turn + after) % (1 + bulk::STREAMS));
            let next = |stream: usize| Some((stream, streams[stream].pop_front()?));
            let Some((stream, piece)) = in_turn.find_map(next) else { break };
            let fed = match stream.checked_sub(1) {
                None => parser.feed(piece, |chunk, entries| far.entries(chunk, entries)),
                Some(bulk) => {
                    let give = |id, total, part: &[u8]| far.chunk(id, total, part);
                    bulk_parsers[bulk].feed(piece, give)
                }
            };
            fed.expect("well formed");
        }

        let mut expected: BTreeMap<Flow, Vec<Bytes>> = BTreeMap::new();
        for (number, sent) in frames.iter().enumerate() {
            expected.entry(sent.flow).or_default().push(body(number, sent.size));
        }
        prop_assert!(far.delivered == expected, "other frames, or in another order");
        prop_assert_eq!(far.held.bytes(), 0);
        prop_assert!(far.reassembly.is_idle());
    }

    #[test]
    fn bytes_that_nobody_has_encoded_are_refused_or_read_but_never_panic(
        bytes in vec(any::<u8>(), 0..4_000),
        pieces in pieces(),
    ) {
        let (mut parser, mut bulk_parser) = (Parser::default(), bulk::Parser::default());
        let mut far = FarEnd::default();
        let (mut lane, mut bulk) = (true, true);
        for piece in chop(bytes.into(), &pieces) {
            // After an error the link is closed.
            let give = |chunk: &Bytes, entries: &[Entry]| far.entries(chunk, entries);
            lane = lane && parser.feed(piece.clone(), give).is_ok();
            let give = |id, total, part: &[u8]| far.chunk(id, total, part);
            bulk = bulk && bulk_parser.feed(piece, give).is_ok();
        }
    }
}
