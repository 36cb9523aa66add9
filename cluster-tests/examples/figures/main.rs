//! What names, groups, topics, keyed processes and children of cluster supervisors cost, beside their
//! goals: `scripts/figures` is the way to start it.
//!
//! `figures [NAME]...`: all figures, or those whose name begins so. The measured nodes are processes of
//! their own on loopback: this program, called with `start`, with an [`agent::Agent`] on each. Besides
//! the time that passes it says how long the nodes have computed (`cpu`, all of them together), which
//! is what can be compared on a machine that others use as well.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::unwrap_used, reason = "what cannot be measured has failed")]

mod agent;
mod children;
mod groups;
mod keyed;
mod names;
mod rig;
mod ring;
mod topics;

use std::process::ExitCode;

use mimalloc::MiMalloc;
use purlin::Node;
use purlin::prelude::*;

/// As the stock binary has.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// One line of the table.
struct Figure {
    what: &'static str,
    goal: &'static str,
    measured: String,
    /// `None` if it has no goal.
    met: Option<bool>,
}

impl Figure {
    fn new(what: &'static str, goal: &'static str, met: bool, measured: String) -> Self {
        Self { what, goal, measured, met: Some(met) }
    }

    fn print(&self) {
        let Self { what, goal, measured, met } = self;
        let met = met.map_or("", |met| if met { "yes" } else { "NO" });
        println!("{what:<44} {goal:<22} {met:<4} {measured}");
    }
}

/// Measures some figures, on a cluster of its own if it needs one.
type Trial = fn() -> Vec<Figure>;

const TRIALS: [(&str, Trial); 8] = [
    ("ring", ring::ring),
    ("names", names::names_of_three),
    ("groups", groups::groups),
    ("topics", topics::topics),
    ("keyed", keyed::keyed),
    ("children-kill", children::kill_available),
    ("children-exclusive-kill", children::kill_exclusive),
    ("children-join", children::join),
];

/// A node with everything that is measured.
fn node() -> purlin::NodeBuilder {
    let agent = ChildSpec::actor::<agent::Agent>("agent", ()).name(agent::NAME);
    Node::builder()
        .application("figures", Supervisor::new(Strategy::OneForOne).child(agent))
        .keyed::<keyed::Available>(Keyed::available())
        .keyed::<keyed::Exclusive>(Keyed::exclusive())
        .actor::<children::Idle>()
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "start") {
        return purlin::cli::run(node());
    }
    let wanted = |name: &str| {
        arguments.is_empty() || arguments.iter().any(|wanted| name.starts_with(&**wanted))
    };
    let trials: Vec<_> = TRIALS.into_iter().filter(|(name, _)| wanted(name)).collect();
    if trials.is_empty() {
        eprintln!("no such figures; there are {}", TRIALS.map(|(name, _)| name).join(", "));
        return ExitCode::from(2);
    }
    println!("{:<44} {:<22} {:<4} measured", "figure", "goal", "met");
    let mut missed = false;
    for (_, trial) in trials {
        for figure in trial() {
            figure.print();
            missed |= figure.met == Some(false);
        }
    }
    ExitCode::from(u8::from(missed))
}
