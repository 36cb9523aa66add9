//! What a part of a node holds, right now.

/// How much a part of a node holds of something, and how much that may be.
///
/// Not a count of what happened: it goes up and down. What should be nothing when nobody does
/// anything, and is not, has leaked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauge {
    /// Of what, as `purlin status` calls it; where it ends in `bytes` these are bytes.
    pub what: &'static str,
    /// How much; where there are several of a kind, such as mailboxes or lanes, of the fullest.
    pub now: usize,
    /// How much it may be; `None` where only what it is for has a bound.
    pub bound: Option<usize>,
}

impl Gauge {
    /// Something with a bound.
    pub fn bounded(what: &'static str, now: usize, bound: usize) -> Self {
        Self { what, now, bound: Some(bound) }
    }

    /// Something without one of its own.
    pub fn free(what: &'static str, now: usize) -> Self {
        Self { what, now, bound: None }
    }

    /// Whether it is as it should be.
    pub fn is_within_bound(&self) -> bool {
        self.bound.is_none_or(|bound| self.now <= bound)
    }
}
