//! Lanes: how small frames travel, in order and in batches.
//!
//! A connection has a few lanes, each one long-lived stream. A frame belongs to a flow, and a flow
//! to the lane of its number; frames of one flow leave in the order they are put in. Whoever sends
//! encodes straight into the lane's buffer; the lane's writer takes all of it at once, so batches
//! are as large as what is ready, and nothing waits for a timer.
//!
//! # An entry
//!
//! ```text
//! u32 length | u32 flow | frame                      a frame of `length` bytes
//! u32 2^31   | u32 flow | u64 bulk id | u32 length   a marker: the frame comes as bulk
//! ```
//!
//! all little-endian.
//!
//! # What a full lane refuses
//!
//! A lane holds so many bytes of small frames that the wire has not taken, and beside them some
//! large ones. Users' frames beyond that are refused; their senders wait or drop them. One flow
//! cannot fill a lane on its own: it may put in as much as it leaves free (a dynamic threshold;
//! Choudhury and Hahne, 1998), so a process that floods its lane has half of it, and whoever sends
//! little finds room. A large frame counts for its own flow and for other large ones, never for
//! small frames of others. System frames are bounded by what processes have asked for; they are
//! taken where users are refused.
//!
//! # Why a large frame cannot overtake, or be overtaken
//!
//! A frame above [`LARGE`] leaves the lane: its bytes go in chunks over a bulk stream, and a marker
//! with its id takes its place in the lane. On the far side the lane is read in order. At a marker
//! the flow is held: what follows of *this flow* waits behind it, other flows of the lane go on.
//! When the bytes are complete they are delivered, then what waited, under the lock of the lane's
//! held flows, which the lane's reader takes as well before it delivers; so a later frame of the
//! flow finds it either held and queues, or free and everything before it delivered. Bytes that are
//! complete before their marker comes wait for it. If the connection is lost in between, the large
//! frame and all after it of its flow are lost: a prefix has been delivered.
//!
//! # Why nothing overtakes at a reconnect
//!
//! A flow has one lane as long as a connection lasts. When it is lost, what had not arrived is lost
//! from some point on of each flow; nothing is sent again, because nobody could tell whether it has
//! arrived. The new connection's frames are delivered after the end of the old one has been told
//! (`endpoint.rs` `establish`), which is after the last of its frames; so they follow a prefix.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{Notify, oneshot};

use purlin_proto::Pieces;
use purlin_proto::limits::{FRAME_BYTES, SMALL_FRAME_BYTES};

use crate::finish::{Finish, Finished};
use crate::frames::Cut;
use crate::link::{Flow, Priority, Sent};

/// Frames above this many bytes travel as bulk.
pub(crate) const LARGE: usize = SMALL_FRAME_BYTES;

const MARKER: u32 = 1 << 31;
pub(crate) const HEAD: usize = 8;
const MARKER_BODY: usize = 12;

/// Large frames of a lane may wait up to this many times its bound.
const BULK_FACTOR: usize = 4;

/// Whoever waits to send one is woken when so many times its bound are left, not for each that leaves:
/// many may wait.
const BULK_WAKE_FACTOR: usize = 3;

/// System frames may fill a lane up to this many times what users may. Small ones beyond that mean
/// that the far end is not reading at all, and the connection is given up; large ones are refused.
const SYSTEM_FACTOR: usize = 8;

/// Flows are counted in this many groups.
const GROUPS: usize = 64;

/// The sending side of a lane.
pub(crate) struct Lane {
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
    finish: Finish,
    limit: usize,
}

struct State {
    ready: Ready,
    /// What of it is of which group of flows.
    groups: [usize; GROUPS],
    /// Bytes taken by the writer that the stream has not accepted yet.
    writing: usize,
    /// Bytes of large frames of this lane that are still to be sent, in all and by flow.
    bulk: usize,
    bulk_of: FxHashMap<Flow, usize>,
    /// Flows whose last frame was large and refused.
    bulk_wanted: FxHashSet<Flow>,
    closed: bool,
}

/// What putting a frame into a lane led to.
pub(crate) enum Put {
    Done,
    /// It is large: its marker is in the lane, these are its bytes.
    Bulk {
        id: u64,
        frame: Pieces,
    },
    Refused(Sent),
    /// System frames fill it without end.
    Jammed,
}

/// A chunk of entries while more than one is ready, and the first one.
const CHUNK: usize = 64 << 10;
const FIRST_CHUNK: usize = 4 << 10;

/// Room that an entry of unknown size is given.
const ENTRY: usize = 512;

/// Entries that are ready to be written, in chunks: so none is copied because others come, and the
/// allocator has the same few sizes again and again.
#[derive(Default)]
struct Ready {
    full: Vec<Bytes>,
    full_bytes: usize,
    open: BytesMut,
    /// The size of the entry before, which the next is probably like.
    last: usize,
}

impl Ready {
    fn len(&self) -> usize {
        self.full_bytes + self.open.len()
    }

    /// Where the next entry is to be appended.
    fn entry(&mut self) -> &mut BytesMut {
        let wanted = (2 * self.last).max(ENTRY);
        if self.open.capacity() - self.open.len() < wanted {
            let size = if self.len() == 0 { FIRST_CHUNK } else { CHUNK };
            let full = std::mem::replace(&mut self.open, BytesMut::with_capacity(size.max(wanted)));
            if !full.is_empty() {
                self.full_bytes += full.len();
                self.full.push(full.freeze());
            }
        }
        &mut self.open
    }

    fn take(&mut self, batch: &mut Vec<Bytes>) {
        batch.append(&mut self.full);
        self.full_bytes = 0;
        if !self.open.is_empty() {
            batch.push(self.open.split().freeze());
        }
    }
}

impl State {
    fn small(&self) -> usize {
        self.ready.len() + self.writing
    }

    /// Whether users of a flow may put a frame in, as far as can be told before it is made. One that
    /// was refused a large frame may when fewer bytes of large ones wait than `bulk_limit`.
    fn has_room(&self, flow: Flow, limit: usize, bulk_limit: usize) -> bool {
        let free = limit.saturating_sub(self.small());
        let own_bulk = || self.bulk_of.get(&flow).copied().unwrap_or(0);
        let bulk_full = || self.bulk >= bulk_limit && self.bulk_wanted.contains(&flow);
        self.groups[group(flow)] < free && (self.bulk == 0 || (own_bulk() < limit && !bulk_full()))
    }
}

impl State {
    /// Puts in the marker of a large frame, if there may be one more.
    fn mark(&mut self, flow: Flow, limit: usize, id: impl FnOnce() -> u64, body: Pieces) -> Put {
        let length = body.len();
        if length > FRAME_BYTES {
            return Put::Refused(Sent::NotEncodable);
        }
        if self.bulk >= limit {
            self.bulk_wanted.insert(flow);
            return Put::Refused(Sent::Full);
        }
        let id = id();
        let entry = self.ready.entry();
        entry.put_u64_le(u64::from(flow.0) << 32 | u64::from(MARKER));
        entry.put_u64_le(id);
        entry.put_u32_le(u32::try_from(length).expect("FRAME_BYTES fits"));
        self.bulk += length;
        *self.bulk_of.entry(flow).or_default() += length;
        self.bulk_wanted.remove(&flow);
        Put::Bulk { id, frame: body }
    }
}

fn group(flow: Flow) -> usize {
    flow.0 as usize / 16 % GROUPS
}

/// System frames enter while fewer bytes of small frames wait than this.
pub(crate) fn most_system(limit: usize) -> usize {
    limit.saturating_mul(SYSTEM_FACTOR)
}

/// The most bytes of small frames that a lane of this bound may hold.
pub(crate) fn most_small(limit: usize) -> usize {
    most_system(limit).saturating_add(HEAD + LARGE)
}

/// Likewise of large frames.
pub(crate) fn most_large(limit: usize) -> usize {
    limit.saturating_mul(BULK_FACTOR * SYSTEM_FACTOR).saturating_add(FRAME_BYTES)
}

/// Takes back what was written of an entry, also if the user's code that encodes it panics; unless
/// it has become whole.
struct Torn<'a> {
    ready: &'a mut BytesMut,
    start: usize,
    whole: bool,
}

impl Drop for Torn<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.ready.truncate(self.start);
        }
    }
}

/// Appends an entry; the length of the frame, if it is one.
fn encode_entry(
    ready: &mut BytesMut,
    flow: Flow,
    encode: &mut dyn FnMut(&mut BytesMut) -> bool,
) -> Option<usize> {
    let start = ready.len();
    let mut torn = Torn { ready, start, whole: false };
    torn.ready.put_u64_le(u64::from(flow.0) << 32);
    let encoded = encode(torn.ready);
    let length = torn.ready.len() - start - HEAD;
    torn.whole = encoded && length <= FRAME_BYTES;
    torn.whole.then_some(length)
}

impl Lane {
    /// Bytes of small frames and of large ones.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let state = self.lock();
        (state.small(), state.bulk)
    }

    pub(crate) fn new(limit: usize) -> Self {
        let state = State {
            ready: Ready::default(),
            groups: [0; GROUPS],
            writing: 0,
            bulk: 0,
            bulk_of: FxHashMap::default(),
            bulk_wanted: FxHashSet::default(),
            closed: false,
        };
        let (wake, room) = (Notify::new(), Notify::new());
        Self { state: Mutex::new(state), wake, room, finish: Finish::default(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the caller encode a frame into the lane. `id` names it if it turns out to be large.
    pub(crate) fn put(
        &self,
        flow: Flow,
        priority: Priority,
        id: impl FnOnce() -> u64,
        encode: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Put {
        let mut state = self.lock();
        let bulk_limit = match self.admit(&state, flow, priority) {
            Ok(bulk_limit) => bulk_limit,
            Err(refused) => return refused,
        };
        let before = state.ready.len();
        let entry = state.ready.entry();
        let start = entry.len();
        let Some(length) = encode_entry(entry, flow, encode) else {
            return Put::Refused(Sent::NotEncodable);
        };
        let length_word = u32::try_from(length).expect("FRAME_BYTES fits");
        let put = if length <= LARGE {
            set_length(entry, start, length_word);
            state.ready.last = HEAD + length;
            Put::Done
        } else {
            let body = entry.split_off(start + HEAD).freeze();
            entry.truncate(start);
            state.mark(flow, bulk_limit, id, body.into())
        };
        self.added(state, flow, before);
        put
    }

    /// Puts the marker of a large frame into the lane, which has been encoded elsewhere.
    pub(crate) fn put_large(
        &self,
        flow: Flow,
        priority: Priority,
        id: impl FnOnce() -> u64,
        frame: Pieces,
    ) -> Put {
        let mut state = self.lock();
        let bulk_limit = match self.admit(&state, flow, priority) {
            Ok(bulk_limit) => bulk_limit,
            Err(refused) => return refused,
        };
        let before = state.ready.len();
        let put = state.mark(flow, bulk_limit, id, frame);
        self.added(state, flow, before);
        put
    }

    /// Whether a frame may come in; then, how much of large ones may wait.
    fn admit(&self, state: &State, flow: Flow, priority: Priority) -> Result<usize, Put> {
        if state.closed {
            return Err(Put::Refused(Sent::Unreachable));
        }
        let bulk = self.limit.saturating_mul(BULK_FACTOR);
        match priority {
            Priority::User if !state.has_room(flow, self.limit, bulk) => {
                Err(Put::Refused(Sent::Full))
            }
            Priority::System if state.small() >= most_system(self.limit) => Err(Put::Jammed),
            Priority::User => Ok(bulk),
            Priority::System => Ok(bulk.saturating_mul(SYSTEM_FACTOR)),
        }
    }

    /// Counts what was added, and wakes the writer if there was nothing before: else whoever found
    /// nothing has, and the writer takes all there is.
    fn added(&self, mut state: MutexGuard<'_, State>, flow: Flow, before: usize) {
        let added = state.ready.len() - before;
        state.groups[group(flow)] += added;
        drop(state);
        if before == 0 && added > 0 {
            self.wake.notify_one();
        }
    }

    /// Moves everything that is ready into `batch`, for the writer; waits for something. When nothing
    /// is ready and the stream is to be finished, whom to tell.
    pub(crate) async fn take(&self, batch: &mut Vec<Bytes>) -> Result<(), Finished> {
        loop {
            {
                let mut state = self.lock();
                state.writing = 0;
                if state.ready.len() > 0 {
                    state.writing = state.ready.len();
                    state.ready.take(batch);
                    state.groups = [0; GROUPS];
                    drop(state);
                    self.room.notify_waiters();
                    return Ok(());
                }
            }
            if let Some(finished) = self.finish.wanted() {
                return Err(finished);
            }
            self.room.notify_waiters();
            self.wake.notified().await;
        }
    }

    fn bulk_wake(&self) -> usize {
        self.limit.saturating_mul(BULK_WAKE_FACTOR)
    }

    /// So many bytes of a large frame have left. Those who wait are woken if that makes a difference
    /// to any of them.
    pub(crate) fn bulk_sent(&self, flow: Flow, bytes: usize) {
        let mut state = self.lock();
        let before = state.bulk;
        state.bulk = before.saturating_sub(bytes);
        let wake = self.bulk_wake();
        let mut room = state.bulk == 0 || (before >= wake && state.bulk < wake);
        if let Some(of_flow) = state.bulk_of.get_mut(&flow) {
            let before = *of_flow;
            *of_flow = before.saturating_sub(bytes);
            room |= before >= self.limit && *of_flow < self.limit;
            if *of_flow == 0 {
                state.bulk_of.remove(&flow);
            }
        }
        drop(state);
        if room {
            self.room.notify_waiters();
        }
    }

    /// Returns when a frame of this flow may fit, or the lane is closed. Cancel safe.
    pub(crate) async fn ready(&self, flow: Flow) {
        self.until(|state| state.has_room(flow, self.limit, self.bulk_wake())).await;
    }

    /// Returns when everything has been handed to the streams.
    pub(crate) async fn drained(&self) {
        self.until(|state| state.small() + state.bulk == 0).await;
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let state = self.lock();
                if state.closed || condition(&state) {
                    return;
                }
            }
            room.await;
        }
    }

    /// Asks for the stream to be finished when all has been sent.
    pub(crate) fn finish(&self) -> oneshot::Receiver<()> {
        let finished = self.finish.ask();
        self.wake.notify_one();
        finished
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_waiters();
    }
}

fn set_length(buffer: &mut BytesMut, at: usize, length: u32) {
    buffer[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// One entry of a lane as it was read; a frame by its place in the chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Frame(Cut),
    Marker { flow: Flow, id: u64, length: usize },
}

/// The far end sent something that is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadEntry(pub(crate) String);

/// Cuts what a lane carries into entries, however it was chopped up on the way.
#[derive(Default)]
pub(crate) struct Parser {
    rest: BytesMut,
    entries: Vec<Entry>,
}

impl Parser {
    /// Gives every entry that is complete with this chunk, and where it lies: what was begun in the
    /// chunk before comes in a chunk of its own.
    pub(crate) fn feed(
        &mut self,
        mut chunk: Bytes,
        mut give: impl FnMut(&Bytes, &[Entry]) -> Result<(), BadEntry>,
    ) -> Result<(), BadEntry> {
        while !self.rest.is_empty() && !chunk.is_empty() {
            let want = entry_size(&self.rest)?.unwrap_or(HEAD);
            let take = want.saturating_sub(self.rest.len()).min(chunk.len());
            self.rest.extend_from_slice(&chunk.split_to(take));
            if entry_size(&self.rest)?.is_some_and(|size| self.rest.len() >= size) {
                let whole = self.rest.split().freeze();
                give(&whole, &[parse(&whole, 0, whole.len())])?;
            }
        }
        self.entries.clear();
        let mut at = 0;
        while let Some(size) = entry_size(&chunk[at..])?.filter(|&size| chunk.len() - at >= size) {
            self.entries.push(parse(&chunk, at, size));
            at += size;
        }
        self.rest.extend_from_slice(&chunk[at..]);
        if self.entries.is_empty() { Ok(()) } else { give(&chunk, &self.entries) }
    }
}

/// The size of the entry that these bytes begin, if they tell it.
fn entry_size(bytes: &[u8]) -> Result<Option<usize>, BadEntry> {
    let Some(word) = bytes.first_chunk::<4>().map(|word| u32::from_le_bytes(*word)) else {
        return Ok(None);
    };
    match word {
        MARKER => Ok(Some(HEAD + MARKER_BODY)),
        length if usize::try_from(length).is_ok_and(|length| length <= LARGE) => {
            Ok(Some(HEAD + length as usize))
        }
        length => Err(BadEntry(format!("an entry of {length} bytes in a lane"))),
    }
}

/// An entry that lies in these bytes.
fn parse(bytes: &[u8], at: usize, size: usize) -> Entry {
    let mut entry = &bytes[at..at + size];
    let word = entry.get_u32_le();
    let flow = Flow(entry.get_u32_le());
    if word == MARKER {
        let id = entry.get_u64_le();
        Entry::Marker { flow, id, length: entry.get_u32_le() as usize }
    } else {
        Entry::Frame(Cut { flow, at: at + HEAD..at + size })
    }
}

/// What a frame takes up besides its bytes while it waits; an empty one does, too.
const WAITING_BYTES: usize = 64;

/// The flows of one lane that wait for a large frame, and what waits behind it.
#[derive(Default)]
pub(crate) struct Held {
    flows: FxHashMap<Flow, VecDeque<Waiting>>,
    bytes: usize,
}

#[derive(Debug)]
enum Waiting {
    Frame(Bytes),
    Bulk { id: u64, bytes: Option<Bytes> },
}

impl Held {
    /// How many bytes wait, with what keeping them costs.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether what comes of this flow is to wait.
    pub(crate) fn holds(&self, flow: Flow) -> bool {
        !self.flows.is_empty() && self.flows.contains_key(&flow)
    }

    /// A frame of a flow that is held has come.
    pub(crate) fn frame(&mut self, flow: Flow, frame: Bytes) {
        self.bytes += frame.len() + WAITING_BYTES;
        self.flows.entry(flow).or_default().push_back(Waiting::Frame(frame));
    }

    /// A marker of this flow has come, with its bytes if they are complete already.
    pub(crate) fn marker(&mut self, flow: Flow, id: u64, bytes: Option<Bytes>) {
        self.bytes += bytes.as_ref().map_or(0, Bytes::len) + WAITING_BYTES;
        self.flows.entry(flow).or_default().push_back(Waiting::Bulk { id, bytes });
    }

    /// The bytes of a large frame of this flow are complete.
    pub(crate) fn complete(&mut self, flow: Flow, id: u64, complete: Bytes) {
        let queue = self.flows.get_mut(&flow).into_iter().flatten();
        for waiting in queue {
            match waiting {
                Waiting::Bulk { id: found, bytes } if *found == id => {
                    self.bytes += complete.len();
                    *bytes = Some(complete);
                    return;
                }
                Waiting::Bulk { .. } | Waiting::Frame(_) => {}
            }
        }
    }

    /// Takes what may be delivered of this flow, in order; the flow is free when nothing is left.
    pub(crate) fn next(&mut self, flow: Flow) -> Option<Bytes> {
        let queue = self.flows.get_mut(&flow)?;
        let ready = match queue.front() {
            Some(Waiting::Bulk { bytes: None, .. }) => return None,
            Some(Waiting::Frame(_) | Waiting::Bulk { .. }) => queue.pop_front(),
            None => None,
        };
        let frame = match ready {
            Some(Waiting::Frame(frame) | Waiting::Bulk { bytes: Some(frame), .. }) => frame,
            Some(Waiting::Bulk { bytes: None, .. }) | None => {
                self.flows.remove(&flow);
                return None;
            }
        };
        self.bytes -= frame.len() + WAITING_BYTES;
        if queue.is_empty() {
            self.flows.remove(&flow);
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    const LIMIT: usize = 1 << 16;

    fn put(lane: &Lane, flow: u32, bytes: usize) -> Put {
        lane.put(Flow(flow), Priority::User, || 1, &mut |out| {
            out.put_bytes(7, bytes);
            true
        })
    }

    /// Whether one who waits has been woken, and need not wait again.
    fn is_woken(waits: Pin<&mut impl Future<Output = ()>>) -> bool {
        waits.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn is_full(put: &Put) -> bool {
        matches!(put, Put::Refused(Sent::Full))
    }

    #[test]
    fn one_flow_that_floods_leaves_room_for_others() {
        let lane = Lane::new(LIMIT);
        let flood = (0..LIMIT).take_while(|_| !is_full(&put(&lane, 0, 100))).count();

        assert!((LIMIT / 2 - 200..LIMIT / 2 + 200).contains(&(flood * 108)), "{flood}");
        assert!((0..50).all(|_| !is_full(&put(&lane, 16, 100))), "another has room");
    }

    #[test]
    fn a_large_frame_takes_no_room_from_small_ones_of_others() {
        let lane = Lane::new(LIMIT);
        assert!(matches!(put(&lane, 0, 40 * LIMIT), Put::Bulk { .. }));

        assert!(is_full(&put(&lane, 0, 100)), "its own flow has enough under way");
        assert!(!is_full(&put(&lane, 16, 100)));
        assert!(is_full(&put(&lane, 16, 2 * LIMIT)), "there are large ones enough");
        lane.bulk_sent(Flow(0), 40 * LIMIT);
        assert!(!is_full(&put(&lane, 0, 100)));
        assert!(!is_full(&put(&lane, 16, 2 * LIMIT)));
    }

    /// Of many who wait to send large frames none is woken for each that leaves, and all are in time.
    #[tokio::test]
    async fn who_was_refused_a_large_frame_is_woken_when_a_quarter_is_free() {
        let lane = Lane::new(LIMIT);
        let large = 2 * LIMIT;
        assert!(matches!(put(&lane, 0, large), Put::Bulk { .. }));
        assert!(matches!(put(&lane, 1, large), Put::Bulk { .. }));
        assert!(is_full(&put(&lane, 2, large)));
        let mut ready = std::pin::pin!(lane.ready(Flow(2)));
        assert!(!is_woken(ready.as_mut()));

        lane.bulk_sent(Flow(0), LIMIT / 2);
        assert!(!is_woken(ready.as_mut()), "room for one who comes, but not for all who wait");
        lane.bulk_sent(Flow(0), LIMIT);
        assert!(is_woken(ready.as_mut()));
        assert!(matches!(put(&lane, 2, large), Put::Bulk { .. }));

        // Its own flow has enough under way, until it has not.
        let mut ready = std::pin::pin!(lane.ready(Flow(1)));
        assert!(!is_woken(ready.as_mut()));
        lane.bulk_sent(Flow(1), large - LIMIT);
        assert!(!is_woken(ready.as_mut()));
        lane.bulk_sent(Flow(1), 1);
        assert!(is_woken(ready.as_mut()));
    }

    /// Of what panics nothing stays, and what others put comes through, whether or not the writer
    /// was idle.
    #[tokio::test]
    async fn a_panic_while_encoding_leaves_nothing_in_the_lane() {
        let lane = Lane::new(LIMIT);
        for others in [0, 2] {
            for _ in 0..others {
                put(&lane, 1, 50);
            }
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                lane.put(Flow(0), Priority::User, || 1, &mut |out| {
                    out.put_bytes(7, 20);
                    panic!("in the user's code")
                })
            }));
            assert!(panicked.is_err());
            put(&lane, 2, 100);

            let mut batch = Vec::new();
            let next =
                tokio::time::timeout(std::time::Duration::from_secs(5), lane.take(&mut batch));
            assert!(next.await.expect("the writer is woken").is_ok());
            let bytes: usize = batch.iter().map(Bytes::len).sum();
            assert_eq!(bytes, others * (HEAD + 50) + HEAD + 100);
        }
    }
}
