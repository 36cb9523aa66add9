//! Spreads what this node says of its processes (groups, topics, global names) and of itself (that it
//! is about to leave), and hands the runtime what others say. Part of the driver: what it hears of membership, this hears right after.
//!
//! Entries are encoded one by one. What cannot be decoded is of a newer node and means nothing here.

use std::sync::Arc;

use bytes::Bytes;
use purlin_cluster::Owned;
use purlin_cluster::owned::{Blob, Change, Input, Output};
use purlin_proto::limits::OWNED_ENTRY_BYTES;
use purlin_proto::{EntryKey, EntryValue, Frame, NodeId, Refusal, codec};
use purlin_runtime::Runtime;
use purlin_runtime::mutant::is_planted;
use purlin_transport::{Endpoint, Flow, Priority};
use serde::de::DeserializeOwned;
use tokio::time::{Duration, Instant};

use crate::directory::Directory;

pub(crate) struct Spread {
    pub(crate) owned: Owned,
    pub(crate) endpoint: Endpoint,
    pub(crate) runtime: Runtime,
    pub(crate) directory: Arc<Directory>,
    pub(crate) start: Instant,
    /// Somebody is about to leave, or not any more.
    pub(crate) draining_changed: bool,
}

impl Spread {
    pub(crate) fn new(
        owned: Owned,
        endpoint: &Endpoint,
        runtime: &Runtime,
        directory: &Arc<Directory>,
        start: Instant,
    ) -> Self {
        let (endpoint, runtime) = (endpoint.clone(), runtime.clone());
        let directory = Arc::clone(directory);
        Self { owned, endpoint, runtime, directory, start, draining_changed: false }
    }

    /// When [`tick`](Self::tick) is due, after the start.
    pub(crate) fn next_wake(&self) -> Duration {
        self.owned.next_wake()
    }

    pub(crate) fn tick(&mut self) {
        self.handle(Input::Tick);
    }

    pub(crate) fn up(&mut self, node: NodeId) {
        self.handle(Input::Up(node));
        self.note_reader(node);
    }

    pub(crate) fn down(&mut self, node: NodeId) {
        self.handle(Input::Down(node));
    }

    pub(crate) fn connected(&mut self, node: NodeId) {
        self.handle(Input::Connected(node));
    }

    pub(crate) fn disconnected(&mut self, node: NodeId) {
        self.handle(Input::Disconnected(node));
    }

    pub(crate) fn said(&mut self, from: NodeId, bytes: Bytes) {
        self.handle(Input::Said { from, bytes });
        self.note_reader(from);
    }

    fn note_reader(&self, node: NodeId) {
        if self.owned.has_read(&node) {
            self.directory.note_reader(node);
        }
    }

    pub(crate) fn reincarnated(&mut self, id: NodeId) {
        self.handle(Input::Reincarnated(id));
    }

    /// Entries of this node have changed.
    pub(crate) fn own_changed(&mut self) {
        let changes = self.runtime.take_entries().into_iter().filter_map(encode).collect();
        self.handle(Input::Own(changes));
    }

    fn handle(&mut self, input: Input) {
        self.owned.handle(self.start.elapsed(), input);
        while let Some(output) = self.owned.poll_output() {
            self.act(output);
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Say { to, bytes } => self.say(to, bytes),
            Output::Changed { owner, changes } => {
                let changes: Vec<_> = changes.iter().filter_map(decode).collect();
                for (key, value) in &changes {
                    if *key == EntryKey::Node {
                        let draining = *value == Some(EntryValue::Draining);
                        let news = self.directory.set_draining(owner.name, draining);
                        self.draining_changed |= news;
                    }
                }
                self.runtime.entries_changed(owner, changes);
            }
            Output::Vanished(_) if is_planted("phantom-entries") => {}
            Output::Vanished(owner) => self.runtime.entries_vanished(owner),
            Output::Violation { peer, detail } => {
                tracing::warn!(%peer, detail, "protocol violation");
                self.endpoint.close_peer(&peer, &Refusal::Protocol { detail });
            }
        }
    }

    fn say(&self, to: NodeId, bytes: Bytes) {
        if let Some(link) = self.endpoint.link(&to) {
            if let Ok(frame) = Frame::Owned(bytes).to_bytes() {
                // A control stream that is full this far is not read; what is lost is found later.
                let _ = link.send_control(frame);
            }
        } else if let (Some(place), Ok(ping)) =
            (self.directory.find(to.name).filter(|place| place.id == to), Frame::Ping.to_bytes())
        {
            // Makes a link, on which everything is said anew.
            let _ = self.endpoint.send_bytes(to, place.address, Flow(0), Priority::User, &ping);
        }
    }
}

fn encode((key, value): (EntryKey, Option<EntryValue>)) -> Option<Change> {
    let blob = |bytes: Bytes| Blob::from(&bytes[..]);
    let encoded = codec::to_bytes(&key).and_then(|key| {
        let value = value.as_ref().map(codec::to_bytes).transpose()?;
        Ok((blob(key), value.map(blob)))
    });
    // Names and lists have bounds, so this cannot happen; the wire checks it as well.
    encoded.inspect_err(|error| tracing::error!(?key, %error, "an entry cannot be encoded")).ok()
}

fn decode((key, value): &Change) -> Option<(EntryKey, Option<EntryValue>)> {
    let key = read(key)?;
    let value = value.as_deref().map(read);
    match value {
        Some(None) => None,
        Some(value) => Some((key, value)),
        None => Some((key, None)),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let read = codec::from_bytes(bytes, OWNED_ENTRY_BYTES);
    read.inspect_err(|error| tracing::debug!(%error, "an entry that is not understood")).ok()
}
