//! What must hold in every run, whatever happens; one file each.
//!
//! An invariant sees every [`Event`] in order, and [`Facts`] that are brought up to date before it
//! does. It knows nothing of how nodes work: only what a program on them could see, and, at the end,
//! what an operator could ask. Those that are a question to the whole cluster (members agree, something
//! gets through between every pair) are in `simulation/after.rs`.

mod at_most_once;
mod bounded_memory;
mod dead_incarnation;
mod down_comes_last;
mod groups_equal;
mod links_symmetric;
mod lives_of_nodes;
mod names_unique;
mod no_false_alarm;
mod nothing_leaks;
mod nothing_lost;
mod one_at_a_time;
mod one_down;
mod one_holder;
mod one_per_child;
mod one_per_key;
mod pair_order;
mod publications;
mod supervisors;

use purlin::{Gauge, NodeName};

use crate::simulation::record::{Event, Facts};

/// Something that must hold.
pub trait Invariant {
    fn name(&self) -> &'static str;

    /// Something happened.
    fn see(&mut self, event: &Event, facts: &Facts) -> Result<(), String>;

    /// What a node holds, ten times a second.
    fn look(&mut self, _: NodeName, _: &[Gauge], _: &Facts) -> Result<(), String> {
        Ok(())
    }

    /// It is all over: roads are good, nobody does anything any more, and some time has passed.
    fn end(&mut self, _: &Facts) -> Result<(), String> {
        Ok(())
    }

    /// And now all workers have ended, too. Asked again for a while if something is wrong.
    fn gone(&mut self, _: &Facts) -> Result<(), String> {
        Ok(())
    }
}

/// All of them, for a new run.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(at_most_once::AtMostOnce::default()),
        Box::new(bounded_memory::BoundedMemory),
        Box::new(dead_incarnation::DeadIncarnation::default()),
        Box::new(down_comes_last::DownComesLast::default()),
        Box::new(groups_equal::GroupsEqual::default()),
        Box::new(links_symmetric::LinksSymmetric::default()),
        Box::new(lives_of_nodes::LivesOfNodes::default()),
        Box::new(names_unique::NamesUnique::default()),
        Box::new(no_false_alarm::NoFalseAlarm),
        Box::new(nothing_leaks::NothingLeaks),
        Box::new(nothing_lost::NothingLost::default()),
        Box::new(one_at_a_time::OneAtATime::default()),
        Box::new(one_down::OneDown::default()),
        Box::new(one_holder::OneHolder::default()),
        Box::new(one_per_child::OnePerChild),
        Box::new(one_per_key::OnePerKey),
        Box::new(pair_order::PairOrder::default()),
        Box::new(publications::Publications::default()),
        Box::new(supervisors::Supervisors::default()),
    ]
}
