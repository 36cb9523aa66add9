//! The same child several times, one for each part of the keys (Elixir: `PartitionSupervisor`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use purlin_proto::SpawnError;

use super::reference::SupervisorRef;
use super::spec::{ChildSpec, Strategy, Supervisor};
use crate::actor::Actor;
use crate::refs::Ref;
use crate::runtime::Runtime;

/// A fixed number of processes that share the work of one that would be too busy: each key always
/// goes to the same of them, also after it was restarted.
///
/// Cheap to clone. They live under a supervisor of their own, which allows three restarts in five
/// seconds; it ends with [`supervisor`](Self::supervisor)`().exit(…)`.
///
/// ```
/// # use purlin_runtime::{Actor, Context, Handler, Message, Outcome, Runtime};
/// # use serde::{Deserialize, Serialize};
/// use purlin_runtime::Partitions;
/// # #[derive(Serialize, Deserialize)]
/// # struct Bump;
/// # impl Message for Bump { const NAME: &'static str = "bump"; type Reply = u32; }
/// # struct Shard(u32);
/// # impl Actor for Shard {
/// #     const KIND: &'static str = "shard";
/// #     type Args = u32;
/// #     type Messages = (Bump,);
/// #     async fn start(first: u32, _: &mut Context<Self>) -> Outcome<Self> { Ok(Self(first)) }
/// # }
/// # impl Handler<Bump> for Shard {
/// #     async fn handle(&mut self, _: Bump, _: &mut Context<Self>) -> Outcome<u32> {
/// #         self.0 += 1;
/// #         Ok(self.0)
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::local("a".into());
/// let shards = Partitions::<Shard>::start(&runtime, 4, |index| index as u32 * 100).await?;
/// let one = shards.of("user:42").ok_or("just being restarted")?;
/// assert_eq!(one.call(Bump).await? % 100, 1);
/// # Ok(())
/// # }
/// ```
pub struct Partitions<A> {
    runtime: Runtime,
    supervisor: SupervisorRef,
    /// The serials of the present processes.
    serials: Arc<[AtomicU64]>,
    actor: PhantomData<fn() -> A>,
}

impl<A: Actor> Partitions<A>
where
    A::Args: Clone + Sync,
{
    /// Starts so many, one at least, each with arguments made from its number.
    pub async fn start(
        runtime: &Runtime,
        count: usize,
        args: impl Fn(usize) -> A::Args,
    ) -> Result<Self, SpawnError> {
        let serials: Arc<[AtomicU64]> = (0..count.max(1)).map(|_| AtomicU64::new(0)).collect();
        let mut supervisor =
            Supervisor::new(Strategy::OneForOne).intensity(3, Duration::from_secs(5));
        for index in 0..serials.len() {
            let places = Arc::clone(&serials);
            let child = ChildSpec::actor::<A>(index.to_string(), args(index));
            let child = child.also(move |process| {
                places[index].store(process.serial, Ordering::Release);
            });
            supervisor = supervisor.child(child);
        }
        let supervisor = runtime.supervise(supervisor).await?;
        Ok(Self { runtime: runtime.clone(), supervisor, serials, actor: PhantomData })
    }

    /// The process for a key; `None` while it is being restarted.
    pub fn of<K: Hash + ?Sized>(&self, key: &K) -> Option<Ref<A>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let count = self.serials.len() as u64;
        let index = usize::try_from(hasher.finish() % count).expect("less than a length");
        self.get(index)
    }

    /// The process with this number; `None` while it is being restarted, or if there is none.
    pub fn get(&self, index: usize) -> Option<Ref<A>> {
        let serial = self.serials.get(index)?.load(Ordering::Acquire);
        self.runtime.process(serial).map(Ref::to)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.serials.len()
    }

    /// What they live under.
    pub fn supervisor(&self) -> &SupervisorRef {
        &self.supervisor
    }
}

impl<A> Clone for Partitions<A> {
    fn clone(&self) -> Self {
        Self {
            runtime: self.runtime.clone(),
            supervisor: self.supervisor.clone(),
            serials: Arc::clone(&self.serials),
            actor: PhantomData,
        }
    }
}

impl<A: Actor> std::fmt::Debug for Partitions<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partitions<{}>({}, {:?})", A::KIND, self.serials.len(), self.supervisor)
    }
}
