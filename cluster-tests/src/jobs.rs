//! What cluster supervisors keep in tests: actors that note their starts and ends, crash when told to,
//! and take their machine down when told to. For simulated clusters, which are one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;

use purlin::prelude::*;

/// What has happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Which.
    pub job: String,
    /// Where.
    pub node: NodeName,
    /// Its end in good order, or its start.
    pub end: Option<ExitReason>,
}

thread_local! {
    static NOTED: RefCell<Vec<Noted>> = const { RefCell::new(Vec::new()) };
}

/// Everything that was noted since this was last called.
pub fn noted() -> Vec<Noted> {
    NOTED.take()
}

/// How often each job was started, among what was noted.
pub fn starts(noted: &[Noted]) -> BTreeMap<&str, usize> {
    let mut starts = BTreeMap::new();
    for noted in noted.iter().filter(|noted| noted.end.is_none()) {
        *starts.entry(noted.job.as_str()).or_default() += 1;
    }
    starts
}

/// One of them.
#[derive(Debug)]
pub struct Job {
    name: String,
    done: u64,
}

/// Do something; how often this process has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Do;
impl Message for Do {
    const NAME: &'static str = "job.do";
    type Reply = (NodeName, u64);
}

/// Fail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fail;
impl Message for Fail {
    const NAME: &'static str = "job.fail";
    type Reply = ();
}

/// Be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finish;
impl Message for Finish {
    const NAME: &'static str = "job.finish";
    type Reply = ();
}

impl Actor for Job {
    const KIND: &'static str = "job";
    type Args = String;
    type Messages = (Do, Fail, Finish);

    async fn start(name: String, ctx: &mut Context<Self>) -> Outcome<Self> {
        note(&name, ctx, None);
        Ok(Self { name, done: 0 })
    }

    async fn stop(&mut self, reason: &ExitReason, ctx: &mut Context<Self>) {
        note(&self.name, ctx, Some(reason.clone()));
    }
}

fn note(name: &str, ctx: &Context<Job>, end: Option<ExitReason>) {
    let node = ctx.pid().node.name;
    NOTED.with_borrow_mut(|noted| noted.push(Noted { job: name.to_owned(), node, end }));
}

impl Handler<Do> for Job {
    async fn handle(&mut self, _: Do, ctx: &mut Context<Self>) -> Outcome<(NodeName, u64)> {
        self.done += 1;
        Ok((ctx.pid().node.name, self.done))
    }
}

impl Handler<Fail> for Job {
    async fn handle(&mut self, _: Fail, _: &mut Context<Self>) -> Outcome {
        Err(std::io::Error::other("told to"))?
    }
}

impl Handler<Finish> for Job {
    async fn handle(&mut self, _: Finish, ctx: &mut Context<Self>) -> Outcome {
        ctx.stop(ExitReason::Normal);
        Ok(())
    }
}
