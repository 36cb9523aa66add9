//! A client on its node: one process that acts on its behalf.
//!
//! It ends with the client's connection, and everything it had with it. See
//! [`purlin_proto::session`] for what is said, and `guard.rs` for what a client may do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::admin::children::{
    EndChild, HandOverChildren, HostChild, KeepChildren, ReleaseChild, TakeChild,
};
use purlin_proto::admin::{
    self, DropHeldSnapshot, DropSnapshot, FollowKey, KeepSnapshot, ReleaseHeldKey, ReleaseKey,
    TakeKey,
};
use purlin_proto::limits::FRAME_BYTES;
use purlin_proto::session::{Request, Update};
use purlin_proto::{
    CallError, Codec, Down, ExitReason, Frame, GroupEvent, Message, Payload, Reference, Refusal,
    SpawnError,
};
use purlin_runtime::{Ended, Outcome, RawContext, RawKind, Received, Runtime};
use purlin_transport::{Flow, Frames, Link, Priority, Receiver, Sent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::guard::{Guard, Guards};

/// What nodes ask of each other when keys and children move: it would let a client take states away,
/// or forge them.
const BETWEEN_NODES: [&str; 13] = [
    TakeChild::NAME,
    ReleaseChild::NAME,
    ReleaseKey::NAME,
    ReleaseHeldKey::NAME,
    DropHeldSnapshot::NAME,
    TakeKey::NAME,
    FollowKey::NAME,
    KeepSnapshot::NAME,
    DropSnapshot::NAME,
    KeepChildren::NAME,
    HostChild::NAME,
    EndChild::NAME,
    HandOverChildren::NAME,
];

static SESSION: RawKind = RawKind::new("session");

/// Requests of one client that wait for its session; a client that is further ahead is cut off.
const REQUESTS: usize = 65_536;

/// Bytes that one client's requests may take up on this node: while they wait for its session, in
/// mailboxes, on their way. Beyond it, its calls are answered with `Overloaded` and its messages are
/// dropped and counted, until some have been handled.
const REQUEST_BYTES: usize = 2 * FRAME_BYTES;

/// And bytes that may wait for its session; a client that is further ahead is cut off.
const AHEAD_BYTES: usize = 2 * REQUEST_BYTES;

/// What a request takes up besides its body.
const OVERHEAD: usize = 256;

/// Calls and spawns of one client that go on at once, and monitors that it has; more are `Overloaded`,
/// or cut it off.
const AT_ONCE: usize = 65_536;

/// How long a session that is ended waits for answers that are still to come.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Opens a session for a client that has connected.
pub(crate) fn open(runtime: &Runtime, link: &Link, guards: &Arc<Guards>) -> Arc<dyn Receiver> {
    let (requests, waiting) = mpsc::channel(REQUESTS);
    let (session_link, guards) = (link.clone(), Arc::clone(guards));
    let held = Arc::new(Held::default());
    let counted = Arc::clone(&held);
    let spawned = runtime.spawn_raw(&SESSION, |ctx| {
        let guard = Guard::new(session_link.peer(), ctx.pid(), ctx.runtime(), guards);
        Session::new(ctx, session_link, waiting, counted, guard).run()
    });
    if spawned.is_err() {
        link.close(&Refusal::Stopping);
    }
    Arc::new(ClientReceiver { link: link.clone(), requests, held })
}

/// What a client's requests take up here.
#[derive(Default)]
struct Held {
    bytes: AtomicUsize,
}

/// The body of a request, counted as long as anybody has it.
struct Body {
    bytes: Bytes,
    held: Arc<Held>,
}

impl Held {
    fn add(self: &Arc<Self>, bytes: Bytes) -> Body {
        self.bytes.fetch_add(bytes.len() + OVERHEAD, Ordering::Relaxed);
        Body { bytes, held: Arc::clone(self) }
    }

    fn is_over(&self, most: usize) -> bool {
        self.bytes.load(Ordering::Relaxed) > most
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes.len() + OVERHEAD, Ordering::Relaxed);
    }
}

struct ClientReceiver {
    link: Link,
    requests: mpsc::Sender<Request>,
    held: Arc<Held>,
}

impl Receiver for ClientReceiver {
    fn frames(&self, frames: &Frames<'_>) {
        frames.owned().for_each(|(_, frame)| self.take(frame));
    }

    fn control(&self, _: Bytes) {
        self.violation("a control frame from a client");
    }

    fn datagram(&self, _: Bytes) {
        self.violation("a datagram from a client");
    }
}

impl ClientReceiver {
    fn take(&self, frame: Bytes) {
        match Frame::decode(frame) {
            Ok(Frame::Request(mut request)) => {
                if let Some(payload) = body_of(&mut request) {
                    let body = self.held.add(std::mem::take(&mut payload.bytes));
                    payload.bytes = Bytes::from_owner(body);
                }
                let full = match self.requests.try_send(request) {
                    Err(mpsc::error::TrySendError::Full(_)) => true,
                    // A session that has ended has closed the link, or is about to.
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => false,
                };
                if full || self.held.is_over(AHEAD_BYTES) {
                    tracing::warn!(client = %self.link.peer().name, "client too far ahead");
                    self.link.close(&Refusal::Busy);
                }
            }
            Ok(Frame::Ping) => {}
            Ok(_) => self.violation("a node's frame from a client"),
            Err(error) => self.violation(&error.to_string()),
        }
    }

    fn violation(&self, detail: &str) {
        tracing::warn!(client = %self.link.peer().name, detail, "protocol violation");
        self.link.close(&Refusal::Protocol { detail: detail.to_owned() });
    }
}

/// What of a request takes up memory for as long as it is not done.
fn body_of(request: &mut Request) -> Option<&mut Payload> {
    match request {
        Request::Send { payload, .. } | Request::Call { payload, .. } => Some(payload),
        Request::Spawn { args, .. } => Some(args),
        _ => None,
    }
}

struct Session {
    ctx: RawContext,
    link: Link,
    requests: mpsc::Receiver<Request>,
    /// The client's reference of each monitor by ours, and ours by the client's.
    theirs: BTreeMap<Reference, Reference>,
    ours: BTreeMap<Reference, Reference>,
    /// The client's reference of each monitor of a group by ours.
    groups: BTreeMap<Reference, Reference>,
    answers: JoinSet<Update>,
    guard: Guard,
    held: Arc<Held>,
}

impl Session {
    fn new(
        ctx: RawContext,
        link: Link,
        requests: mpsc::Receiver<Request>,
        held: Arc<Held>,
        guard: Guard,
    ) -> Self {
        let (theirs, ours, groups) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { ctx, link, requests, theirs, ours, groups, answers: JoinSet::new(), guard, held }
    }

    async fn run(mut self) -> Outcome {
        self.ctx.trap_exits(true);
        if let Some(introduction) = self.guard.introduction() {
            self.tell(introduction);
        }
        self.tell(Update::Welcome { session: self.ctx.pid() });
        loop {
            tokio::select! {
                biased;
                received = self.ctx.receive() => match received? {
                    Received::Exit { reason, .. } => return self.end(reason).await,
                    other => self.received(other),
                },
                Some(Ok(update)) = self.answers.join_next() => self.tell(update),
                request = self.requests.recv() => match request {
                    Some(request) => match self.guard.judge(&request).await {
                        Ok(()) => self.request(request),
                        Err(what) => self.forbid(request, what),
                    },
                    None => return Ok(()),
                },
            }
        }
    }

    /// Answers what was asked before this session is ended. When the node stops, whoever is asked
    /// ends as well, and answers or is gone; what asked the node to stop may be among it.
    async fn end(mut self, reason: ExitReason) -> Outcome {
        let answers = async {
            while let Some(Ok(update)) = self.answers.join_next().await {
                self.tell(update);
            }
        };
        // Who is asked elsewhere may take longer; the end of the session tells the client.
        drop(tokio::time::timeout(LAST_ANSWERS, answers).await);
        Err(Ended(reason).into())
    }

    fn tell(&self, update: Update) {
        // Answers to different questions need not wait for each other.
        let flow = match &update {
            Update::Reply { reference, .. } | Update::Spawned { reference, .. } => reference.0,
            _ => 0,
        };
        let flow = Flow(u32::try_from(flow % 1024).expect("small"));
        let reply = match &update {
            Update::Reply { reference, result: Ok(_) } => Some(*reference),
            _ => None,
        };
        let sent = match Frame::Update(update).to_bytes() {
            Ok(frame) => self.link.send_large(flow, Priority::System, frame),
            Err(_) => Sent::NotEncodable,
        };
        let error = match sent {
            // If the link is over, this session is about to end.
            Sent::Accepted | Sent::Unreachable => return,
            Sent::Full => CallError::Overloaded,
            Sent::NotEncodable => {
                let detail = "the reply is larger than a frame may be".to_owned();
                CallError::Decode { detail }
            }
        };
        match reply {
            Some(reference) => self.tell(Update::Reply { reference, result: Err(error) }),
            None => tracing::warn!(client = %self.link.peer().name, %error, "update dropped"),
        }
    }

    fn received(&mut self, received: Received) {
        match received {
            Received::Down(mut down) => {
                if let Some(theirs) = self.theirs.remove(&down.reference) {
                    self.ours.remove(&theirs);
                    down.reference = theirs;
                    self.tell(Update::Down(down));
                }
            }
            Received::Group(mut event) => {
                if let Some(theirs) = self.groups.get(&event.reference) {
                    event.reference = *theirs;
                    self.tell(Update::Group(event));
                }
            }
            Received::Message(message) => match message.into_payload(Codec::Bincode) {
                Ok((message, payload)) => self.tell(Update::Message { message, payload }),
                Err(error) => tracing::warn!(%error, "message for a client dropped"),
            },
            _ => {}
        }
    }

    fn forbid(&self, request: Request, what: String) {
        self.tell(match request {
            Request::Call { reference, .. } => {
                Update::Reply { reference, result: Err(CallError::Forbidden { what }) }
            }
            Request::Spawn { reference, .. } => {
                Update::Spawned { reference, result: Err(SpawnError::Forbidden { what }) }
            }
            Request::Monitor { reference, target } => {
                let reason = ExitReason::error(CallError::Forbidden { what }.to_string());
                Update::Down(Down { reference, target, reason })
            }
            _ => Update::Forbidden { what },
        });
    }

    /// Whether a request is not to be done, because what the client has asked for before takes up
    /// all it may, or it asks too often; it is told so.
    fn is_too_much(&self, request: &Request) -> bool {
        let much = self.held.is_over(REQUEST_BYTES) || self.answers.len() >= AT_ONCE;
        match request {
            Request::Send { .. } if self.held.is_over(REQUEST_BYTES) => {
                self.ctx.runtime().counters().client_ahead();
            }
            Request::Call { reference, .. } if much => {
                let result = Err(CallError::Overloaded);
                self.tell(Update::Reply { reference: *reference, result });
            }
            Request::Spawn { reference, .. } if much => {
                let result = Err(SpawnError::Overloaded);
                self.tell(Update::Spawned { reference: *reference, result });
            }
            Request::Monitor { .. } | Request::MonitorGroup { .. }
                if self.ours.len() + self.groups.len() >= AT_ONCE =>
            {
                tracing::warn!(client = %self.link.peer().name, "client has too many monitors");
                self.link.close(&Refusal::Busy);
            }
            request if self.guard.is_too_often(request) => {
                if let Request::Call { reference, .. } = request {
                    let result = Err(CallError::Overloaded);
                    self.tell(Update::Reply { reference: *reference, result });
                }
            }
            _ => return false,
        }
        true
    }

    /// Whether a request is not to be done, for only nodes may ask that of each other; it is told so.
    fn is_for_nodes(&self, request: &Request) -> bool {
        let (Request::Send { message, .. } | Request::Call { message, .. }) = request else {
            return false;
        };
        if !BETWEEN_NODES.contains(&message.as_str()) {
            return false;
        }
        tracing::warn!(client = %self.link.peer().name, %message, "a client says what only nodes may");
        if let Request::Call { reference, .. } = request {
            let (kind, message) = (admin::SYSTEM.to_owned(), message.as_str().to_owned());
            let result = Err(CallError::NotUnderstood { kind, message });
            self.tell(Update::Reply { reference: *reference, result });
        }
        true
    }

    fn request(&mut self, request: Request) {
        if self.is_for_nodes(&request) || self.is_too_much(&request) {
            return;
        }
        let runtime = self.ctx.runtime().clone();
        match request {
            Request::Send { to, message, payload } => runtime.send_encoded(to, message, payload),
            Request::Call { reference, to, remaining, message, payload } => {
                let answer = runtime.request_encoded(&to, message, payload, remaining);
                self.answers
                    .spawn(async move { Update::Reply { reference, result: answer.await } });
            }
            Request::Monitor { reference, target } => {
                let ours = self.ctx.monitor(target);
                self.theirs.insert(ours, reference);
                self.ours.insert(reference, ours);
            }
            Request::MonitorGroup { reference, group } => {
                let (ours, joined) = self.ctx.monitor_group(group.clone());
                self.groups.insert(ours, reference);
                let left = Vec::new();
                self.tell(Update::Group(GroupEvent { reference, group, joined, left }));
            }
            Request::Demonitor { reference } => {
                let of_group = self.groups.iter().find(|(_, theirs)| **theirs == reference);
                if let Some((ours, _)) = of_group.map(|(ours, theirs)| (*ours, *theirs)) {
                    self.groups.remove(&ours);
                    self.ctx.demonitor_group(ours);
                }
                if let Some(ours) = self.ours.remove(&reference) {
                    self.theirs.remove(&ours);
                    self.ctx.demonitor(ours);
                }
            }
            Request::Spawn { reference, kind, args, name, on, remaining } => {
                let on = on.unwrap_or_else(|| runtime.name());
                self.answers.spawn(async move {
                    let result = runtime.spawn_kind(on, kind, args, name, remaining).await;
                    Update::Spawned { reference, result }
                });
            }
            Request::Exit { target, reason } => runtime.exit(target, reason),
            _ => {}
        }
    }
}
