//! Talk to the processes of a Purlin cluster from a program that is not a node.
//!
//! A [`Client`] is connected to one node at a time, through which it reaches every process of the
//! cluster. When that node dies it connects to another; what was under way ends with a clear error.
//!
//! ```no_run
//! use purlin_client::{Client, Credentials, Message};
//! # use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Add(i64);
//! impl Message for Add {
//!     const NAME: &'static str = "counter.add";
//!     type Reply = i64;
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::from_dir("/home/me/.purlin")?;
//! let client = Client::connect(["10.0.0.1:7400", "10.0.0.2:7400"], credentials).await?;
//! let total = client.call("hits@b", Add(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it may do
//!
//! What the permissions in its certificate say (`purlin token create --may`), or, if it names the
//! client, the config of the node that it is connected to; an operator's may do everything. All else ends with [`CallError::Forbidden`], which says what was tried.
//!
//! # Its certificate
//!
//! Is good for a year, and made anew by the client itself when a quarter of that is left, while it is
//! connected: in the directory of [`Credentials::from_dir`], without ending anything
//! ([`ClientBuilder::renewal`]). What `purlin cert renew` writes there is noticed within a minute.
//!
//! # When not to use it
//!
//! In a program that runs processes of its own: be a node then (`purlin::Node`).

mod client;
mod connection;
mod groups;
mod renewal;
mod subscription;

pub use purlin_proto::{
    CallError, Codec, Dest, Down, ExitReason, Group, GroupEvent, Key, Message, MessageName, Name,
    NodeName, Payload, Pick, Pid, Reference, SpawnError, admin, zero_copy,
};
pub use purlin_transport::{Credentials, CredentialsError, Network};

pub use crate::client::{Client, ClientBuilder, ConnectError, Events, Monitor, SpawnOptions};
pub use crate::groups::GroupMonitor;
pub use crate::subscription::{Subscription, SubscriptionError};
