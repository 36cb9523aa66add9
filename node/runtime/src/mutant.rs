//! Bugs that are planted on purpose, to see that the simulator finds them (`scripts/mutants`).
//!
//! Without the feature `mutants`, which nothing but that script turns on, every answer is a constant
//! no, and nothing of it is left in the program.

/// Whether this bug is to be had: the environment's `PURLIN_MUTANT` names it.
#[cfg(feature = "mutants")]
pub fn is_planted(mutant: &str) -> bool {
    std::env::var("PURLIN_MUTANT").is_ok_and(|planted| planted == mutant)
}

/// None is.
#[cfg(not(feature = "mutants"))]
pub const fn is_planted(_: &str) -> bool {
    false
}
