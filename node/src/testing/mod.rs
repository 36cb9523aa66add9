//! A whole cluster in one test: real nodes on simulated machines, time and network, from a seed.
//! Behind the feature `testing`.
//!
//! ```
//! use std::time::Duration;
//! use purlin::prelude::*;
//! use purlin::testing::Cluster;
//!
//! # #[derive(Debug, Serialize, Deserialize)]
//! # pub struct Add(pub i64);
//! # impl Message for Add {
//! #     const NAME: &'static str = "counter.add";
//! #     type Reply = i64;
//! # }
//! # pub struct Counter(i64);
//! # impl Actor for Counter {
//! #     const KIND: &'static str = "counter";
//! #     type Args = i64;
//! #     type Messages = (Add,);
//! #     async fn start(total: i64, _: &mut Context<Self>) -> Outcome<Self> {
//! #         Ok(Self(total))
//! #     }
//! # }
//! # impl Handler<Add> for Counter {
//! #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Outcome<i64> {
//! #         self.0 += n;
//! #         Ok(self.0)
//! #     }
//! # }
//! fn main() {
//!     let cluster = Cluster::builder(7).nodes(3).with(|node| node.actor::<Counter>()).start();
//!
//!     cluster.run(async |cluster| {
//!         let counter = cluster.node("n0").spawn_on::<Counter>("n1", 10).await.unwrap();
//!         assert_eq!(cluster.node("n2").call(&counter, Add(1)).await, Ok(11));
//!
//!         cluster.cut("n1", "n2");
//!         cluster.advance(Duration::from_secs(10)).await;
//!         assert_eq!(cluster.node("n0").call(&counter, Add(1)).await, Ok(12));
//!         assert!(cluster.node("n2").call(&counter, Add(1)).await.is_err());
//!
//!         cluster.crash("n1");
//!         cluster.advance(Duration::from_secs(10)).await;
//!         assert_eq!(cluster.node("n0").members(), ["n0".into(), "n2".into()]);
//!
//!         cluster.heal();
//!         cluster.restart("n1").await;
//!         cluster.until_whole(Duration::from_mins(1)).await;
//!         let lost = cluster.node("n0").call(&counter, Add(1)).await;
//!         assert_eq!(lost, Err(CallError::NoProcess)); // it died with its node
//!     });
//! }
//! ```
//!
//! # What is real
//!
//! Everything above the UDP socket: runtime, supervisors, router, membership, quinn, rustls. Each node
//! has a machine of its own: a tokio runtime with a clock of its own, on which all that its actors
//! spawn runs as well. It can [lose its power](Cluster::crash) or its [process](Cluster::kill) and be
//! [restarted](Cluster::restart), [frozen](Cluster::freeze) and [slowed](Cluster::slow), and its clocks
//! can run [wrong](Cluster::skew). Its disk has what its node must not forget (the number of its last
//! life, what it has promised as a voter, states of keys), survives crashes, and can be
//! [slow, full or read-only](Cluster::set_disk). Between them, [`Road`]s lose, repeat, delay and reorder packets, have
//! room for only so many, or are cut, both ways or one.
//!
//! Certificates are given to nodes, and nobody joins by a token; so nothing of that is on a disk here.
//! The number of a life is written in no time, whatever the disk is like.
//!
//! # The same seed, the same run
//!
//! A run depends on the seed and the test alone, down to every byte of every packet
//! ([`Cluster::digest`], [`Cluster::log`]), as long as the actors do: they must take time from tokio,
//! chance from a generator with a seed, and must not let threads (`ctx.blocking`, `spawn_blocking`) or
//! the order of a `HashMap` decide what they do. `tokio::select!` without `biased` is chance too. A
//! minute of a small cluster takes about a second of real time without optimization, much less with.
//!
//! # When not to use it
//!
//! For what depends on real sockets, disks or several threads at once. An actor that never waits holds
//! the whole world.

mod authority;
mod cluster;
mod disk;
mod log;
mod machine;
mod node;
mod store;
mod world;

pub use purlin_transport::simulated::{Digest, Road};

pub use self::cluster::{Builder, Cluster};
pub use self::disk::DiskState;
pub(crate) use self::disk::SimulatedDisk;
pub use self::log::Log;
pub use self::node::SimulatedNode;
