//! The rules of the module's head, one by one.

use purlin_proto::child::{
    Cause, ChildEnd, ChildPlacement, ChildPlan, Desired, Intensity, Mode, Placed, RunState,
};
use purlin_proto::supervision::{Restart, Shutdown};
use purlin_proto::{Codec, Payload};

use super::*;

const MINUTE: u64 = 60_000;

fn id(name: &'static str) -> NodeId {
    NodeId::new(name.into(), 1)
}

fn record() -> ChildRecord {
    let intensity = Intensity { restarts: 2, period: Duration::from_secs(5) };
    ChildRecord {
        version: 7,
        by: "a".into(),
        plan: ChildPlan {
            kind: "counter".into(),
            args: Payload { codec: Codec::Json, bytes: "null".into() },
            restart: Restart::Permanent,
            shutdown: Shutdown::BrutalKill,
            placement: ChildPlacement::LeastLoaded,
            mode: Mode::Available,
            intensity,
            supervisor_intensity: None,
        },
        desired: Desired::Run,
        generation: 3,
        placed: Some(Placed { node: id("b"), generation: 3, at_ms: 0 }),
        cause: Cause::Asked,
        restarts: 0,
        crashes: Vec::new(),
        deaths: Vec::new(),
    }
}

fn run(generation: u64, view: u32) -> ChildRun {
    ChildRun { generation, serial: 9, view, since_ms: 0, state: RunState::Live }
}

fn ended(generation: u64, orderly: bool) -> ChildRun {
    let end = ChildEnd { orderly, reason: "why".into() };
    ChildRun { state: RunState::Ended(end), ..run(generation, 3) }
}

#[derive(Clone)]
struct World {
    record: ChildRecord,
    runs: Vec<(NodeId, ChildRun)>,
    members: Members,
    owner: NodeName,
    now_ms: u64,
    odd_for: Duration,
    left: bool,
    others: u32,
}

impl World {
    /// a, b and c, with fewer children the earlier the name.
    fn new(runs: &[(&'static str, ChildRun)]) -> Self {
        let host = |(name, children): (&'static str, usize)| {
            let labels = [("name".to_owned(), name.to_owned())].into();
            (NodeName::from(name), Host { id: id(name), labels, children, takes: true })
        };
        let live = [("a", 1), ("b", 2), ("c", 3)].map(host).into();
        let members = Members { me: "a".into(), live, detect_in: Duration::from_secs(5) };
        let runs = runs.iter().map(|(name, run)| (id(name), run.clone())).collect();
        Self {
            record: record(),
            runs,
            members,
            owner: "a".into(),
            now_ms: 10 * MINUTE,
            odd_for: Duration::ZERO,
            left: false,
            others: 0,
        }
    }

    fn step(&self) -> Step {
        let Self { record, runs, members, owner, now_ms, odd_for, left, others } = self;
        let (owner, now_ms, odd_for) = (*owner, *now_ms, *odd_for);
        let (left, others) = (*left, *others);
        decide(&Scene { record, runs, members, owner, now_ms, odd_for, left, others })
    }

    /// The record that is to be written; it then is.
    fn written(&mut self) -> ChildRecord {
        match self.step() {
            Step::Write(record) => {
                assert!(record.outdates(&self.record));
                self.record = (*record).clone();
                *record
            }
            other => panic!("{other:?}"),
        }
    }
}

fn placed(record: &ChildRecord) -> (NodeName, u64) {
    let placed = record.placed.as_ref().expect("placed");
    assert_eq!(placed.generation, record.generation);
    (placed.node.name, placed.generation)
}

#[test]
fn what_runs_where_it_should_is_left_alone() {
    assert_eq!(World::new(&[("b", run(3, 3))]).step(), Step::Rest);
}

#[test]
fn a_new_child_is_recorded_with_its_place_before_it_is_started() {
    let mut world = World::new(&[]);
    world.record.placed = None;
    assert_eq!(placed(&world.written()), ("a".into(), 4));
    assert_eq!(world.step(), Step::Start);
}

#[test]
fn one_that_has_crashed_is_started_again_where_it_was_and_counted() {
    let mut world = World::new(&[("b", ended(3, false))]);
    let record = world.written();
    assert_eq!(placed(&record), ("b".into(), 4));
    assert_eq!((record.restarts, record.crashes.len()), (1, 1));
    assert_eq!(record.cause, Cause::Ended("why".into()));
    assert_eq!(world.step(), Step::Start, "though the old end is still to be seen");
}

#[test]
fn one_that_ends_as_its_restart_type_allows_is_done() {
    for (restart, orderly, done) in [
        (Restart::Permanent, true, false),
        (Restart::Transient, true, true),
        (Restart::Transient, false, false),
        (Restart::Temporary, false, true),
    ] {
        let mut world = World::new(&[("b", ended(3, orderly))]);
        world.record.plan.restart = restart;
        assert_eq!(world.written().desired == Desired::Done("why".into()), done, "{restart:?}");
    }
}

#[test]
fn more_crashes_than_its_intensity_within_the_period_are_too_many_on_whichever_nodes() {
    let mut world = World::new(&[]);
    for (crash, on) in ["b", "a", "a"].into_iter().enumerate() {
        let generation = world.record.generation;
        world.record.placed = Some(Placed { node: id(on), generation, at_ms: world.now_ms });
        world.runs = vec![(id(on), ended(generation, false))];
        world.now_ms += 1_000;
        let desired = world.written().desired;
        assert_eq!(matches!(desired, Desired::GaveUp(_)), crash == 2, "{crash}");
    }
    // And what is left of it is forgotten.
    let why = End::Dealt;
    assert_eq!(world.step(), Step::End { on: id("a"), generation: 5, why });
}

#[test]
fn crashes_older_than_the_period_do_not_count() {
    let mut world = World::new(&[]);
    for _ in 0..9 {
        let generation = world.record.generation;
        world.runs = vec![(id("b"), ended(generation, false))];
        world.now_ms += 2_600;
        assert_eq!(world.written().desired, Desired::Run);
    }
    assert_eq!(world.record.restarts, 9);
}

#[test]
fn restarts_of_its_siblings_count_for_the_supervisor() {
    let mut world = World::new(&[("b", ended(3, false))]);
    let all = Intensity { restarts: 10, period: Duration::from_mins(1) };
    world.record.plan.supervisor_intensity = Some(all);
    world.others = 9;
    assert_eq!(world.written().desired, Desired::Run);

    let mut world = World { record: record(), ..world };
    world.record.plan.supervisor_intensity = Some(all);
    world.others = 10;
    assert!(matches!(world.written().desired, Desired::GaveUp(gave) if gave.of_supervisor));
}

#[test]
fn when_its_node_is_down_it_is_placed_anew_once_and_that_does_not_count() {
    let mut world = World::new(&[]);
    world.members.live.remove(&"b".into());
    let record = world.written();
    assert_eq!(placed(&record), ("a".into(), 4));
    assert_eq!((record.restarts, record.crashes.len(), record.deaths.len()), (0, 0, 0));
    assert_eq!(record.cause, Cause::NodeGone(id("b")));
    assert_eq!(world.step(), Step::Start);
}

#[test]
fn a_node_that_came_back_under_a_new_creation_does_not_have_it_any_more() {
    let mut world = World::new(&[]);
    world.members.live.get_mut(&"b".into()).expect("b").id.creation = 2;
    assert_eq!(world.written().cause, Cause::NodeGone(id("b")));
}

#[test]
fn a_child_with_which_two_nodes_went_down_is_poison() {
    let mut world = World::new(&[]);
    for (deaths, on) in ["b", "c"].into_iter().enumerate() {
        let generation = world.record.generation;
        world.record.placed = Some(Placed { node: id(on), generation, at_ms: world.now_ms });
        world.members.live.remove(&on.into());
        world.now_ms += 29_000;
        let poison = world.written().desired == Desired::Poison;
        assert_eq!(poison, deaths == 1);
    }
    assert_eq!(world.step(), Step::Rest);
}

#[test]
fn nodes_that_left_or_lived_for_long_with_it_do_not_make_it_poison() {
    for (lived, left) in [(29_000, true), (MINUTE, false)] {
        let mut world = World::new(&[]);
        world.left = left;
        for on in ["b", "c"] {
            let generation = world.record.generation;
            world.record.placed = Some(Placed { node: id(on), generation, at_ms: world.now_ms });
            world.members.live.remove(&on.into());
            world.now_ms += lived;
            assert_eq!(world.written().desired, Desired::Run);
        }
    }
}

#[test]
fn of_two_the_one_whose_starter_saw_more_members_is_kept() {
    let mut world = World::new(&[("b", run(3, 2)), ("c", run(9, 1))]);
    assert_eq!(world.step(), Step::Settle);
    world.odd_for = SETTLE;
    let why = End::Twice(id("b"), 9);
    assert_eq!(world.step(), Step::End { on: id("c"), generation: 9, why });

    // The record may say otherwise; it is put right first.
    world.record.placed = Some(Placed { node: id("c"), generation: 9, at_ms: 0 });
    assert_eq!(world.written().cause, Cause::Kept);
    assert_eq!(world.step(), Step::End { on: id("c"), generation: 9, why });
}

#[test]
fn of_two_that_saw_as_many_the_higher_generation_is_kept_then_the_smaller_name() {
    let mut world = World::new(&[("b", run(3, 2)), ("c", run(4, 2))]);
    world.odd_for = SETTLE;
    assert_eq!(placed_name(&world.written()), "c");
    let mut world = World::new(&[("b", run(3, 2)), ("c", run(3, 2))]);
    world.odd_for = SETTLE;
    assert!(matches!(world.step(), Step::End { on, .. } if on == id("c")));
}

fn placed_name(record: &ChildRecord) -> String {
    record.placed.as_ref().expect("placed").node.name.to_string()
}

#[test]
fn one_on_the_ring_moves_with_it_and_runs_until_it_is_taken_over() {
    let mut world = World::new(&[("b", run(3, 3))]);
    world.record.plan.placement = ChildPlacement::Ring;
    let record = world.written();
    assert_eq!((placed(&record), record.cause), (("a".into(), 4), Cause::Moved(id("b"))));
    assert_eq!(world.step(), Step::Start, "there, which asks here");

    world.runs.push((id("a"), run(4, 1)));
    assert_eq!(world.step(), Step::Settle, "its old host does not see it yet");
    world.odd_for = SETTLE;
    let end = Step::End { on: id("b"), generation: 3, why: End::Moved };
    assert_eq!(world.step(), end, "though its starter saw more members");
    world.runs.remove(0);
    assert_eq!(world.step(), Step::Rest);
}

#[test]
fn one_that_moves_goes_elsewhere_when_its_new_host_is_lost_or_does_not_take_it() {
    let mut world = World::new(&[("b", run(3, 3))]);
    world.record.plan.placement = ChildPlacement::LeastLoaded;
    world.members.live.get_mut(&"b".into()).expect("b").takes = false;
    let first = placed_name(&world.written());
    world.members.live.remove(&first.parse().expect("a name"));
    let second = world.written();
    assert_eq!(second.cause, Cause::Moved(id("b")), "that is where its state is");
    assert!(!["b", &first].contains(&placed_name(&second).as_str()));

    world.members.live.get_mut(&placed(&second).0).expect("it").takes = false;
    assert_eq!(world.step(), Step::Settle, "its owner may know better");
    world.odd_for = SETTLE;
    assert_eq!(world.step(), Step::Nowhere);
    world.members.live.get_mut(&"b".into()).expect("b").takes = true;
    let kept = world.written();
    let there = kept.placed.map(|placed| (placed.node, placed.generation));
    assert_eq!((there, kept.cause), (Some((id("b"), 3)), Cause::Kept));
    assert_eq!(world.step(), Step::Rest);
}

fn let_go(generation: u64, view: u32) -> ChildRun {
    ChildRun { state: RunState::LetGo { to: None }, ..run(generation, view) }
}

#[test]
fn what_a_node_has_let_go_of_does_not_run() {
    let mut world = World::new(&[("b", run(3, 2)), ("c", let_go(4, 3))]);
    assert_eq!(world.step(), Step::Settle);
    world.odd_for = SETTLE;
    let end = Step::End { on: id("c"), generation: 4, why: End::Moved };
    assert_eq!(world.step(), end, "though it is the later one, and its starter saw more members");
}

#[test]
fn of_two_that_were_let_go_of_that_with_the_state_that_is_asked_for_is_kept() {
    let mut world = World::new(&[("b", let_go(2, 1)), ("c", let_go(2, 3))]);
    world.record.placed = Some(Placed { node: id("a"), generation: 3, at_ms: 0 });
    world.record.cause = Cause::Moved(id("b"));
    world.odd_for = SETTLE;
    assert!(matches!(world.step(), Step::End { on, why: End::Moved, .. } if on == id("c")));
    world.runs.pop();
    assert_eq!(world.step(), Step::Start);
}

#[test]
fn of_two_that_were_let_go_of_the_later_one_has_the_state() {
    let mut world = World::new(&[("b", let_go(2, 3)), ("c", let_go(3, 1))]);
    world.record.placed = Some(Placed { node: id("c"), generation: 3, at_ms: 0 });
    world.record.cause = Cause::Moved(id("b"));
    world.odd_for = SETTLE;
    let end = Step::End { on: id("b"), generation: 2, why: End::Moved };
    assert_eq!(world.step(), end, "what it handed over has been used since");
}

#[test]
fn a_node_that_has_let_go_of_what_nobody_takes_takes_it_back() {
    let mut world = World::new(&[("b", let_go(3, 3))]);
    world.record.plan.placement = ChildPlacement::Ring;
    world.owner = "b".into();
    world.odd_for = SETTLE;
    world.runs[0].1.state = RunState::LetGo { to: Some("c".into()) };
    assert_eq!(world.step(), Step::Rest, "it may run there, and not be seen yet");
    world.members.live.remove(&"c".into());
    world.odd_for = Duration::ZERO;
    assert_eq!(world.step(), Step::Settle, "its place may be another one already");
    world.odd_for = SETTLE;
    let record = world.written();
    assert_eq!((placed(&record), record.cause), (("b".into(), 4), Cause::Moved(id("b"))));
    assert_eq!(world.step(), Step::Start);
    world.members.live.insert("c".into(), World::new(&[]).members.live[&"c".into()].clone());
    world.owner = "c".into();
    world.record.plan.mode = Mode::Exclusive;
    let elsewhere = world.clone().written();
    assert_eq!((placed(&elsewhere), elsewhere.cause), (("c".into(), 5), Cause::Moved(id("b"))));
    world.owner = "b".into();
    world.runs = vec![(id("b"), run(4, 3))];
    assert_eq!(world.step(), Step::Rest);
}

#[test]
fn an_exclusive_one_runs_at_the_owner_or_nowhere() {
    let mut world = World::new(&[]);
    world.record.plan.mode = Mode::Exclusive;
    world.record.plan.placement = ChildPlacement::Ring;
    world.owner = "b".into();
    assert_eq!(world.step(), Step::Start);
    world.owner = "d".into();
    assert_eq!(world.step(), Step::Start, "it is there until a new view says otherwise");
    world.members.live.remove(&"b".into());
    assert_eq!(world.step(), Step::Nowhere);
    world.owner = "c".into();
    assert_eq!(placed(&world.written()), ("c".into(), 4));
}

#[test]
fn others_stay_where_they_are_unless_they_have_to_go() {
    let mut world = World::new(&[("c", run(3, 3))]);
    world.record.placed = Some(Placed { node: id("c"), generation: 3, at_ms: 0 });
    assert_eq!(world.step(), Step::Rest, "though a has fewer");

    world.members.live.get_mut(&"c".into()).expect("c").takes = false;
    assert!(matches!(world.step(), Step::Write(next) if next.cause == Cause::Moved(id("c"))));
    for host in world.members.live.values_mut() {
        host.takes = false;
    }
    assert_eq!(world.step(), Step::Rest, "nobody else takes it");
}

#[test]
fn a_label_that_nobody_has_waits_for_one_that_has() {
    let mut world = World::new(&[]);
    world.record.placed = None;
    world.record.plan.placement = ChildPlacement::Labels([("name".into(), "d".into())].into());
    assert_eq!(world.step(), Step::Nowhere);
    world.record.plan.placement = ChildPlacement::Labels([("name".into(), "c".into())].into());
    assert_eq!(placed(&world.written()), ("c".into(), 4));
}

#[test]
fn one_that_is_not_wanted_is_ended_wherever_it_runs() {
    let mut world = World::new(&[("b", run(3, 3)), ("c", run(2, 3))]);
    world.record.desired = Desired::Stopped(0);
    for on in ["b", "c"] {
        assert!(matches!(world.step(), Step::End { on: o, why: End::Unwanted, .. } if o == id(on)));
        world.runs.remove(0);
    }
    assert_eq!(world.step(), Step::Rest);
}
