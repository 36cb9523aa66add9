//! What a type needs to be sent: a name on the wire and the type of its reply.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type that can be sent to a process, here or on another node.
///
/// The name is what the command line, other languages and older programs call it; it is part of a
/// program's interface and should not change when the Rust type is renamed. By convention it is
/// `kind.verb`. It must be a valid [`Name`](crate::Name).
///
/// Encoded it has 64 MiB at most ([`FRAME_BYTES`](crate::limits::FRAME_BYTES), with its addresses).
/// Large bytes in it are best marked with [`zero_copy`](crate::zero_copy), smaller ones with
/// `serde_bytes`; to serde a plain `Vec<u8>` is a sequence of numbers, a hundred times slower.
///
/// ```
/// use purlin_proto::Message;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct Add(pub i64);
///
/// impl Message for Add {
///     const NAME: &'static str = "counter.add";
///     type Reply = i64;
/// }
/// ```
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// Its name on the wire.
    const NAME: &'static str;

    /// What a call with it answers; `()` where there is nothing to say.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// The name of a message: a constant of this program, or a slice of the frame it came in.
#[derive(Clone)]
pub struct MessageName(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    /// UTF-8, checked when made.
    Wire(Bytes),
}

impl MessageName {
    /// The name of the message type `M`.
    pub const fn of<M: Message>() -> Self {
        Self(Text::Static(M::NAME))
    }

    /// A name from the wire; `None` if it is empty or not UTF-8.
    pub fn from_wire(bytes: Bytes) -> Option<Self> {
        let valid = !bytes.is_empty() && std::str::from_utf8(&bytes).is_ok();
        valid.then_some(Self(Text::Wire(bytes)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(text) => text,
            Text::Wire(bytes) => std::str::from_utf8(bytes).expect("checked when made"),
        }
    }
}

impl From<crate::Name> for MessageName {
    fn from(name: crate::Name) -> Self {
        Self(Text::Wire(Bytes::copy_from_slice(name.as_str().as_bytes())))
    }
}

impl PartialEq for MessageName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for MessageName {}

impl fmt::Debug for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MessageName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for MessageName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::Name::deserialize(deserializer).map(Self::from)
    }
}
