//! A gigabyte for one who never reads: from another node, and from a client.

use std::time::Duration;

use purlin::prelude::*;
use purlin::proto::{Codec, MessageName, Name, Payload};
use purlin_cluster_tests::numbered::Numbered;
use purlin_cluster_tests::process::Cluster;

use crate::support::{check, client, honest, run, start, taken};

/// Takes one message and never another.
pub(crate) struct Stuck;

impl Actor for Stuck {
    const KIND: &'static str = "stuck";
    type Args = ();
    type Messages = (Numbered,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<Numbered> for Stuck {
    async fn handle(&mut self, _: Numbered, _: &mut Context<Self>) -> Outcome {
        std::future::pending().await
    }
}

const MESSAGE: usize = 1 << 20;
const MESSAGES: u64 = 1_024;

/// What the senders of one other node may take up (256 MiB), and a client's share (128 MiB), with what
/// is under way.
const MOST_MIB: usize = 256 + 128 + 128;

pub(crate) fn push(_: Duration) -> crate::Outcome {
    run(async {
        let cluster = Cluster::default();
        let node = start(&cluster, "tortured", &[]);
        let friend = honest(&cluster, &node).await;
        let before = taken(&node);
        let stuck = friend.spawn_on::<Stuck>(&"tortured".into(), ()).await;
        let stuck = stuck.map_err(|error| error.to_string())?;
        let mut most = before.mib;
        for number in 0..MESSAGES {
            friend.send(&stuck, Numbered::new(number, MESSAGE));
            tokio::time::sleep(Duration::from_millis(1)).await;
            most = most.max(taken(&node).mib);
        }
        let of_node = most;
        let client = client(&cluster, &node).await?;
        for _ in 0..MESSAGES {
            let payload = Payload { codec: Codec::Bincode, bytes: vec![0; MESSAGE].into() };
            let name = MessageName::from(Name::from(Numbered::NAME));
            client.send_raw(stuck.pid(), name, payload).await.map_err(|error| error.to_string())?;
            most = most.max(taken(&node).mib);
        }
        // Served all the same.
        client.status().await.map_err(|error| error.to_string())?;
        most = most.max(taken(&node).mib);
        let figures = format!(
            "1 GiB from a node: {} MiB more; then 1 GiB from a client: {} MiB more at most",
            of_node - before.mib,
            most - before.mib
        );
        check(most - before.mib < MOST_MIB, figures)
    })
}
