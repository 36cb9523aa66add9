//! Why a process ended, in OTP's words.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::REASON_BYTES;

/// Why a process ended or is asked to end (OTP: exit reason).
///
/// `Normal` and the two shutdowns are orderly ends; everything else is abnormal: it is reported, and
/// a transient child is restarted after it.
///
/// Cheap to clone, so that one crash can tell a hundred thousand watchers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitReason {
    /// It was done. Harms nobody that is linked to it.
    Normal,
    /// It was asked to stop by its supervisor or node.
    Shutdown,
    /// As `Shutdown`, with a word about why.
    ShutdownWith(#[serde(deserialize_with = "word")] Arc<str>),
    /// The request to die at once. Sent with `exit`, it cannot be trapped and becomes `Killed`.
    Kill,
    /// It was killed.
    Killed,
    /// There is no such process (OTP: `noproc`).
    NoProcess,
    /// Its node cannot be reached (OTP: `noconnection`).
    NoConnection,
    /// It returned an error.
    Error(Arc<Fault>),
    /// It panicked.
    Panic(Arc<Fault>),
    /// Any other word that the program chose.
    Other(#[serde(deserialize_with = "word")] Arc<str>),
}

/// What an error or panic said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Uncut")]
pub struct Fault {
    /// The message, with its chain of causes.
    pub message: String,
    /// The backtrace, where `RUST_BACKTRACE` (or `RUST_LIB_BACKTRACE`) enables it.
    pub backtrace: Option<String>,
}

impl Fault {
    /// Message and backtrace, each cut so that both fit [`REASON_BYTES`].
    pub fn new(message: impl Into<String>, backtrace: Option<String>) -> Arc<Self> {
        Arc::new(Uncut { message: message.into(), backtrace }.into())
    }
}

/// A fault as others say it. What they have not cut, we do: it is told to all who watch, and kept.
#[derive(Deserialize)]
struct Uncut {
    message: String,
    backtrace: Option<String>,
}

impl From<Uncut> for Fault {
    fn from(uncut: Uncut) -> Self {
        Self {
            message: cut(uncut.message, REASON_BYTES / 2),
            backtrace: uncut.backtrace.map(|text| cut(text, REASON_BYTES / 2)),
        }
    }
}

/// As for a fault.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    Ok(cut(String::deserialize(from)?, REASON_BYTES).into())
}

/// The longest beginning that has at most `limit` bytes and ends at a character.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.shrink_to_fit();
    }
    text
}

impl ExitReason {
    /// The reason of a process that returned this error: its message and those of its sources.
    pub fn error(message: impl Into<String>) -> Self {
        Self::Error(Fault::new(message, None))
    }

    /// A word of the program's own choice; cut to [`REASON_BYTES`].
    pub fn other(word: impl Into<String>) -> Self {
        Self::Other(cut(word.into(), REASON_BYTES).into())
    }

    /// Whether this is an orderly end: normal or one of the shutdowns.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown | Self::ShutdownWith(_))
    }

    /// The backtrace of the error or panic, where there is one.
    pub fn backtrace(&self) -> Option<&str> {
        match self {
            Self::Error(fault) | Self::Panic(fault) => fault.backtrace.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::ShutdownWith(word) => write!(f, "shutdown: {word}"),
            Self::Kill => f.write_str("kill"),
            Self::Killed => f.write_str("killed"),
            Self::NoProcess => f.write_str("noproc"),
            Self::NoConnection => f.write_str("noconnection"),
            Self::Error(fault) => write!(f, "error: {}", fault.message),
            Self::Panic(fault) => write!(f, "panic: {}", fault.message),
            Self::Other(word) => f.write_str(word),
        }
    }
}

/// Reads what a person types: one of OTP's words, or any other word.
impl From<&str> for ExitReason {
    fn from(word: &str) -> Self {
        match word {
            "normal" => Self::Normal,
            "shutdown" => Self::Shutdown,
            "kill" => Self::Kill,
            "killed" => Self::Killed,
            "noproc" => Self::NoProcess,
            "noconnection" => Self::NoConnection,
            other => Self::other(other),
        }
    }
}
