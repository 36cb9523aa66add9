//! Children of cluster supervisors, as processes: what they wait for before they begin, and what they
//! leave when they end.
//!
//! A child has its mailbox from the first moment, so what comes for it waits there in order. It begins
//! when its node may run it (`exclusive.rs`), if it is exclusive, and when wherever it ran before has let
//! go of it: that is a future which whoever starts it hands in, and which brings the state
//! ([`Before`]). At an orderly end it leaves the state behind ([`Left`]), for the node that is to run it
//! next; where that is not asked for, it is dropped. A state is not kept anywhere else: after a crash of
//! the process or the node the next one begins anew.
//!
//! By which way messages find it, is in `entries/ways.rs`.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use purlin_proto::{ChildId, ExitReason, Mode, Snapshot, SpawnError};
use tokio::sync::oneshot;

use crate::actor::{Actor, Outcome};
use crate::context::{Context, Origin, run_from};
use crate::exclusive::Leased;
use crate::keyed::stateful::{Stateful, read, take};
use crate::process::{Class, Process};
use crate::runtime::{Runtime, lock};
use crate::spawn::SpawnOptions;

/// Comes when a child runs nowhere else any more, with its state if there is one; an error ends it
/// before it has begun.
pub type Before = Pin<Box<dyn Future<Output = Result<Option<Snapshot>, String>> + Send>>;

/// A child that is to be started on this node.
pub struct HostedChild {
    /// Which.
    pub child: ChildId,
    /// Exclusive: it begins when this node [holds](Runtime::holding) its key, fails to start if
    /// another one does, and ends when this one does not any more.
    pub mode: Mode,
    /// What it waits for.
    pub before: Option<Before>,
}

impl fmt::Debug for HostedChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostedChild").field("child", &self.child).finish_non_exhaustive()
    }
}

/// Where a child leaves its state, and who has started it finds it.
#[derive(Clone, Default)]
pub struct Left(Arc<Mutex<Option<Snapshot>>>);

impl Left {
    /// The state that it has left, if it has ended in good order and its kind has one.
    pub fn take(&self) -> Option<Snapshot> {
        lock(&self.0).take()
    }
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Left").finish_non_exhaustive()
    }
}

/// What is known of a child when its process is made.
pub(crate) struct Hosted {
    child: HostedChild,
    left: Left,
}

impl Hosted {
    pub(crate) fn new(child: HostedChild) -> (Self, Left) {
        let left = Left::default();
        (Self { child, left: left.clone() }, left)
    }
}

impl Runtime {
    pub(crate) async fn start_hosted<A: Actor, O: Origin<A> + 'static>(
        &self,
        hosted: Box<Hosted>,
        options: SpawnOptions,
        origin: impl FnOnce(Option<Snapshot>, Left) -> O + Send + 'static,
    ) -> Result<Arc<Process>, SpawnError> {
        let (starter, outcome) = oneshot::channel();
        let class = const { &Class::of::<A>() };
        let Hosted { child: HostedChild { child, mode, before }, left } = *hosted;
        let process = self.launch(class, options, Some(starter), false, |process| {
            // Before anybody can be asked to send on what comes for it.
            process.runtime.child_opened(&child, process.serial, mode);
            async move {
                let entered = match mode {
                    Mode::Available => None,
                    Mode::Exclusive => {
                        let key = child.to_string().into_bytes().into();
                        match Self::enter_exclusive(&process, key).await {
                            Ok(entered) => Some(entered),
                            Err(reason) => {
                                process.runtime.child_not_ours(&process, &child);
                                return reason;
                            }
                        }
                    }
                };
                let found = match before {
                    Some(before) => match before.await {
                        Ok(found) => found,
                        Err(detail) => return ExitReason::error(detail),
                    },
                    None => None,
                };
                let leased = entered.is_some().then(|| Arc::clone(&process));
                let life = run_from::<A, _>(Context::new(process), origin(found, left));
                let reason = Leased::new(leased, life).await;
                drop(entered);
                reason
            }
        })?;
        Self::has_started(process, outcome).await
    }
}

/// Begins with the state that comes from elsewhere, if any does; leaves it at its end.
pub(crate) struct Moved<T> {
    pub(crate) args: T,
    pub(crate) found: Option<Snapshot>,
    pub(crate) left: Left,
}

impl<A: Stateful> Origin<A> for Moved<A::Args> {
    async fn begin(self, ctx: &mut Context<A>) -> Outcome<A> {
        let Self { args, found, left } = self;
        ctx.leave_in(left);
        match found {
            Some(found) => {
                let state = read::<A>(&ctx.pid(), &found)?;
                let actor = A::restore(state, args, ctx).await?;
                ctx.runtime().counters().children_restored.add();
                Ok(actor)
            }
            None => A::start(args, ctx).await,
        }
    }

    async fn end(actor: &mut A, reason: &ExitReason, ctx: &mut Context<A>) {
        actor.stop(reason, ctx).await;
        let Some(left) = ctx.leaves() else { return };
        match take(ctx.runtime(), actor, 0) {
            Ok(state) => *lock(&left.0) = Some(state),
            Err(error) => {
                ctx.runtime().counters().children_not_left.add();
                tracing::error!(kind = A::KIND, pid = %ctx.pid(), %error, "the state of a child is lost");
            }
        }
    }
}
