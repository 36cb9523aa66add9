//! The two processes of a run, their cores and their CPU time.
//!
//! The near side is the one that was started; it starts the far side as its child, and a relay
//! for each direction that needs one. The children end when their standard input does, so they
//! never outlive the near side, however that ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::measure;
use crate::relay;
use crate::report::Outcome;
use crate::system::{Missing, System};
use crate::workload::Task;

/// Bytes.
const PAGE: u64 = 4_096;

const ROLE: &str = "METER_ROLE";
const TASK: &str = "METER_TASK";
const HOME: &str = "METER_HOME";
const ADVERTISE: &str = "METER_ADVERTISE";
/// Cores of each side, as `0,2`; all if they are not said.
const CLIENT_CPUS: &str = "METER_CLIENT_CPUS";
const SERVER_CPUS: &str = "METER_SERVER_CPUS";

/// What both sides of a run stand on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// What is measured.
    pub task: Task,
    /// A directory that both sides share, removed afterwards.
    pub home: PathBuf,
    /// Where this side is reached, if not where it listens.
    pub advertise: Option<SocketAddr>,
    /// The relay in front of the far side.
    far: Option<Arc<Relay>>,
    /// The relay in front of this side.
    near: Option<Arc<Relay>>,
}

impl Ground {
    /// Where the far side, which listens there, is reached.
    pub fn route(&self, listens: SocketAddr) -> Result<SocketAddr> {
        through(self.far.as_ref(), listens)
    }

    /// Tells the relay in front of this side where this side listens.
    pub fn listens(&self, listens: SocketAddr) -> Result<()> {
        through(self.near.as_ref(), listens).map(drop)
    }
}

fn through(relay: Option<&Arc<Relay>>, listens: SocketAddr) -> Result<SocketAddr> {
    match relay {
        Some(relay) => relay.lead_to(listens),
        None => Ok(listens),
    }
}

/// A child that ends with us.
#[derive(Debug)]
struct Side(Mutex<Child>);

impl Side {
    fn end(&self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been killed already.
        drop(child.kill());
        drop(child.wait());
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.end();
    }
}

/// Kills the far side, as the kernel does.
pub struct Kill(Arc<Side>);

impl Kill {
    /// Kills it; when that was.
    pub fn now(self) -> Instant {
        let killed = Instant::now();
        self.0.end();
        killed
    }
}

#[derive(Debug)]
struct Relay {
    side: Side,
    front: SocketAddr,
}

impl Relay {
    fn start(task: Task) -> Result<Option<Arc<Self>>> {
        if task.loss.is_none() {
            return Ok(None);
        }
        let (side, line) = start("relay", task, |_| {})?;
        Ok(Some(Arc::new(Self { side, front: line.parse()? })))
    }

    fn lead_to(&self, listens: SocketAddr) -> Result<SocketAddr> {
        let mut child = self.side.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(child.stdin.as_mut().context("its input")?, "{listens}")?;
        Ok(self.front)
    }
}

/// Starts this program in another role; its first line.
fn start(role: &str, task: Task, more: impl FnOnce(&mut Command)) -> Result<(Side, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, role).env(TASK, task.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    more(&mut command);
    let mut child = command.spawn()?;
    let output = child.stdout.take().context("its output")?;
    let side = Side(Mutex::new(child));
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    if line.is_empty() {
        bail!("the {role} ended before it was ready");
    }
    Ok((side, line.trim().to_owned()))
}

/// Keeps this thread, and all it starts, to some cores.
fn pin(variable: &str) -> Result<()> {
    let Ok(list) = std::env::var(variable) else { return Ok(()) };
    let mut set = CpuSet::new();
    for cpu in list.split(',').filter(|cpu| !cpu.is_empty()) {
        set.set(cpu.parse()?)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Keeps this thread, and all it starts, to the cores of the near side.
pub fn pin_client() -> Result<()> {
    pin(CLIENT_CPUS)
}

/// Keeps this thread, and all it starts, to the cores of the far side.
pub fn pin_server() -> Result<()> {
    pin(SERVER_CPUS)
}

/// What a runner's `main` is.
pub fn main<S: System>() -> ExitCode {
    let role = std::env::var(ROLE);
    let done = match role.as_deref() {
        Ok("server") => far_side::<S>(),
        Ok("relay") => relay::run(),
        _ => near_side::<S>(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn executor() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn far_side<S: System>() -> Result<()> {
    pin_server()?;
    std::thread::spawn(|| {
        // Its end is the end of the near side.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    let ground = Ground {
        task: variable(TASK)?.parse().map_err(anyhow::Error::msg)?,
        home: variable(HOME)?.into(),
        advertise: std::env::var(ADVERTISE).ok().map(|text| text.parse()).transpose()?,
        far: None,
        near: None,
    };
    executor()?.block_on(S::serve(ground, |contact| println!("{contact}")))
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

fn near_side<S: System>() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().context("usage: runner WORKLOAD|--about [SECONDS]")?;
    if first == "--about" {
        println!("{}", S::about());
        return Ok(());
    }
    let task: Task = first.parse().map_err(anyhow::Error::msg)?;
    let seconds = arguments.next().map_or(Ok(1.5), |text| text.parse())?;
    let ran = S::supports(task)
        .map_err(anyhow::Error::from)
        .and_then(|()| run::<S>(task, Duration::from_secs_f64(seconds)));
    let outcome = match ran {
        Ok(report) => Outcome::Done(report),
        Err(error) => match error.downcast_ref::<Missing>() {
            Some(missing) => Outcome::Missing(missing.to_string()),
            None => Outcome::Failed(format!("{error:#}")),
        },
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn run<S: System>(task: Task, length: Duration) -> Result<crate::report::Report> {
    let home = std::env::temp_dir().join(format!("meter-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let ran = run_in::<S>(task, length, &home);
    drop(std::fs::remove_dir_all(&home));
    ran
}

fn run_in<S: System>(
    task: Task,
    length: Duration,
    home: &std::path::Path,
) -> Result<crate::report::Report> {
    let (far, near) = (Relay::start(task)?, Relay::start(task)?);
    let (side, contact) = start("server", task, |command| {
        command.env(HOME, home);
        if let Some(relay) = &far {
            command.env(ADVERTISE, relay.front.to_string());
        }
    })?;
    pin_client()?;
    let side = Arc::new(side);
    let clocks = Clocks::of(&side)?;
    let advertise = near.as_ref().map(|relay| relay.front);
    let ground = Ground { task, home: home.to_owned(), advertise, far, near };
    let executor = executor()?;
    // The relays live as long as this does.
    let lent = ground.clone();
    let ran = executor.block_on(async move {
        let system = Arc::new(S::join(lent, contact).await.context("joining")?);
        measure::run(system, task, length, clocks, Kill(side)).await
    });
    // Without waiting for what a system may have left running.
    executor.shutdown_background();
    ran
}

/// The CPU time and the memory of both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    far: ClockId,
    far_process: u32,
}

/// CPU time at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) near: Duration,
    pub(crate) far: Duration,
}

impl Clocks {
    fn of(side: &Side) -> Result<Self> {
        let child = side.0.lock().unwrap_or_else(PoisonError::into_inner);
        let far = clock_getcpuclockid(Pid::from_raw(child.id().cast_signed()))?;
        Ok(Self { far, far_process: child.id() })
    }

    /// Bytes that both sides together have in memory.
    pub(crate) fn memory(self) -> Result<u64> {
        let of = |process: &str| {
            let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
            let pages = text.split(' ').nth(1).context("no resident pages")?;
            let pages: u64 = pages.parse()?;
            anyhow::Ok(pages * PAGE)
        };
        Ok(of("self")? + of(&self.far_process.to_string())?)
    }

    pub(crate) fn read(self) -> Result<Spent> {
        let near = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        Ok(Spent { near: near.into(), far: clock_gettime(self.far)?.into() })
    }
}
