//! A bad network: a relay of UDP datagrams that loses some and delays the others.
//!
//! It runs as a process of its own, so that its work is not counted to a side, and prints the
//! address of its front. Each line of its input is where the datagrams go from then on. One thread
//! receives and decides, one lets go what is due; chance is seeded, so that every system meets the
//! same losses.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::io::BufRead;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

use crate::workload::Task;

/// Datagrams on their way through one relay; what comes beyond them is lost, as in a router.
const QUEUE: usize = 20_000;

#[derive(Default)]
struct Line {
    queue: Mutex<VecDeque<Packet>>,
    more: Condvar,
}

struct Packet {
    due: Instant,
    from: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Chance(u64);

impl Chance {
    /// xorshift64*: good enough to lose packets by.
    fn percent(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % 100
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn run() -> Result<()> {
    let task: Task = std::env::var("METER_TASK")?.parse().map_err(anyhow::Error::msg)?;
    let loss = u64::from(task.loss.context("a relay without loss")?);
    let line = Arc::new(Line::default());
    let front = Arc::new(open()?);
    let target = Arc::new(Mutex::new(None));
    println!("{}", front.local_addr()?);
    let outgoing = Arc::clone(&line);
    std::thread::spawn(move || let_go(&outgoing));
    let goal = Arc::clone(&target);
    std::thread::spawn(move || serve(&front, &goal, &line, loss));
    for text in std::io::stdin().lock().lines() {
        *lock(&target) = Some(text?.parse()?);
    }
    Ok(())
}

/// With room for bursts: what is lost is to be lost by chance alone.
fn open() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
    setsockopt(&socket, sockopt::SndBuf, &(4 << 20))?;
    Ok(socket)
}

/// Takes what comes to the front; each that sends gets a socket of its own towards the target.
fn serve(front: &Arc<UdpSocket>, target: &Mutex<Option<SocketAddr>>, line: &Arc<Line>, loss: u64) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok((length, from)) = front.recv_from(&mut buffer) else { continue };
        let Some(to) = *lock(target) else { continue };
        let back = match backs.entry(from) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let Ok(back) = open() else { return };
                let back = Arc::clone(new.insert(Arc::new(back)));
                let (own, front, line) = (Arc::clone(&back), Arc::clone(front), Arc::clone(line));
                std::thread::spawn(move || answers(&own, &front, from, &line, loss));
                back
            }
        };
        if chance.percent() >= loss {
            line.push(&back, to, &buffer[..length]);
        }
    }
}

/// Takes what the target answers to one that sent.
fn answers(back: &UdpSocket, front: &Arc<UdpSocket>, to: SocketAddr, line: &Line, loss: u64) {
    let mut chance = Chance(0xD1B5_4A32_D192_ED03);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok((length, _)) = back.recv_from(&mut buffer) else { continue };
        if chance.percent() >= loss {
            line.push(front, to, &buffer[..length]);
        }
    }
}

impl Line {
    fn push(&self, from: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        let due = Instant::now() + Task::DELAY;
        let mut queue = lock(&self.queue);
        if queue.len() < QUEUE {
            queue.push_back(Packet { due, from: Arc::clone(from), to, bytes: bytes.to_vec() });
            self.more.notify_one();
        }
    }
}

/// The delay is the same for all, so they are due in the order they came.
fn let_go(line: &Line) {
    loop {
        let mut queue = lock(&line.queue);
        let Some(packet) = queue.pop_front() else {
            drop(line.more.wait(queue).unwrap_or_else(PoisonError::into_inner));
            continue;
        };
        drop(queue);
        std::thread::sleep(packet.due.saturating_duration_since(Instant::now()));
        // Lost, as on any network.
        drop(packet.from.send_to(&packet.bytes, packet.to));
    }
}
