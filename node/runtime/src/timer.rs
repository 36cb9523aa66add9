//! Messages that come later.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use purlin_proto::Message;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep};

use crate::item::{Item, Via};
use crate::process::Process;
use crate::reply::Reply;

/// A delay beyond what the clock can count never comes; thirty years are as good.
pub(crate) const LONGEST: Duration = Duration::from_hours(30 * 365 * 24);

/// A message on its way to the process that asked for it; see
/// [`Context::send_after`](crate::Context::send_after).
///
/// Dropping it changes nothing; the message comes all the same.
#[derive(Debug)]
pub struct Timer {
    process: Weak<Process>,
    number: u64,
    due: Instant,
}

impl Timer {
    pub(crate) fn start(process: &Arc<Process>, delay: Duration, item: Item) -> Self {
        let number = process.runtime.reference().0;
        let due = Instant::now() + delay.min(LONGEST);
        let weak = Arc::downgrade(process);
        let target = Weak::clone(&weak);
        // Noted before it can fire: the task takes the note away under the same lock.
        let executor = process.runtime.0.executor.clone();
        process.relations(|relations| {
            let task = executor.spawn(async move {
                tokio::time::sleep_until(due).await;
                if let Some(process) = target.upgrade() {
                    let waiting = process.relations(|r| r.timers.remove(&number).is_some());
                    if waiting == Some(true) {
                        let runtime = process.runtime.clone();
                        runtime.deliver(Some(&process), item);
                    }
                }
            });
            relations.timers.insert(number, task.abort_handle());
        });
        Self { process: weak, number, due }
    }

    /// Cancels it and tells what was left; `None` if it has fired, or its process is gone.
    ///
    /// After `None` the message may still lie unread in the mailbox.
    pub fn cancel(self) -> Option<Duration> {
        let process = self.process.upgrade()?;
        let task =
            process.relations(|relations| relations.timers.remove(&self.number)).flatten()?;
        task.abort();
        Some(self.due.saturating_duration_since(Instant::now()))
    }
}

/// Nothing has come for as long as [`Context::idle_timeout`](crate::Context::idle_timeout) says.
///
/// ```
/// # use purlin_runtime::{Actor, Context, ExitReason, Handler, IdleTimeout, Outcome};
/// # use std::time::Duration;
/// struct Connection;
///
/// impl Actor for Connection {
///     const KIND: &'static str = "connection";
///     type Args = ();
///     type Messages = ();
///
///     async fn start((): (), ctx: &mut Context<Self>) -> Outcome<Self> {
///         ctx.idle_timeout(Duration::from_secs(60));
///         Ok(Self)
///     }
/// }
///
/// impl Handler<IdleTimeout> for Connection {
///     async fn handle(&mut self, _: IdleTimeout, ctx: &mut Context<Self>) -> Outcome {
///         ctx.stop(ExitReason::Normal);
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleTimeout;

impl Message for IdleTimeout {
    const NAME: &'static str = "purlin.idle_timeout";
    type Reply = ();
}

/// Waits for a process to have been idle long enough. A message costs it nothing; the timer is set
/// anew only when it has fired too early.
pub(crate) struct Idle {
    after: Duration,
    via: Via,
    since: Instant,
    /// Whether something was handled since it was last waited.
    busy: bool,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    pub(crate) fn new(after: Duration, via: Via) -> Self {
        let (now, after) = (Instant::now(), after.min(LONGEST));
        Self {
            after,
            via,
            since: now,
            busy: false,
            timer: Box::pin(tokio::time::sleep_until(now + after)),
        }
    }

    pub(crate) fn note_busy(&mut self) {
        self.busy = true;
    }

    pub(crate) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Item> {
        if std::mem::take(&mut self.busy) {
            self.since = Instant::now();
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let due = self.since + self.after;
            if now >= due {
                self.since = now;
                self.timer.as_mut().reset(now + self.after);
                return Poll::Ready(Item::local(IdleTimeout, Reply::None, Some(self.via)));
            }
            self.timer.as_mut().reset(due);
        }
    }
}
