//! The kinds of actor that a node can start by name, for other nodes and the command line.

use std::collections::BTreeMap;
use std::sync::Arc;

use purlin_proto::{Payload, SpawnError};

use crate::actor::Actor;
use crate::context::Args;
use crate::hosted::{Hosted, Moved};
use crate::item::BoxFuture;
use crate::keyed::stateful::Stateful;
use crate::messages::Messages;
use crate::process::Process;
use crate::runtime::Runtime;
use crate::spawn::SpawnOptions;

/// A set of actor types, each under its [`Actor::KIND`].
#[derive(Clone, Default)]
pub struct Kinds(BTreeMap<&'static str, Arc<dyn Kind>>);

impl Kinds {
    /// Adds an actor type; one of the same kind is replaced.
    #[must_use]
    pub fn with<A: Actor>(mut self) -> Self {
        self.0.insert(A::KIND, Arc::new(Typed::<A> { start_hosted: start_hosted::<A> }));
        self
    }

    /// As [`with`](Self::with), for one whose state goes along when a child of a cluster supervisor is
    /// moved to another node.
    #[must_use]
    pub fn with_state<A: Stateful>(mut self) -> Self {
        self.0.insert(A::KIND, Arc::new(Typed::<A> { start_hosted: start_moved::<A> }));
        self
    }

    /// The names of all kinds, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().map(|&kind| kind.to_owned()).collect()
    }

    /// The names of the messages that a kind accepts; `None` if there is no such kind.
    pub fn messages(&self, kind: &str) -> Option<&'static [&'static str]> {
        self.0.get(kind).map(|kind| kind.messages())
    }

    pub(crate) fn find(&self, kind: &str) -> Option<&Arc<dyn Kind>> {
        self.0.get(kind)
    }
}

pub(crate) trait Kind: Send + Sync {
    fn messages(&self) -> &'static [&'static str];

    fn spawn(&self, runtime: Runtime, args: Payload, options: SpawnOptions) -> Spawned;
}

type Spawned = BoxFuture<'static, Result<Arc<Process>, SpawnError>>;

struct Typed<A: Actor> {
    /// How a child of a cluster supervisor begins.
    start_hosted: fn(Runtime, A::Args, Box<Hosted>, SpawnOptions) -> Spawned,
}

impl<A: Actor> Kind for Typed<A> {
    fn messages(&self) -> &'static [&'static str] {
        A::Messages::NAMES
    }

    fn spawn(&self, runtime: Runtime, args: Payload, mut options: SpawnOptions) -> Spawned {
        let start_hosted = self.start_hosted;
        Box::pin(async move {
            let args = decode::<A>(&args)?;
            match options.hosted.take() {
                Some(hosted) => start_hosted(runtime, args, hosted, options).await,
                None => runtime.start_actor::<A>(args, options).await,
            }
        })
    }
}

fn start_hosted<A: Actor>(
    runtime: Runtime,
    args: A::Args,
    hosted: Box<Hosted>,
    options: SpawnOptions,
) -> Spawned {
    Box::pin(async move { runtime.start_hosted::<A, _>(hosted, options, |_, _| Args(args)).await })
}

/// With what it has left elsewhere, if it has.
fn start_moved<A: Stateful>(
    runtime: Runtime,
    args: A::Args,
    hosted: Box<Hosted>,
    options: SpawnOptions,
) -> Spawned {
    Box::pin(async move {
        let origin = |found, left| Moved { args, found, left };
        runtime.start_hosted::<A, _>(hosted, options, origin).await
    })
}

fn decode<A: Actor>(args: &Payload) -> Result<A::Args, SpawnError> {
    args.decode().map_err(|error| SpawnError::Args { detail: format!("{error}") })
}
