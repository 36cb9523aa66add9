//! What Erlang/OTP promises of processes, as scenarios that hold on one node and on two.
//!
//! Each test is named after its rule and begins with the rule's code: SG signals, LK links, EX exit
//! signals, MO monitors, NM names, TM timers, SP spawning, ND nodes, GS calls and servers. The
//! scenarios are OTP's reference manual and test suites in other words. A body is written once and
//! runs in both places where it makes sense (`place.rs`); most parties are processes moved by hand
//! (`hand.rs`). What is only seen on threads runs there, in real time. A test that is ignored says
//! which bug it waits for.
//!
//! # Where Purlin differs, and what is tested instead
//!
//! | Code | Purlin |
//! |---|---|
//! | SG-16 | a process that never yields ends at its next `await`; it is not alive from the signal on |
//! | LK-7, LK-8 | linking to the dead raises nothing: an exit signal comes, wherever the dead were |
//! | MO-6, MO-7 | no `flush` and no `info`: `demonitor` says whether the monitor was active |
//! | MO-8 | the reference of another process's monitor is one that is unknown |
//! | MO-14 | who is told `noconnection` is not told again, and the old pid is dead for good |
//! | MO-16 | a reason is cut to `REASON_BYTES` where it is made |
//! | NM-2, NM-3 | a `Result` and an `Option` instead of `badarg` |
//! | SP-2, SP-3 | spawning elsewhere waits for the answer, and an unreachable node is an error |
//! | SP-6 | an unknown kind is an error; no child is made |
//! | SP-9 | a child whose parent gave up waiting may live, linked, and ends with its parent |
//! | ND-2 | asking for nodes twice is asking once |
//! | ND-7 | `left`, or not |
//! | ND-8 | within `detect_in` |
//! | ND-15, ND-16 | a second living node of a name is refused; its next life replaces it |
//! | GS-9 | `stop` is an exit with an orderly reason; a node or process that is gone is none |
//! | GS-12 | rubbish does not compile; a deferred reply that was not deferred ends the process |
//! | GS-15 | a crash is counted, logged and observed without the message and the state |
//! | GS-16 | any number of call futures at once |
//!
//! # What does not apply
//!
//! | Code | Why |
//! |---|---|
//! | SG-20 | `receive` is a future: polling it and `tokio::time::timeout` are `after`; one place only |
//! | SG-21 | hostile bytes never reach a process; the node closes the link as a protocol violation |
//! | AL-* | no aliases: a reply is addressed to its call, and a late one is dropped and counted |
//! | MO-15 | no tags: a `Down` has its type and the reference that `monitor` returned |
//! | TM-1 | no `start_timer`: what comes is a typed message |
//! | TM-2 | a second cancel does not compile: the first one consumes the timer |
//! | TM-6 | negative times and timers of others do not compile |
//! | TM-7 | cancelling never waits |
//! | SP-5, SP-7 | no options to be unknown or to suppress replies; dropping the future wants no reply |
//! | SP-10 | no group leader: logs and output are the node's |
//! | SP-11 | the limit is set on a bare runtime, not through `Node` |
//! | ND-10, ND-12 | no hidden nodes, no manual mesh: who is a member is connected to as needed |
//! | ND-19 | nobody is disconnected by hand |
//! | ND-20 | versions are compared in the hello: the suite of `transport` |
//! | GS-5 | no `continue`: what `start` does is done before any message |
//! | GS-17 | no multicall: one call each, joined |

#![expect(clippy::unwrap_used, reason = "a test")]

mod actors;
mod calls;
mod exits;
mod hand;
mod links;
mod moments;
mod monitors;
mod names;
mod nodes;
mod place;
mod signals;
mod spawning;
mod timers;
