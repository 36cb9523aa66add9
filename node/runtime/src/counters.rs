//! What was lost, late or refused, counted by reason: loss is never silent.

use std::sync::atomic::{AtomicU64, Ordering};

use purlin_proto::admin::Counter;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)*) => {
        /// Counts of one runtime since it started.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $field: Count,)*
        }

        impl Counters {
            /// All counts, by name.
            pub fn snapshot(&self) -> Vec<Counter> {
                vec![$(Counter { name: $name.to_owned(), count: self.$field.value() },)*]
            }
        }
    };
}

counters! {
    /// The receiver was gone, or its name unknown.
    dropped_no_process = "dropped.no_process",
    /// The receiver's node could not be reached.
    dropped_no_connection = "dropped.no_connection",
    /// The receiver's mailbox was full.
    dropped_mailbox_full = "dropped.mailbox_full",
    /// The queue to the receiver's node was full.
    dropped_link_full = "dropped.link_full",
    /// What a client had sent before took up all that a client's messages may.
    dropped_client_ahead = "dropped.client_ahead",
    /// The message could not be encoded.
    dropped_not_encodable = "dropped.not_encodable",
    /// The receiver does not accept the message, or its body has another form.
    dropped_not_understood = "dropped.not_understood",
    /// It was for a key, had been sent on once already, and this node is not the key's owner either.
    dropped_not_owner = "dropped.not_owner",
    /// The caller had given up before the call was handled.
    expired_calls = "calls.expired",
    /// A reply came after its caller had given up.
    late_replies = "replies.late",
    /// Something came from, or was meant for, a life of a node that is over.
    dropped_old_life = "dropped.old_life",
    /// A node told the end of another node's process.
    dropped_forged = "dropped.forged",
    /// Handlers that have held a worker thread for 100 ms or more without an `await`.
    held_workers = "handlers.held_worker",
    /// Processes that ended with an abnormal reason.
    crashed = "processes.crashed",
    /// Children that supervisors restarted.
    restarted = "processes.restarted",
    /// Keyed processes that were started.
    keyed_started = "keyed.started",
    /// Starts of keyed processes that failed.
    keyed_not_started = "keyed.not_started",
    /// Keyed processes that were ended because they were idle.
    keyed_passivated = "keyed.passivated",
    /// Keyed processes that were ended because their key has another owner.
    keyed_moved = "keyed.moved",
    /// Of these, those whose state went to the new owner.
    keyed_handed_over = "keyed.handed_over",
    /// Keys that were not let go of in time, so that they may have had two processes and their state
    /// is not where it should be.
    keyed_handoff_timeout = "keyed.handoff_timeout",
    /// Nodes that could not be asked to let go of a key.
    keyed_not_released = "keyed.not_released",
    /// States of keyed processes that were stored.
    keyed_saved = "keyed.saved",
    /// States of keyed processes that are lost, for they could not be stored.
    keyed_not_saved = "keyed.not_saved",
    /// Keyed processes that began with a state.
    keyed_restored = "keyed.restored",
    /// Keyed processes that did not begin, for their state could not be loaded or understood.
    keyed_not_restored = "keyed.not_restored",
    /// Keys that are not remembered, for the node has too many entries.
    keyed_not_remembered = "keyed.not_remembered",
    /// Exclusive processes that were ended because this node does not hold their keys any more.
    exclusive_ended = "exclusive.ended",
    /// What was said in the name of earlier owners of exclusive shards, and refused.
    exclusive_stale = "exclusive.stale",
    /// Children of cluster supervisors that began with the state that they had elsewhere.
    children_restored = "children.restored",
    /// States of children that are lost, for they could not be encoded.
    children_not_left = "children.not_left",
    /// Messages for keys that were sent on to their owner.
    keyed_forwarded = "keyed.forwarded",
    /// Senders that switched to the new owner of a key before what they had sent to the old one was
    /// known to have arrived.
    keyed_not_followed = "keyed.not_followed",
}

impl Counters {
    /// A client's message was dropped, because what it had sent before takes up all it may.
    pub fn client_ahead(&self) {
        self.dropped_client_ahead.add();
    }
}

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
