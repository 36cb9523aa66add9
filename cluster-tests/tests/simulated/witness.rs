//! What may be there once, as its processes say of themselves: when each begins, when it does
//! something and when it is gone. Instants are the world's, so those of all machines can be compared.

use std::cell::RefCell;
use std::collections::BTreeMap;

use purlin::{Fence, NodeName};

#[derive(Debug, Clone, PartialEq)]
struct Act {
    /// Which of all that may be there once.
    of: String,
    node: NodeName,
    fence: Fence,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Begins,
    Acts,
    Ends,
}

thread_local! {
    /// In the order in which it happened, by test. All machines of a test are in its thread.
    static SEEN: RefCell<BTreeMap<String, Vec<Act>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Says when it is dropped, whatever ends the process.
pub(crate) struct Place {
    of: String,
    node: NodeName,
    fence: Fence,
}

impl Place {
    /// `of` begins with the name of its test, up to a `/` or a dot.
    pub(crate) fn begin(of: &str, node: NodeName, fence: Fence) -> Self {
        let place = Self { of: of.to_owned(), node, fence };
        place.note(What::Begins);
        place
    }

    pub(crate) fn act(&self) {
        self.note(What::Acts);
    }

    pub(crate) fn node(&self) -> NodeName {
        self.node
    }

    fn note(&self, what: What) {
        let test = self.of.split(['/', '.']).next().unwrap_or_default().to_owned();
        let act = Act { of: self.of.clone(), node: self.node, fence: self.fence, what };
        // A machine that is dropped when the thread ends has nobody left to tell.
        let _ = SEEN.try_with(|seen| seen.borrow_mut().entry(test).or_default().push(act));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.note(What::Ends);
    }
}

/// Of each: none acts or begins after one of a greater token has begun, tokens rise, and one has
/// ended before the next begins, unless crashed or frozen machines could not say so. How much was
/// seen.
pub(crate) fn check(test: &str, all_say_their_end: bool) -> usize {
    let acts = SEEN.with_borrow(|seen| seen.get(test).cloned()).expect("something has begun");
    let (mut newest, mut present) = (BTreeMap::new(), BTreeMap::new());
    for act in &acts {
        let before = newest.get(&act.of).copied();
        match act.what {
            What::Begins => {
                assert!(before.is_none_or(|before| act.fence > before), "{act:?} after {before:?}");
                let other = present.insert(&act.of, act.fence);
                if all_say_their_end {
                    assert_eq!(other, None, "{act:?} while another one has it");
                }
                newest.insert(&act.of, act.fence);
            }
            What::Acts => assert_eq!(before, Some(act.fence), "{act:?} acts after a newer one"),
            What::Ends => {
                if present.get(&act.of) == Some(&act.fence) {
                    present.remove(&act.of);
                }
            }
        }
    }
    acts.len()
}

/// The newest fence of each.
pub(crate) fn fences(test: &str) -> BTreeMap<String, Fence> {
    let acts = SEEN.with_borrow(|seen| seen.get(test).cloned()).expect("something has begun");
    acts.into_iter().map(|act| (act.of, act.fence)).collect()
}

/// Whoever begins from now on belongs to another run.
pub(crate) fn forget(test: &str) {
    SEEN.with_borrow_mut(|seen| seen.remove(test));
}
