//! What a program builds on processes: registries and supervised tasks. Names follow the rules of
//! OTP's scenarios RG-1, TK-1 and TK-2.

#![expect(clippy::unwrap_used, reason = "a test")]

mod registry;
mod tasks;

use std::future::{Future, pending};
use std::time::Duration;

use purlin_runtime::{ExitReason, Pid, RawKind, Received, Runtime, Task};
use tokio::sync::oneshot;

static PROBE: RawKind = RawKind::new("probe");

fn runtime() -> Runtime {
    Runtime::local("a".into())
}

/// A process that does nothing, for ever.
fn idle(runtime: &Runtime) -> Task<()> {
    runtime.task(pending())
}

fn idle_pid(runtime: &Runtime) -> Pid {
    idle(runtime).pid().unwrap()
}

/// Monitors a process from now on; what `look` sees at the moment its `Down` arrives.
fn at_down_of<T: Send + 'static, L: FnOnce() -> T + Send + 'static>(
    runtime: &Runtime,
    pid: Pid,
    look: L,
) -> impl Future<Output = (ExitReason, T)> + use<T, L> {
    let (tell, told) = oneshot::channel();
    runtime
        .spawn_raw(&PROBE, |mut ctx| {
            ctx.monitor(pid);
            async move {
                while let Ok(received) = ctx.receive().await {
                    if let Received::Down(down) = received {
                        let _ = tell.send((down.reason, look()));
                        break;
                    }
                }
                Ok(())
            }
        })
        .unwrap();
    async { within("a down", told).await.unwrap() }
}

/// The reason that a process ends with, watched from now on.
fn end_of(runtime: &Runtime, pid: Pid) -> impl Future<Output = ExitReason> + use<> {
    let down = at_down_of(runtime, pid, || ());
    async { down.await.0 }
}

/// Waits for something, 10 s at most.
async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let waited = tokio::time::timeout(Duration::from_secs(10), future).await;
    waited.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// Waits until a condition holds, 5 s at most.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited until {what}");
}
