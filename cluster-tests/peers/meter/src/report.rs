//! What a run found, as one line of JSON.

use serde::{Deserialize, Serialize};

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

/// CPU time of both processes over the measured part, by what was received meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Of the sender, ns a message.
    pub client: f64,
    /// Of the receiver, ns a message.
    pub server: f64,
}

/// What one run of one workload found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub workload: String,
    /// The figures, the most important first.
    pub metrics: Vec<Metric>,
    /// Messages that were sent in the measured part.
    pub sent: u64,
    /// Messages that the receivers have confirmed.
    pub received: u64,
    /// What a message cost.
    pub cpu_ns_per_msg: Option<Cpu>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran.
    Done(Report),
    /// The system cannot do this.
    Missing(String),
    /// It should have run.
    Failed(String),
}

impl Metric {
    /// A figure.
    pub fn new(name: &str, value: f64, unit: &str) -> Self {
        Self { name: name.to_owned(), value, unit: unit.to_owned() }
    }
}
