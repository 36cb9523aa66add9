//! Isolation: what goes wrong in one process harms that process and those linked to it, and what is
//! gone leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test")]

mod leaks;
mod panics;

use std::future::Future;
use std::time::Duration;

use purlin_runtime::{
    Down, ExitReason, LinkDown, Name, Pid, RawContext, RawKind, Received, Runtime,
};
use tokio::sync::mpsc;

static WITNESS: RawKind = RawKind::new("witness");

fn runtime() -> Runtime {
    Runtime::local("a".into())
}

/// Waits for something, 10 s at most.
async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let waited = tokio::time::timeout(Duration::from_secs(10), future).await;
    waited.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// Waits until a condition holds, 10 s at most.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited until {what}");
}

fn counted(runtime: &Runtime, name: &str) -> u64 {
    let counters = runtime.counters().snapshot();
    counters.iter().find(|counter| counter.name == name).unwrap().count
}

/// Is linked to a process, traps exits and monitors it: tells how it ended, by both ways.
struct Witness {
    pid: Pid,
    told: mpsc::UnboundedReceiver<(ExitReason, bool)>,
}

impl Witness {
    /// Link and monitor are in place when this returns.
    fn of(runtime: &Runtime, pid: Pid, name: Option<&'static str>) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let name: Option<Name> = name.map(Into::into);
        let begin = |mut ctx: RawContext| {
            ctx.trap_exits(true);
            ctx.link(pid);
            ctx.monitor(pid);
            async move {
                loop {
                    let (Received::Down(Down { reason, .. })
                    | Received::LinkDown(LinkDown { reason, .. })) = ctx.receive().await?
                    else {
                        continue;
                    };
                    // Looked at when the notice is handled: nothing of the process may be left.
                    let runtime = ctx.runtime();
                    let gone = !runtime.is_alive(pid)
                        && runtime.process_detail(&pid.into()).is_none()
                        && name.as_ref().is_none_or(|name| runtime.whereis(name) != Some(pid));
                    let _ = tell.send((reason, gone));
                }
            }
        };
        Self { pid: runtime.spawn_raw(&WITNESS, begin).unwrap(), told }
    }

    /// The reason that was told, the same by link and by monitor, when the process had left nothing.
    async fn reason(mut self, runtime: &Runtime) -> ExitReason {
        let (first, gone) = within("a notice", self.told.recv()).await.unwrap();
        let (second, gone_too) = within("the other notice", self.told.recv()).await.unwrap();
        assert_eq!(first, second, "a link and a monitor tell the same");
        assert!(gone && gone_too, "told before it was gone");
        runtime.exit(self.pid, ExitReason::Kill);
        first
    }
}
