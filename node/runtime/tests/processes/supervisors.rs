//! Supervisors.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use purlin_proto::admin::What;
use purlin_runtime::{
    Actor, ChildSpec, Config, Context, ExitReason, Handler, Message, Name, NodeId, Outcome, Pid,
    Restart, Runtime, Strategy, Supervisor,
};
use serde::{Deserialize, Serialize};

use crate::support::{end_of, until};

type Log = Arc<Mutex<Vec<String>>>;

/// Writes down its starts and stops under its name.
struct Worker {
    name: String,
    log: Log,
}

/// Logs cannot travel, so a worker finds its own by number.
#[derive(Clone, Serialize, Deserialize)]
struct Job {
    name: String,
    fails: bool,
    #[serde(skip)]
    log: Log,
}

#[derive(Debug, Serialize, Deserialize)]
struct Crash;
impl Message for Crash {
    const NAME: &'static str = "worker.crash";
    type Reply = ();
}

impl Actor for Worker {
    const KIND: &'static str = "worker";
    type Args = Job;
    type Messages = (Crash,);

    async fn start(job: Job, _: &mut Context<Self>) -> Outcome<Self> {
        if job.fails {
            return Err("cannot".into());
        }
        job.log.lock().unwrap().push(format!("start {}", job.name));
        Ok(Self { name: job.name, log: job.log })
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.log.lock().unwrap().push(format!("stop {}", self.name));
    }
}

impl Handler<Crash> for Worker {
    async fn handle(&mut self, _: Crash, _: &mut Context<Self>) -> Outcome {
        Err("asked to crash".into())
    }
}

struct Bench {
    runtime: Runtime,
    log: Log,
    seen: Arc<Mutex<Vec<What>>>,
}

impl Bench {
    fn new() -> Self {
        let mut config = Config::new(NodeId::new("a".into(), 1));
        let seen: Arc<Mutex<Vec<What>>> = Arc::default();
        let observed = Arc::clone(&seen);
        config.observer = Some(Arc::new(move |what| observed.lock().unwrap().push(what)));
        Self { runtime: Runtime::new(config), log: Log::default(), seen }
    }

    fn child(&self, name: &str) -> ChildSpec {
        let job = Job { name: name.into(), fails: false, log: Arc::clone(&self.log) };
        ChildSpec::actor::<Worker>(name, job).name(Name::new(name).unwrap())
    }

    fn pid(&self, name: &str) -> Option<Pid> {
        self.runtime.whereis(&name.parse::<Name>().unwrap())
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn three(&self, strategy: Strategy) -> Supervisor {
        Supervisor::new(strategy)
            .intensity(3, Duration::from_secs(5))
            .child(self.child("x"))
            .child(self.child("y"))
            .child(self.child("z"))
    }

    /// Crashes a child and waits until it is there again.
    async fn crash(&self, name: &str) {
        let before = self.pid(name).unwrap();
        self.runtime.send(before, Crash);
        let again = || self.pid(name).is_some_and(|pid| pid != before);
        until("a restart", again).await;
        until("the last child", || self.pid("z").is_some()).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn children_start_in_order_and_stop_in_reverse() {
    let bench = Bench::new();
    let root = bench.runtime.supervise(bench.three(Strategy::OneForOne)).await.unwrap().pid();
    assert_eq!(bench.log(), ["start x", "start y", "start z"]);

    bench.runtime.exit(root, ExitReason::Shutdown);

    assert!(matches!(
        end_of(&bench.runtime, root).await,
        ExitReason::Shutdown | ExitReason::NoProcess
    ));
    assert_eq!(bench.log(), ["stop z", "stop y", "stop x"]);
}

#[tokio::test]
async fn one_for_one_restarts_only_the_one_that_ended() {
    let bench = Bench::new();
    bench.runtime.supervise(bench.three(Strategy::OneForOne)).await.unwrap();
    bench.log();

    bench.crash("y").await;

    assert_eq!(bench.log(), ["start y"]);
}

#[tokio::test]
async fn one_for_all_stops_the_others_in_reverse_and_restarts_all_in_order() {
    let bench = Bench::new();
    bench.runtime.supervise(bench.three(Strategy::OneForAll)).await.unwrap();
    bench.log();

    bench.crash("y").await;

    assert_eq!(bench.log(), ["stop z", "stop x", "start x", "start y", "start z"]);
}

#[tokio::test]
async fn rest_for_one_leaves_the_earlier_ones_alone() {
    let bench = Bench::new();
    bench.runtime.supervise(bench.three(Strategy::RestForOne)).await.unwrap();
    bench.log();

    bench.crash("y").await;

    assert_eq!(bench.log(), ["stop z", "start y", "start z"]);
}

#[tokio::test]
async fn more_restarts_than_the_intensity_end_the_supervisor_with_all_children() {
    let bench = Bench::new();
    let root = bench.runtime.supervise(bench.three(Strategy::OneForOne)).await.unwrap().pid();
    let end = end_of(&bench.runtime, root);
    let crashing = async {
        for _ in 0..3 {
            bench.crash("x").await;
        }
        bench.runtime.send(bench.pid("x").unwrap(), Crash);
    };

    let (reason, ()) = tokio::join!(end, crashing);

    assert_eq!(reason, ExitReason::Shutdown);
    assert_eq!([bench.pid("x"), bench.pid("y"), bench.pid("z")], [None, None, None]);
}

#[tokio::test]
async fn a_start_that_fails_stops_what_was_started_and_says_which() {
    let bench = Bench::new();
    let job = Job { name: "bad".into(), fails: true, log: Arc::clone(&bench.log) };
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(bench.child("x"))
        .child(bench.child("y"))
        .child(ChildSpec::actor::<Worker>("bad", job));

    let error = bench.runtime.supervise(supervisor).await.unwrap_err();

    assert!(error.to_string().contains("\"bad\""), "{error}");
    assert_eq!(bench.log(), ["start x", "start y", "stop y", "stop x"]);
}

#[tokio::test]
async fn a_transient_child_is_restarted_after_a_crash_only_and_a_temporary_one_never() {
    let bench = Bench::new();
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .intensity(10, Duration::from_secs(5))
        .child(bench.child("x").restart(Restart::Transient))
        .child(bench.child("y").restart(Restart::Temporary))
        .child(bench.child("z"));
    bench.runtime.supervise(supervisor).await.unwrap();

    bench.crash("x").await;
    bench.runtime.exit(bench.pid("x").unwrap(), ExitReason::Shutdown);
    bench.runtime.send(bench.pid("y").unwrap(), Crash);
    bench.crash("z").await;

    assert_eq!([bench.pid("x"), bench.pid("y")], [None, None]);
}

#[tokio::test]
async fn a_permanent_child_that_an_outsider_shuts_down_is_restarted() {
    let bench = Bench::new();
    bench.runtime.supervise(bench.three(Strategy::OneForOne)).await.unwrap();
    let before = bench.pid("x").unwrap();

    bench.runtime.exit(before, ExitReason::Shutdown);

    until("a restart", || bench.pid("x").is_some_and(|pid| pid != before)).await;
}

#[tokio::test]
async fn an_inner_supervisor_that_gives_up_is_restarted_by_the_outer_one() {
    let bench = Bench::new();
    let inner = Supervisor::new(Strategy::OneForOne)
        .intensity(0, Duration::from_secs(5))
        .child(bench.child("z"));
    let outer = Supervisor::new(Strategy::OneForOne).child(ChildSpec::supervisor("inner", inner));
    bench.runtime.supervise(outer).await.unwrap();

    bench.crash("z").await;

    assert_eq!(bench.log(), ["start z", "start z"]);
    let tree = bench.runtime.tree();
    assert_eq!(tree[0].children[0].child_id.as_deref(), Some("inner"));
    assert_eq!(tree[0].children[0].restarts, 1);
}

#[tokio::test]
async fn a_killed_supervisor_leaves_no_orphan() {
    let bench = Bench::new();
    let root = bench.runtime.supervise(bench.three(Strategy::OneForOne)).await.unwrap().pid();

    bench.runtime.exit(root, ExitReason::Kill);

    let runtime = bench.runtime.clone();
    until("nobody", move || runtime.process_count() == 0).await;
}

#[tokio::test]
async fn a_crash_and_the_restart_after_it_are_announced_with_their_reason() {
    let bench = Bench::new();
    bench.runtime.supervise(bench.three(Strategy::OneForOne)).await.unwrap();
    let crashed = bench.pid("y").unwrap();

    bench.crash("y").await;

    let seen = bench.seen.lock().unwrap();
    let crash = seen.iter().find_map(|what| match what {
        What::ProcessCrashed { pid, name, reason, .. } => {
            Some((*pid, name.clone(), reason.clone()))
        }
        _ => None,
    });
    let reason = "error: asked to crash".to_owned();
    assert_eq!(crash, Some((crashed, Some(Name::new("y").unwrap()), reason.clone())));
    let restart = seen.iter().find_map(|what| match what {
        What::ChildRestarted { child, restarts, reason, .. } => {
            Some((child.clone(), *restarts, reason.clone()))
        }
        _ => None,
    });
    assert_eq!(restart, Some(("y".to_owned(), 1, reason)));
}
