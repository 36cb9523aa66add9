//! Ten thousand children of a cluster supervisor: a node is killed, a node joins.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use purlin::prelude::*;
use purlin::proto::admin::children::{
    CHILDREN, CHILDREN_PAGE, ClusterChildInfo, ClusterChildState, ListClusterChildren,
    StartClusterChild,
};
use purlin::proto::child::{ChildPlan, Intensity};
use purlin::{ChildId, Codec, Mode, Payload};

use super::Figure;
use super::agent::Agent;
use super::rig::Rig;

const CHILDREN_STARTED: usize = 10_000;

/// `detect_in`, 5 s, and 3 s.
const GOAL: Duration = Duration::from_secs(8);

/// What the children are.
pub(crate) struct Idle;

impl Actor for Idle {
    const KIND: &'static str = "figures.idle";
    type Args = ();
    type Messages = ();

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

/// How many children run on each node, as this one sees it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Loads;
impl Message for Loads {
    const NAME: &'static str = "figures.loads";
    type Reply = BTreeMap<NodeName, usize>;
}

impl Handler<Loads> for Agent {
    async fn handle(
        &mut self,
        _: Loads,
        ctx: &mut Context<Self>,
    ) -> Outcome<BTreeMap<NodeName, usize>> {
        let loads = ctx.runtime().children().loads(ctx.runtime().id());
        Ok(loads.into_iter().map(|(node, count)| (node.name, count)).collect())
    }
}

fn plan(mode: Mode) -> ChildPlan {
    ChildPlan {
        kind: Idle::KIND.into(),
        args: Payload { codec: Codec::Json, bytes: "null".into() },
        restart: Restart::Permanent,
        shutdown: Shutdown::Timeout(Duration::from_secs(5)),
        placement: ChildPlacement::Ring,
        mode,
        intensity: Intensity { restarts: 3, period: Duration::from_secs(5) },
        supervisor_intensity: None,
    }
}

fn children() -> Dest {
    Dest::Local(CHILDREN.parse().unwrap())
}

fn start_all(rig: &Rig, mode: Mode) {
    let ask = |number: u64| {
        let child = ChildId::new("jobs", number);
        StartClusterChild { child, plan: plan(mode), forwarded: false }
    };
    rig.call_all(0, &children(), (0..CHILDREN_STARTED as u64).map(ask));
}

fn list(rig: &Rig) -> Vec<ClusterChildInfo> {
    let mut all: Vec<ClusterChildInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| info.child.clone());
        let page = rig.call(0, children(), ListClusterChildren { supervisor: None, after });
        let full = page.len() >= CHILDREN_PAGE;
        all.extend(page);
        if !full {
            return all;
        }
    }
}

/// Waits until as many run as were started, none on this node, and none twice; then how many run on
/// each.
fn until_all_run(rig: &Rig, gone: Option<&str>) -> BTreeMap<NodeName, usize> {
    let begun = Instant::now();
    loop {
        let mut loads = rig.ask(0, Loads);
        loads.retain(|name, _| Some(name.as_str()) != gone);
        let all: usize = loads.values().sum();
        if all >= CHILDREN_STARTED {
            let runs = |info: &ClusterChildInfo| {
                let there = info.pid.is_some_and(|pid| Some(pid.node.name.as_str()) != gone);
                info.state == ClusterChildState::Running && there
            };
            let list = list(rig);
            if list.len() == CHILDREN_STARTED && list.iter().all(runs) {
                return loads;
            }
        }
        assert!(begun.elapsed() < Duration::from_mins(3), "{loads:?} run");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn kill_available() -> Vec<Figure> {
    kill("children: kill -9 of one of five, available", Mode::Available)
}

pub(crate) fn kill_exclusive() -> Vec<Figure> {
    kill("children: kill -9 of one of five, exclusive", Mode::Exclusive)
}

fn kill(what: &'static str, mode: Mode) -> Vec<Figure> {
    let mut rig = Rig::start(5);
    let ((), started) = rig.took(|| start_all(&rig, mode));
    let (_, ran) = rig.took(|| until_all_run(&rig, None));
    // Until nothing is left to be written, and the first node is not young any more.
    std::thread::sleep(Duration::from_secs(5));
    let name = rig.nodes[3].name.clone();
    let (begun, before) = (Instant::now(), rig.cpu());
    let lost = rig.cpu_of(3);
    rig.nodes[3].kill_9();
    until_all_run(&rig, Some(&name));
    let (wall, cpu) = (begun.elapsed(), (rig.cpu() + lost).saturating_sub(before));
    let measured =
        format!("{wall:.2?} (cpu {cpu:.2?}); 10,000 recorded in {started}, all ran {ran} later");
    vec![Figure::new(what, "<= 8 s", wall <= GOAL, measured)]
}

pub(crate) fn join() -> Vec<Figure> {
    let mut rig = Rig::start(3);
    start_all(&rig, Mode::Available);
    until_all_run(&rig, None);
    let places = |rig: &Rig| -> BTreeMap<_, _> {
        list(rig).into_iter().map(|info| (info.child, info.pid)).collect()
    };
    let before = places(&rig);
    let begun = Instant::now();
    rig.add();
    loop {
        let now = list(&rig);
        let on_ring = |info: &ClusterChildInfo| info.pid.map(|p| p.node.name) == Some(info.owner);
        let fourth = now.iter().any(|info| info.owner.as_str() == "n3");
        let run = now.iter().all(|i| i.state == ClusterChildState::Running && on_ring(i));
        if fourth && run {
            break;
        }
        assert!(begun.elapsed() < Duration::from_mins(5), "still moving");
        std::thread::sleep(Duration::from_millis(200));
    }
    let wall = begun.elapsed();
    let moved = places(&rig).iter().filter(|(child, pid)| before[*child] != **pid).count();
    let most = CHILDREN_STARTED * 12 / 40;
    let measured = format!("{moved} of 10,000, in {wall:.1?}");
    vec![Figure::new("children: moved to a fourth node", "<= 3,000", moved <= most, measured)]
}
