//! The rules of those that hold names, one by one, without a registrar.

use purlin_proto::ExitReason;

use super::*;
use crate::spawn::RawKind;

static IDLE: RawKind = RawKind::new("idle");

fn idle(runtime: &Runtime) -> Arc<Process> {
    let body = |mut ctx: crate::RawContext| async move {
        loop {
            ctx.receive().await?;
        }
    };
    let pid = runtime.spawn_raw(&IDLE, body).unwrap();
    runtime.process(pid.serial).unwrap()
}

fn names(runtime: &Runtime) -> &Arc<ExclusiveNames> {
    &runtime.0.entries.exclusive_names
}

fn given(process: &Process, epoch: u64, generation: u64) -> Given {
    let fence = Fence { epoch, shard: 7, generation };
    Given { serial: process.serial, since_ms: 0, fence }
}

/// Asks, and has the name given; whether it was taken.
fn takes(runtime: &Runtime, name: &str, process: &Arc<Process>, given: Given, term: u64) -> bool {
    let names = names(runtime);
    let attempt = names.ask(&name.parse().unwrap(), process).unwrap();
    let claim = Some(Claim { pid: process.pid(), attempt });
    let taking = names.take((attempt, claim), process, given, (term, || true));
    names.stop_asking(attempt, claim);
    matches!(taking, Taking::Done)
}

#[tokio::test]
async fn what_was_given_before_a_registrar_has_asked_is_not_taken_after_it() {
    let runtime = Runtime::local("a".into());
    let process = idle(&runtime);
    assert!(takes(&runtime, "one", &process, given(&process, 3, 5), 0));

    let seven = BTreeSet::from([7]);
    let told = runtime.tell_names((3, 5), &seven, None);
    assert_eq!(told.len(), 1, "and that one is told");
    assert_eq!(runtime.tell_names((9, 9), &BTreeSet::from([8]), None), []);

    assert!(!takes(&runtime, "two", &process, given(&process, 3, 5), 0));
    assert!(!takes(&runtime, "two", &process, given(&process, 2, 9), 0), "of an earlier view");
    assert!(takes(&runtime, "two", &process, given(&process, 3, 6), 0));
    assert!(takes(&runtime, "three", &process, given(&process, 4, 1), 0));
}

#[tokio::test]
async fn what_was_asked_for_under_an_earlier_lease_is_not_taken() {
    let runtime = Runtime::local("a".into());
    let process = idle(&runtime);
    let before = names(&runtime).term();

    runtime.lease_lapsed();

    assert!(!takes(&runtime, "one", &process, given(&process, 1, 1), before));
    assert!(takes(&runtime, "one", &process, given(&process, 1, 2), names(&runtime).term()));
}

#[tokio::test]
async fn what_is_not_wanted_is_kept_until_its_registrar_knows() {
    let runtime = Runtime::local("a".into());
    let process = idle(&runtime);
    assert!(takes(&runtime, "one", &process, given(&process, 1, 1), 0));
    assert!(!takes(&runtime, "two", &process, given(&process, 1, 2), 7), "another lease");
    assert_eq!(runtime.0.entries.own(), 2);

    assert!(runtime.unregister_global("one"));
    let give = runtime.names_to_give();
    let named: Vec<&str> = give.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(named, ["one", "two"]);
    assert!(give.iter().all(|(name, claim)| !runtime.holds_name(name, *claim)));

    runtime.names_given(&give[..1]);
    assert_eq!((runtime.names_to_give().len(), runtime.0.entries.own()), (1, 1));
    runtime.names_given(&give);
    assert_eq!((runtime.names_to_give().len(), runtime.0.entries.own()), (0, 0));
}

#[tokio::test]
async fn without_other_nodes_the_own_table_decides() {
    let runtime = Runtime::local("a".into());
    let (one, other) = (idle(&runtime), idle(&runtime));
    let first = runtime.register_global("hits", one.pid()).await.unwrap();
    assert_eq!(runtime.register_global("hits", one.pid()).await, Ok(first), "it has it");
    let taken = GlobalError::Taken { name: "hits".into(), holder: one.pid() };
    assert_eq!(runtime.register_global("hits", other.pid()).await, Err(taken.clone()));
    assert_eq!(runtime.register_global_available("hits", other.pid()), Err(taken));

    runtime.exit(one.pid(), ExitReason::Kill);
    while runtime.whereis_global(&"hits".into()).is_some() {
        tokio::task::yield_now().await;
    }
    let second = runtime.register_global("hits", other.pid()).await.unwrap();
    assert!(second > first);
    assert_eq!((runtime.0.entries.own(), runtime.names_to_give().len()), (1, 0));
}
