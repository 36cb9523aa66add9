//! How processes begin and end.
//!
//! A process is a tokio task around its body. The body is dropped, or has returned, before anything
//! about its end is told: whoever gets a `Down` can rely on it that the process does nothing more,
//! and that its name is free.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;
use purlin_proto::admin::{CALL_TIMEOUT, What};
use purlin_proto::{
    Codec, Dest, Envelope, ExitReason, Name, NodeName, Payload, Pid, Reference, Signal, Spawn,
    SpawnError, Target,
};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use crate::actor::{Actor, Outcome};
use crate::context::{Context, run_actor};
use crate::current::{self, Enter};
use crate::hosted::Hosted;
use crate::inflow::Connection;
use crate::mailbox::Mailbox;
use crate::panics;
use crate::pending::{Newborn, Wanted};
use crate::process::{Birth, Class, Process, Starter};
use crate::raw::RawContext;
use crate::refs::Ref;
use crate::registry::clean_up;
use crate::relations::{Address, Monitoring, Relations};
use crate::remote::{Peer, Priority, Sent};
use crate::runtime::{Runtime, lock};
use crate::timer::LONGEST;
use crate::watchdog::Polling;

/// What a new process is to be to others.
#[derive(Default)]
pub(crate) struct SpawnOptions {
    pub(crate) name: Option<Name>,
    pub(crate) parent: Option<Pid>,
    pub(crate) link: Option<Address>,
    pub(crate) monitor: Option<(Address, Reference)>,
    /// Told when it has started, before it does anything more.
    pub(crate) announce: Option<Announce>,
    /// It is a child of a cluster supervisor.
    pub(crate) hosted: Option<Box<Hosted>>,
    /// The connection that it was asked for over, and that what it is to others depends on.
    pub(crate) over: Option<Connection>,
}

/// Tells once how a start has ended.
#[derive(Clone)]
pub(crate) struct Announce(Arc<Mutex<Option<Tell>>>);

type Tell = Box<dyn FnOnce(Result<u64, SpawnError>) + Send>;

impl Announce {
    pub(crate) fn new(tell: impl FnOnce(Result<u64, SpawnError>) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(tell)))))
    }

    pub(crate) fn tell(&self, started: Result<u64, SpawnError>) {
        let tell = lock(&self.0).take();
        if let Some(tell) = tell {
            tell(started);
        }
    }
}

impl Runtime {
    /// Starts an actor and waits until its [`start`](Actor::start) has returned.
    ///
    /// Cancel safe in that nothing leaks: the process starts all the same.
    pub async fn spawn<A: Actor>(&self, args: A::Args) -> Result<Ref<A>, SpawnError> {
        let process = self.start_actor::<A>(args, self.options()).await?;
        Ok(Ref::to(process))
    }

    /// As [`spawn`](Self::spawn), under a name from the first moment.
    pub async fn spawn_named<A: Actor>(
        &self,
        name: impl Into<Name>,
        args: A::Args,
    ) -> Result<Ref<A>, SpawnError> {
        let options = SpawnOptions { name: Some(name.into()), ..self.options() };
        let process = self.start_actor::<A>(args, options).await?;
        Ok(Ref::to(process))
    }

    /// Starts an actor on another node, which must know its kind, with the default timeout of 5 s.
    pub async fn spawn_on<A: Actor>(
        &self,
        node: &NodeName,
        args: A::Args,
    ) -> Result<Ref<A>, SpawnError> {
        if *node == self.name() {
            return self.spawn::<A>(args).await;
        }
        let payload = encode_args(Codec::Bincode, &args)?;
        let kind = kind_name(A::KIND)?;
        let pid = self.request_spawn(*node, kind, payload, None, CALL_TIMEOUT).await?;
        Ok(Ref::to_pid(self, pid))
    }

    /// Starts a process of a kind by its name, here or on another node: what the command line does.
    pub async fn spawn_kind(
        &self,
        node: NodeName,
        kind: Name,
        args: Payload,
        name: Option<Name>,
        timeout: Duration,
    ) -> Result<Pid, SpawnError> {
        if node != self.name() {
            return self.request_spawn(node, kind, args, name, timeout).await;
        }
        let Some(found) = self.kind(kind.as_str()) else {
            return Err(SpawnError::UnknownKind {
                kind: kind.to_string(),
                known: self.kinds().names(),
            });
        };
        let options = SpawnOptions { name, ..self.options() };
        let started = found.spawn(self.clone(), args, options);
        let process =
            tokio::time::timeout(timeout, started).await.unwrap_or(Err(SpawnError::Timeout))?;
        Ok(process.pid())
    }

    async fn request_spawn(
        &self,
        node: NodeName,
        kind: Name,
        args: Payload,
        name: Option<Name>,
        timeout: Duration,
    ) -> Result<Pid, SpawnError> {
        let newborn = Newborn { parent: self.sender(), link: false, monitor: None };
        self.request(node, kind, args, name, timeout, newborn).await
    }

    async fn request(
        &self,
        node: NodeName,
        kind: Name,
        args: Payload,
        name: Option<Name>,
        timeout: Duration,
        newborn: Newborn,
    ) -> Result<Pid, SpawnError> {
        let deadline = Instant::now() + timeout.min(LONGEST);
        let reference = self.reference();
        let (link, monitor) = (newborn.link, newborn.monitor);
        let spawn = Spawn { reference, kind, args, name, link, monitor, remaining: timeout };
        let signal = Signal::Spawn(spawn);
        let envelope = Envelope { to: Target::Node, from: newborn.parent, signal };
        let receiver = loop {
            let (asker, receiver) = oneshot::channel();
            let wanted = Wanted::Spawned { asker, newborn, sent: false };
            self.0.pending.insert(reference, node, wanted);
            let sent = self.send_remote(Peer::Name(node), &envelope, Priority::User);
            if sent == Sent::Accepted {
                self.0.pending.sent(reference);
                break receiver;
            }
            self.0.pending.unsent(reference);
            match sent {
                Sent::Full => {
                    let room = self.room_by(Peer::Name(node), &Target::Node, deadline).await;
                    room.map_err(|_| SpawnError::Overloaded)?;
                }
                Sent::NotEncodable => {
                    let detail = "larger than a frame may be".to_owned();
                    return Err(SpawnError::Args { detail });
                }
                Sent::Accepted | Sent::Unreachable | Sent::Gone => {
                    return Err(SpawnError::NoConnection);
                }
            }
        };
        let _forget = Forget { runtime: self, reference };
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(SpawnError::NoConnection),
            Err(_) => Err(SpawnError::Timeout),
        }
    }

    /// Spawning by a process, with what relates the two.
    pub(crate) async fn spawn_by<B: Actor>(
        &self,
        by: &Arc<Process>,
        args: B::Args,
        node: Option<NodeName>,
        link: bool,
        monitor: Option<Reference>,
    ) -> Result<Ref<B>, SpawnError> {
        if let Some(node) = node.filter(|&node| node != self.name()) {
            let args = encode_args(Codec::Bincode, &args)?;
            let newborn = Newborn { parent: by.serial, link, monitor };
            let kind = kind_name(B::KIND)?;
            let pid = self.request(node, kind, args, None, CALL_TIMEOUT, newborn).await?;
            return Ok(Ref::to_pid(self, pid));
        }
        let me = Address::Local(by.serial);
        let options = SpawnOptions {
            parent: Some(by.pid()),
            link: link.then_some(me),
            monitor: monitor.map(|reference| (me, reference)),
            ..SpawnOptions::default()
        };
        Ok(Ref::to(self.start_actor::<B>(args, options).await?))
    }

    fn options(&self) -> SpawnOptions {
        SpawnOptions { parent: self.current_pid(), ..SpawnOptions::default() }
    }

    fn current_pid(&self) -> Option<Pid> {
        match self.sender() {
            0 => None,
            serial => Some(self.id().pid(serial)),
        }
    }

    pub(crate) async fn start_actor<A: Actor>(
        &self,
        args: A::Args,
        options: SpawnOptions,
    ) -> Result<Arc<Process>, SpawnError> {
        let (starter, outcome) = oneshot::channel();
        let class = const { &Class::of::<A>() };
        let process = self.launch(class, options, Some(starter), false, |process| {
            run_actor::<A>(Context::new(process), args)
        })?;
        Self::has_started(process, outcome).await
    }

    pub(crate) async fn has_started(
        process: Arc<Process>,
        outcome: oneshot::Receiver<Result<(), SpawnError>>,
    ) -> Result<Arc<Process>, SpawnError> {
        match outcome.await {
            Ok(Ok(())) => Ok(process),
            Ok(Err(error)) => Err(error),
            // The task was dropped with the tokio runtime.
            Err(_) => Err(SpawnError::Stopping),
        }
    }

    /// Starts a process from a closure, which takes from its mailbox itself.
    ///
    /// For what is not an actor: bridges, sessions, tests. The process ends with what the body
    /// returns.
    pub fn spawn_raw<F, Fut>(&self, kind: &'static RawKind, body: F) -> Result<Pid, SpawnError>
    where
        F: FnOnce(RawContext) -> Fut,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.launch_raw(kind, self.options(), false, body).map(|process| process.pid())
    }

    pub(crate) fn launch_raw<F, Fut>(
        &self,
        kind: &'static RawKind,
        options: SpawnOptions,
        traps_exits: bool,
        body: F,
    ) -> Result<Arc<Process>, SpawnError>
    where
        F: FnOnce(RawContext) -> Fut,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.launch(&kind.0, options, None, traps_exits, |process| RawBody {
            body: body(RawContext::new(process)),
        })
    }

    /// Makes a process and its task. All that relates it to others is in place before it runs.
    pub(crate) fn launch<Fut>(
        &self,
        class: &'static Class,
        options: SpawnOptions,
        starter: Option<Starter>,
        traps_exits: bool,
        body: impl FnOnce(Arc<Process>) -> Fut,
    ) -> Result<Arc<Process>, SpawnError>
    where
        Fut: Future<Output = ExitReason> + Send + 'static,
    {
        if self.is_stopping() {
            return Err(SpawnError::Stopping);
        }
        if self.is_full() {
            return Err(SpawnError::Overloaded);
        }
        let serial = self.next_serial();
        if let Some(name) = &options.name {
            let taken = |holder| SpawnError::NameTaken { name: name.clone(), holder };
            self.claim(name, serial).map_err(taken)?;
        }
        let SpawnOptions { name, parent, link, monitor, announce, hosted: _, over } = options;
        let linked = link.is_some();
        let birth = Birth { name: name.clone(), parent, linked, starter, announce, traps_exits };
        let process = Arc::new(Process::new(serial, class, self.clone(), birth));
        self.0.table.insert(process.serial, Arc::clone(&process));
        self.relate_birth(&process, link, monitor);
        // Made by a task, it may come too late to be told with the others.
        if let Some(lost) = over.and_then(|connection| connection.lost()) {
            process.connection_lost(lost);
            self.unrelate(serial, &BTreeSet::from([lost]));
        }
        // From here on it ends as every process does, whatever happens.
        let end = End(Arc::clone(&process));
        let body = match catch_unwind(AssertUnwindSafe(|| body(Arc::clone(&process)))) {
            Ok(body) => body,
            Err(panic) => {
                let reason = panics::reason(panic);
                process.set_exit(&reason);
                return Err(SpawnError::Start(reason));
            }
        };
        self.0.executor.spawn(Running { body: Some(body), end });
        if let Some(name) = name {
            self.observe(|| What::NameRegistered { name, pid: process.pid() });
        }
        Ok(process)
    }

    fn relate_birth(
        &self,
        process: &Arc<Process>,
        link: Option<Address>,
        monitor: Option<(Address, Reference)>,
    ) {
        let child = Address::Local(process.serial);
        if let Some(linked) = link {
            process.relations(|relations| relations.link(linked));
            self.relate_to(process, linked);
            if let Address::Local(serial) = linked {
                self.signal(process.serial, Address::Local(serial), Signal::Link);
            }
        }
        if let Some((watcher, reference)) = monitor {
            process.relations(|relations| relations.watchers.insert((watcher, reference), ()));
            self.relate_to(process, watcher);
            if let Address::Local(serial) = watcher {
                let target = Dest::Pid(process.pid());
                let monitoring = Monitoring { target, address: Some(child), node: None };
                let monitoring = Box::new(monitoring);
                if let Some(watcher) = self.process(serial) {
                    watcher.relations(|r| r.monitors.insert(reference, monitoring));
                }
            }
        }
    }

    pub(crate) fn relate_to(&self, process: &Process, other: Address) {
        if let Address::Remote(pid) = other {
            self.relate(process, pid.node.name);
        }
    }
}

/// What `ps` calls a process that is not an actor.
///
/// ```
/// use purlin_runtime::RawKind;
///
/// static BRIDGE: RawKind = RawKind::new("bridge");
/// ```
#[derive(Debug)]
pub struct RawKind(pub(crate) Class);

impl RawKind {
    /// A kind of this name, with the default mailbox.
    pub const fn new(kind: &'static str) -> Self {
        Self(Class { kind, messages: &[], mailbox: Mailbox::DEFAULT })
    }

    /// The same with another mailbox.
    #[must_use]
    pub const fn mailbox(mut self, mailbox: Mailbox) -> Self {
        self.0.mailbox = mailbox;
        self
    }
}

/// Forgets a request when its requester gives up or has its answer.
pub(crate) struct Forget<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) reference: Reference,
}

impl Forget<'_> {
    /// It has been answered: nothing is kept of it.
    pub(crate) fn not_needed(self) {
        std::mem::forget(self);
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.runtime.0.pending.forget(self.reference);
    }
}

fn encode_args<T: serde::Serialize>(codec: Codec, args: &T) -> Result<Payload, SpawnError> {
    Payload::encode(codec, args).map_err(|error| SpawnError::Args { detail: error.to_string() })
}

fn kind_name(kind: &str) -> Result<Name, SpawnError> {
    let bad = |error| SpawnError::Args { detail: format!("kind {kind:?}: {error}") };
    Name::new(kind).map_err(bad)
}

pin_project! {
    /// The body of a raw process; by hand as well.
    struct RawBody<F> {
        #[pin]
        body: F,
    }
}

impl<F: Future<Output = Outcome>> Future for RawBody<F> {
    type Output = ExitReason;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ExitReason> {
        self.project().body.poll(cx).map(|outcome| match outcome {
            Ok(()) => ExitReason::Normal,
            Err(interrupt) => interrupt.into_reason(),
        })
    }
}

pin_project! {
    /// The task of a process. Written by hand, since an `async fn` would hold its body twice.
    struct Running<F> {
        #[pin]
        body: Option<F>,
        // After the body: what it held is dropped before the end is told.
        end: End,
    }
}

impl<F: Future<Output = ExitReason>> Future for Running<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut this = self.project();
        let process = &this.end.0;
        process.attach(cx.waker());
        let reason = match process.must_end() {
            Some(reason) => reason,
            None => {
                let _polling = Polling::begin(process);
                let _enter = Enter::new(process);
                let running = this.body.as_mut().as_pin_mut().expect("not polled after its end");
                match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(reason)) => reason,
                    Err(panic) => panics::reason(panic),
                }
            }
        };
        process.set_exit(&reason);
        // As the current process, so that replies that the body held become orphans.
        let _enter = Enter::new(process);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| this.body.set(None))) {
            process.set_exit(&panics::reason(panic));
        }
        Poll::Ready(())
    }
}

/// Ends a process when it is dropped: when its task is done, or is dropped by tokio.
struct End(Arc<Process>);

impl Drop for End {
    fn drop(&mut self) {
        let runtime = self.0.runtime.clone();
        runtime.finish(&self.0);
    }
}

impl Runtime {
    /// Buries a process and tells everyone who is to know, the name free and the pid gone before.
    fn finish(&self, process: &Arc<Process>) {
        // Before anybody can find it dead, so that a monitor made in this moment finds no name.
        if let Some(name) = clean_up(process) {
            self.release(&name, process.serial);
        }
        let mut remains = process.bury();
        let reason = &remains.reason.clone();
        let serial = process.serial;
        self.0.table.remove(serial);
        if let Some(name) = &remains.name {
            // Given to it while it was being cleaned up.
            self.release(name, serial);
            self.observe(|| What::NameReleased { name: name.clone(), pid: process.pid() });
        }
        if let Some(relations) = &remains.relations {
            self.unrelate(serial, relations.nodes.keys());
            if relations.watches_nodes {
                self.watch_nodes(process, false);
            }
        }
        if remains.started && !reason.is_orderly() {
            let mark = remains.relations.as_ref().and_then(|relations| relations.mark.as_ref());
            let restarts = mark.map_or(0, |mark| mark.history.restarts());
            let waiting = remains.mailbox.len();
            self.report_crash(process, remains.name.clone(), waiting, restarts, reason);
        }
        if let Some(relations) = &remains.relations {
            self.tell_of_end(process, relations, remains.started, reason);
        }
        remains.settle(process, reason);
    }

    /// Tells whoever is linked to a process, or watches it, that it has ended.
    fn tell_of_end(
        &self,
        process: &Process,
        relations: &Relations,
        started: bool,
        reason: &ExitReason,
    ) {
        let serial = process.serial;
        // The one who starts it is told by the error, not by an exit signal.
        let starter = (process.born_linked && !started).then(|| process.parent_address()).flatten();
        let (told, linked): (Vec<_>, Vec<_>) =
            relations.linked().partition(|address| Some(*address) == starter);
        for address in told {
            self.signal(serial, address, Signal::Unlink { reference: self.reference() });
        }
        self.tell_linked(serial, linked, reason);
        for &(watcher, reference) in relations.watchers.keys() {
            if let Address::Remote(pid) = watcher {
                lock(&self.0.watched_by_name).remove(&(pid, reference));
            }
            self.signal(serial, watcher, Signal::Down { reference, reason: reason.clone() });
        }
        for (reference, monitoring) in relations.monitors.iter() {
            self.send_demonitor(serial, *reference, monitoring);
        }
    }

    /// Ends every process, roots of the supervision tree first, each with `Shutdown`; what has not
    /// ended after `grace` is killed. Nothing can be spawned from now on.
    ///
    /// Returns when all have ended, or those that never yield have had another second.
    pub async fn shutdown(&self, grace: Duration) {
        self.set_stopping();
        for process in self.0.table.after(0) {
            let is_child = process.parent().is_some_and(|parent| self.is_alive(parent));
            if !is_child {
                let exit = Signal::Exit { reason: ExitReason::Shutdown };
                self.signal(0, Address::Local(process.serial), exit);
            }
        }
        self.wait_until_empty(grace).await;
        for process in self.0.table.after(0) {
            let exit = Signal::Exit { reason: ExitReason::Kill };
            self.signal(0, Address::Local(process.serial), exit);
        }
        self.wait_until_empty(Duration::from_secs(1)).await;
    }

    /// There is no event for the last process to end, and a node stops once: a short poll will do.
    async fn wait_until_empty(&self, limit: Duration) {
        const STEP: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + limit;
        while self.0.table.len() > 0 && Instant::now() < deadline {
            tokio::time::sleep(STEP).await;
        }
    }

    /// The serial of the process that is being polled, if it is one of this runtime; else 0.
    pub(crate) fn sender(&self) -> u64 {
        let serial = current::with(|process| {
            Arc::ptr_eq(&process.runtime.0, &self.0).then_some(process.serial)
        });
        serial.flatten().unwrap_or(0)
    }
}
