//! The process `purlin.names`: what wakes it, what it is asked, and what it asks.
//!
//! Nothing waits in it: who asks too early is told so and asks again. What it asks others is work of
//! its own, and is begun again every second while it is wanted. If it is ended, it comes back; the
//! table is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use purlin_cluster::names::{Pages, Shards};
use purlin_proto::admin::names::{
    Claim, FindName, GiveNames, HoldsName, NAMES, NAMES_PAGE, NameRefusal, TakeName, TellNames,
    name_key,
};
use purlin_proto::{Dest, Fence, Name, NodeName};
use purlin_runtime::{Answer, Outcome, RawContext, RawKind, Received, Runtime, Untyped};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Names;
use crate::StartError;
use crate::node::Shared;
use crate::system::{self, reply, take};

static KIND: RawKind = RawKind::new("purlin.names");

/// How often what has not been answered is asked again, and how long an answer may take.
const AGAIN: Duration = Duration::from_secs(1);

/// So many holders are asked at once whether they still have a name; of more it is believed.
const CHECKS: usize = 1_024;

/// Its like on another node.
fn at(node: NodeName) -> Dest {
    Dest::Remote(NAMES.parse().expect("a name"), node)
}

/// Starts it.
pub(crate) fn start(node: &Arc<Shared>) -> Result<(), StartError> {
    system::keep(node, begin)
}

fn begin(node: &Arc<Shared>) -> Result<oneshot::Receiver<()>, StartError> {
    let weak = Arc::downgrade(node);
    let (alive, ended) = oneshot::channel::<()>();
    let body = move |ctx| async move {
        let _alive = alive;
        let (work, asking, giving) = (JoinSet::new(), BTreeSet::new(), Giving::Idle);
        Registry { ctx, node: weak, work, asking, checks: 0, giving }.run().await
    };
    let pid = node.runtime.spawn_raw(&KIND, body);
    let pid = pid.map_err(|error| StartError::System(error.to_string()))?;
    system::name_it(&node.runtime, pid, NAMES)?;
    Ok(ended)
}

/// Something that it has begun is over.
enum Done {
    /// A member has told all its names in the shards of a gathering, or has not.
    Told { number: u64, by: NodeName, names: Option<Vec<(Name, Claim, Fence)>> },
    /// What was given back is known to those who decide about it, as far as they have said so.
    Given(Vec<(Name, Claim)>),
    /// The node of a holder has said whether that still has the name.
    Checked(Box<Check>),
}

/// Somebody wants a name that is taken.
struct Check {
    ask: TakeName,
    answer: Answer<Result<Fence, NameRefusal>>,
    /// Under which claim it is taken.
    taken: Claim,
    still: bool,
}

struct Registry {
    ctx: RawContext,
    node: Weak<Shared>,
    work: JoinSet<Done>,
    /// Members that are being asked, and for which gathering.
    asking: BTreeSet<(u64, NodeName)>,
    checks: usize,
    giving: Giving,
}

/// Whether names are being given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giving {
    /// There are none.
    Idle,
    /// They are being told.
    Asks,
    /// Those who are to be told do not know all of it: again when something has changed, or in a
    /// second.
    Waits,
}

impl Registry {
    async fn run(mut self) -> Outcome {
        let runtime = self.ctx.runtime().clone();
        let mut holdings = runtime.watch_holdings();
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What is rare first: messages may come without end.
                biased;
                () = holdings.changed() => self.look(),
                _ = again.tick() => {
                    self.asking.clear();
                    self.look();
                }
                Some(done) = self.work.join_next() => self.done(done.ok()),
                () = runtime.names_released(), if self.giving == Giving::Idle => {
                    self.give(&runtime);
                }
                received = self.ctx.receive() => {
                    if let Received::Message(message) = received? {
                        self.asked(message);
                    }
                }
            }
        }
    }

    fn look(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        node.names.look();
        self.gather(&node.names);
        if self.giving != Giving::Asks {
            self.give(&node.runtime);
        }
    }

    fn done(&mut self, done: Option<Done>) {
        let Some(node) = self.node.upgrade() else { return };
        let Some(done) = done else {
            // A task has panicked, which has been reported; whatever it was for is tried again.
            self.giving = Giving::Waits;
            return;
        };
        match done {
            Done::Told { number, by, names: Some(names) } => {
                node.names.told(number, by, names);
                self.asking.remove(&(number, by));
            }
            // It is asked again a second after it was.
            Done::Told { names: None, .. } => {}
            Done::Given(names) => {
                node.runtime.names_given(&names);
                self.giving = Giving::Waits;
                if !names.is_empty() {
                    self.give(&node.runtime);
                }
            }
            Done::Checked(check) => {
                self.checks -= 1;
                let Check { ask, answer, taken, still } = *check;
                if !still {
                    node.names.give(&[(ask.name.clone(), taken)]);
                }
                answer.send(node.names.take(&ask.name, ask.claim));
            }
        }
    }

    fn asked(&mut self, message: Untyped) {
        let Some(node) = self.node.upgrade() else { return };
        let runtime = &node.runtime;
        let message = take(Some(message), |ask: TakeName, answer| {
            match node.names.take(&ask.name, ask.claim) {
                Err(NameRefusal::Taken(_)) => self.check(&node.names, ask, answer),
                said => answer.send(said),
            }
        });
        let message = reply(message, |ask: GiveNames| node.names.give(&ask.names));
        let message = reply(message, |ask: FindName| node.names.find(&ask.name));
        let message = reply(message, |ask: HoldsName| runtime.holds_name(&ask.name, ask.claim));
        let message = take(message, |ask: TellNames, answer| {
            // Of a later version that has more of them; it is told so by the dropped answer.
            let Some(shards) = Shards::from_bytes(&ask.shards) else { return };
            let since = (ask.epoch, ask.generation);
            answer.send(runtime.tell_names(since, &shards.iter().collect(), ask.after));
        });
        if let Some(message) = message {
            message.refuse(NAMES);
        }
    }

    /// Asks the node of a holder before anybody is refused.
    fn check(&mut self, names: &Names, ask: TakeName, answer: Answer<Result<Fence, NameRefusal>>) {
        let taken = names.claim(&ask.name).filter(|_| self.checks < CHECKS);
        let Some(taken) = taken else { return answer.send(names.take(&ask.name, ask.claim)) };
        self.checks += 1;
        let runtime = self.ctx.runtime().clone();
        self.work.spawn(async move {
            let question = HoldsName { name: ask.name.clone(), claim: taken };
            let asked = runtime.call_timeout(at(taken.pid.node.name), question, AGAIN).await;
            // Who does not answer may have it.
            let still = asked != Ok(false);
            Done::Checked(Box::new(Check { ask, answer, taken, still }))
        });
    }

    /// Asks the members that have to be heard before names can be given.
    fn gather(&mut self, names: &Names) {
        for gather in names.gathers() {
            for by in gather.awaited {
                if !self.asking.insert((gather.number, by)) {
                    continue;
                }
                let (runtime, number) = (self.ctx.runtime().clone(), gather.number);
                let question = TellNames {
                    epoch: gather.epoch,
                    generation: gather.generation,
                    shards: gather.shards.to_bytes(),
                    after: None,
                };
                self.work.spawn(async move {
                    let names = all_names(&runtime, by, question).await;
                    Done::Told { number, by, names }
                });
            }
        }
    }

    /// Tells those that decide about names which are not wanted here.
    fn give(&mut self, runtime: &Runtime) {
        let mut by_owner: BTreeMap<NodeName, Vec<(Name, Claim)>> = BTreeMap::new();
        let names = runtime.names_to_give();
        self.giving = if names.is_empty() { Giving::Idle } else { Giving::Waits };
        for (name, claim) in names {
            if let Some(owner) = runtime.exclusive_owner(&name_key(&name)) {
                by_owner.entry(owner).or_default().push((name, claim));
            }
        }
        if by_owner.is_empty() {
            return;
        }
        self.giving = Giving::Asks;
        let runtime = runtime.clone();
        self.work.spawn(async move {
            let mut given = Vec::new();
            for (owner, names) in by_owner {
                for names in names.chunks(NAMES_PAGE) {
                    let question = GiveNames { names: names.to_vec() };
                    match runtime.call_timeout(at(owner), question, AGAIN).await {
                        Ok(true) => given.extend_from_slice(names),
                        Ok(false) => {}
                        // It will not answer the others either.
                        Err(_) => break,
                    }
                }
            }
            Done::Given(given)
        });
    }
}

/// All names that a member has in these shards; none if it does not answer, or with what cannot be.
async fn all_names(
    runtime: &Runtime,
    by: NodeName,
    mut question: TellNames,
) -> Option<Vec<(Name, Claim, Fence)>> {
    let mut pages = Pages::default();
    loop {
        let asked = runtime.call_timeout(at(by), question.clone(), AGAIN).await;
        let page = match asked {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%by, %error, "does not tell its names");
                return None;
            }
        };
        match pages.add(page) {
            Ok(None) => return Some(pages.into_names()),
            Ok(behind) => question.after = behind,
            Err(error) => {
                tracing::warn!(%by, %error, "its names are not heard");
                return None;
            }
        }
    }
}
