//! What is measured, by name.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a receiver may take to confirm what was sent after the sender has stopped, without any
/// progress. What is missing then was lost.
pub const GRACE: Duration = Duration::from_secs(3);

/// One kind of traffic between two OS processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// One caller and 64 B there and back.
    RoundTrip,
    /// Messages of a size from each of some senders to a receiver of its own, which confirms.
    OneWay {
        /// Bytes in a message.
        size: usize,
        /// Senders, and receivers.
        pairs: usize,
    },
    /// Calls of 64 B by so many callers at once.
    Calls {
        /// Callers at once.
        callers: usize,
    },
    /// Round trips of 64 B while another pair streams messages of 8 MiB.
    BesideBulk {
        /// Whether they stream both ways.
        both: bool,
    },
    /// Round trips of 64 B while a process that takes 1 ms for a message is sent as many as go.
    Overload,
    /// So many processes watch one of the other node, which is killed with -9.
    Monitors,
    /// A process is started on the other node, ends, and its end is noticed here.
    SpawnExit,
    /// One message of 1 KiB to each of 10,000 processes.
    FanOut,
}

/// A workload, perhaps over a bad network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// What runs.
    pub workload: Workload,
    /// Percent of the packets that are lost, each way, by a relay that also delays them by 10 ms.
    pub loss: Option<u8>,
}

const SIZES: [(&str, usize); 4] =
    [("64b", 64), ("1k", 1 << 10), ("64k", 64 << 10), ("1m", 1 << 20)];

impl Task {
    /// Watchers in [`Workload::Monitors`].
    pub const WATCHERS: u64 = 100_000;
    /// Receivers in [`Workload::FanOut`].
    pub const AUDIENCE: usize = 10_000;
    /// Delay of the relay, each way.
    pub const DELAY: Duration = Duration::from_millis(10);

    /// Everything that is measured, in the order of the table.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Workload::RoundTrip];
        for (_, size) in SIZES {
            all.extend([1, 100].map(|pairs| Workload::OneWay { size, pairs }));
        }
        all.extend([1, 64, 1_000].map(|callers| Workload::Calls { callers }));
        all.extend([false, true].map(|both| Workload::BesideBulk { both }));
        all.extend([Workload::Overload, Workload::Monitors, Workload::SpawnExit, Workload::FanOut]);
        let of = |loss| all.iter().map(move |workload| Self { workload: *workload, loss });
        [None, Some(1), Some(5)].into_iter().flat_map(of).collect()
    }

    /// How many processes of the far side it needs, for systems that start them there themselves.
    pub fn targets(&self) -> usize {
        match self.workload {
            Workload::OneWay { pairs, .. } => pairs,
            Workload::Calls { callers } => callers.min(64),
            Workload::BesideBulk { .. } => 3,
            Workload::Overload => 2,
            Workload::FanOut => Self::AUDIENCE,
            Workload::RoundTrip | Workload::Monitors | Workload::SpawnExit => 1,
        }
    }

    /// What it is, for people.
    pub fn title(&self) -> String {
        let what = match self.workload {
            Workload::RoundTrip => "round trip 64 B".to_owned(),
            Workload::OneWay { size, pairs } => {
                let size = match size {
                    64 => "64 B",
                    1_024 => "1 KiB",
                    65_536 => "64 KiB",
                    _ => "1 MiB",
                };
                format!("one-way {size} {pairs}→{pairs}")
            }
            Workload::Calls { callers: 1 } => "calls 64 B, 1 caller".to_owned(),
            Workload::Calls { callers } => format!("calls 64 B, {callers} callers"),
            Workload::BesideBulk { both: false } => "64 B beside 8 MiB one way".to_owned(),
            Workload::BesideBulk { both: true } => "64 B beside 8 MiB both ways".to_owned(),
            Workload::Overload => "64 B beside a flooded process".to_owned(),
            Workload::Monitors => "100,000 remote monitors, kill -9".to_owned(),
            Workload::SpawnExit => "remote spawn + exit".to_owned(),
            Workload::FanOut => "1 KiB to 10,000 remote processes".to_owned(),
        };
        match self.loss {
            Some(percent) => format!("{what}, {percent} % loss + 10 ms"),
            None => what,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(percent) = self.loss {
            write!(f, "loss-{percent}-")?;
        }
        match self.workload {
            Workload::RoundTrip => write!(f, "round-trip"),
            Workload::OneWay { size, pairs } => {
                let known = SIZES.iter().find(|(_, bytes)| *bytes == size);
                write!(f, "one-way-{}-{pairs}", known.map_or("other", |(name, _)| name))
            }
            Workload::Calls { callers } => write!(f, "calls-{callers}"),
            Workload::BesideBulk { both: false } => write!(f, "beside-bulk"),
            Workload::BesideBulk { both: true } => write!(f, "beside-bulk-both"),
            Workload::Overload => write!(f, "overload"),
            Workload::Monitors => write!(f, "monitors"),
            Workload::SpawnExit => write!(f, "spawn-exit"),
            Workload::FanOut => write!(f, "fan-out"),
        }
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::all().into_iter().find(|task| task.to_string() == name);
        found.ok_or_else(|| format!("there is no workload {name}; see --list"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_found_by_its_name() {
        for task in Task::all() {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
    }
}
