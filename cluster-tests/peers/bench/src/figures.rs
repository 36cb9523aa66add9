//! Medians, spreads and goals.

use meter::{Outcome, Report, Task, Workload};

use crate::rounds::Cell;
use crate::systems::System;

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Figure {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, least, most })
    }
}

impl Cell {
    pub(crate) fn reports(&self) -> impl Iterator<Item = &Report> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Done(report) => Some(report),
            _ => None,
        })
    }

    pub(crate) fn figure(&self, metric: &str) -> Option<Figure> {
        let value = |report: &Report| {
            report.metrics.iter().find(|found| found.name == metric).map(|found| found.value)
        };
        Figure::of(self.reports().filter_map(value).collect())
    }

    /// CPU of the sender and of the receiver, ns a message.
    pub(crate) fn cpu(&self) -> Option<(Figure, Figure)> {
        let cpus: Vec<_> = self.reports().filter_map(|report| report.cpu_ns_per_msg).collect();
        let side = |of: fn(&meter::Cpu) -> f64| Figure::of(cpus.iter().map(of).collect());
        Some((side(|cpu| cpu.client)?, side(|cpu| cpu.server)?))
    }

    /// The share of what was sent that never arrived, in all rounds together.
    pub(crate) fn lost(&self) -> f64 {
        let sent: u64 = self.reports().map(|report| report.sent).sum();
        let received: u64 = self.reports().map(|report| report.received).sum();
        if sent == 0 { 0.0 } else { sent.saturating_sub(received) as f64 / sent as f64 }
    }

    /// Why there is nothing to show.
    pub(crate) fn trouble(&self) -> Option<(&'static str, &str)> {
        self.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Done(_) => None,
            Outcome::Missing(why) => Some(("–", why.as_str())),
            Outcome::Failed(why) if why.starts_with("timed out") => Some(("timed out", why)),
            Outcome::Failed(why) => Some(("failed", why)),
        })
    }
}

/// What Purlin is to reach.
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Of the ceiling with the same settings.
    ShareOfBare(f64),
    TimesBare(f64),
}

impl Goal {
    pub(crate) fn of(task: Task, metric: &str) -> Option<Self> {
        if task.loss.is_some() {
            return None;
        }
        match (task.workload, metric) {
            (Workload::RoundTrip, "p50") => Some(Self::TimesBare(1.2)),
            (Workload::OneWay { size: 64, pairs: 1 }, "rate") => Some(Self::AtLeast(5e6)),
            (Workload::OneWay { size: 64, .. }, "rate") => Some(Self::AtLeast(6e6)),
            (Workload::OneWay { size, .. }, "bytes") if size >= 65_536 => {
                Some(Self::ShareOfBare(0.9))
            }
            (Workload::Calls { callers: 64 }, "rate") => Some(Self::AtLeast(5e5)),
            (Workload::Calls { callers: 1_000 }, "rate") => Some(Self::AtLeast(6e5)),
            // Microseconds, and milliseconds.
            (Workload::BesideBulk { .. }, "p99") | (Workload::Monitors, "kill -9 noticed") => {
                Some(Self::AtMost(1_000.0))
            }
            (Workload::Monitors, "first to last notice") => Some(Self::AtMost(60.0)),
            _ => None,
        }
    }

    /// Whether it is reached, if that can be said.
    pub(crate) fn reached(&self, cells: &[&Cell], metric: &str) -> Option<bool> {
        let of = |system: System| {
            cells.iter().find(|cell| cell.system == system)?.figure(metric).map(|f| f.median)
        };
        let own = of(System::Purlin)?;
        Some(match self {
            Self::AtLeast(goal) => own >= *goal,
            Self::AtMost(goal) => own <= *goal,
            Self::ShareOfBare(share) => own >= share * of(System::Bare)?,
            Self::TimesBare(times) => own <= times * of(System::Bare)?,
        })
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, "≥ {}", short(*goal)),
            Self::AtMost(goal) => write!(f, "≤ {}", short(*goal)),
            Self::ShareOfBare(share) => write!(f, "≥ {share} × bare"),
            Self::TimesBare(times) => write!(f, "≤ {times} × bare"),
        }
    }
}

/// Three digits and a letter.
pub(crate) fn short(value: f64) -> String {
    let (value, letter) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e4 => (v / 1e3, " k"),
        v => (v, ""),
    };
    match value {
        v if v >= 100.0 => format!("{v:.0}{letter}"),
        v if v >= 10.0 => format!("{v:.1}{letter}"),
        v => format!("{v:.2}{letter}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let figure = Figure::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(figure, Some(Figure { median: 2.5, least: 1.0, most: 4.0 }));
    }

    #[test]
    fn figures_are_short() {
        let shown = [0.5, 12.34, 999.4, 12_345.0, 5_600_000.0].map(short);
        assert_eq!(shown, ["0.50", "12.3", "999", "12.3 k", "5.60 M"]);
    }
}
