//! Every bound of the wire, in one place.
//!
//! A bound is what a peer may make us hold or do. Each is checked before anything is allocated for
//! it. Bounds of a running node (queues, windows) are settings of that node and live beside it.

/// Longest node name, in bytes: a [`NodeName`](crate::NodeName) is stored inline, so that a
/// [`Pid`](crate::Pid) is `Copy`.
pub const NODE_NAME_BYTES: usize = 32;

/// Longest name of a process, cluster, actor kind or message, in bytes.
pub const NAME_BYTES: usize = 255;

/// Longest [`Key`](crate::Key), in bytes.
pub const KEY_BYTES: usize = 255;

/// Largest frame: one message with its addresses. What is larger is refused by the sender.
pub const FRAME_BYTES: usize = 64 << 20;

/// Most receivers of one frame: as many as its reader serves within a few milliseconds, which other
/// flows have to wait for.
pub const RECEIVERS: usize = 16_384;

/// Largest frame that travels among others in a lane; a larger one leaves it, and is encoded on its
/// own, so that nobody waits for that.
pub const SMALL_FRAME_BYTES: usize = 64 << 10;

/// Largest [`Hello`](crate::Hello), encoded; it is read before the peer has said who it is.
pub const HELLO_BYTES: usize = 8 << 10;

/// Largest request to be taken in with a token, encoded; it is read before anything is known of
/// who asks.
pub const JOIN_REQUEST_BYTES: usize = 4 << 10;

/// Largest answer to it: a certificate, and the authority's.
pub const JOIN_ANSWER_BYTES: usize = 16 << 10;

/// Highest creation of a node. Creations are milliseconds since 1970 or counted up from there, so
/// this leaves eight thousand years; a peer that claims more is refused, lest nobody could follow.
pub const CREATION: u64 = 1 << 48;

/// Most nodes that membership remembers, dead ones included, and most entries in one state.
pub const MEMBERS: usize = 4_096;

/// Hashes in a [`View`](crate::View).
pub const VIEW_SAMPLE: usize = 16;

/// Most labels a node may carry.
pub const LABELS: usize = 32;

/// Longest key or value of a label, in bytes.
pub const LABEL_BYTES: usize = 128;

/// Longest exit reason text (message and backtrace together), in bytes. Longer ones are cut when
/// the reason is made, so that a crash with a huge message cannot fill other nodes.
pub const REASON_BYTES: usize = 16 << 10;

/// Largest datagram payload we send; below QUIC's guaranteed 1,200-byte packet less its overhead.
pub const DATAGRAM_BYTES: usize = 1_100;

/// Largest membership state sent on a stream: 1,000 members with full labels fit.
pub const STATE_BYTES: usize = 16 << 20;

/// Most entries in one page of an administration answer (`ps`, `names`).
pub const PAGE_ENTRIES: usize = 10_000;

/// Deepest nesting of JSON we parse.
pub const JSON_DEPTH: usize = 128;

/// Most entries that one node keeps of its own processes on all others: one for each membership of a
/// process in a group, each topic that is subscribed to, each global name. A node refuses its own
/// processes more.
pub const OWNED_ENTRIES: usize = 262_144;

/// Largest of these entries, key and value together, in bytes.
pub const OWNED_ENTRY_BYTES: usize = 2 << 10;

/// Bytes of entries that are sent at once; more when a single entry has more.
pub const OWNED_PAGE_BYTES: usize = 128 << 10;

/// Removals of entries that a node remembers at least, for those who are behind; as many as it has
/// entries, if that is more.
pub const OWNED_REMOVALS: usize = 4_096;

/// Largest arguments of a child of a cluster supervisor, encoded, in bytes: they are kept on every
/// node. What is larger belongs into a store, and its key here.
pub const CHILD_ARGS_BYTES: usize = 1_024;

/// Longest supervisor name and child id, and longest kind, of a child of a cluster supervisor, in
/// bytes: its record has to fit an entry.
pub const CHILD_NAME_BYTES: usize = 64;

/// Longest exit reason that is kept of a child of a cluster supervisor, in bytes.
pub const CHILD_REASON_BYTES: usize = 80;

/// Most restarts of a child of a cluster supervisor that are counted.
pub const CHILD_RESTARTS: u32 = 16;
