//! A process that hands a test all it receives. With the probe dropped, the next ends it.

use std::time::Duration;

use purlin::{Down, LinkDown, Node, Pid, RawContext, RawKind, Received};
use tokio::sync::mpsc;

pub static PROBE: RawKind = RawKind::new("probe");

/// A raw process that hands a test all it receives.
pub struct Probe {
    pub pid: Pid,
    received: mpsc::UnboundedReceiver<Received>,
}

impl Probe {
    pub fn start(node: &Node, begin: impl FnOnce(&mut RawContext)) -> Self {
        let (tell, received) = mpsc::unbounded_channel();
        let pid = node
            .runtime()
            .spawn_raw(&PROBE, |mut ctx| {
                begin(&mut ctx);
                async move {
                    loop {
                        let received = ctx.receive().await?;
                        if tell.send(received).is_err() {
                            return Ok(());
                        }
                    }
                }
            })
            .unwrap();
        Self { pid, received }
    }

    pub async fn next(&mut self) -> Received {
        tokio::time::timeout(Duration::from_secs(30), self.received.recv())
            .await
            .expect("something within 30 s")
            .expect("the probe lives")
    }

    pub async fn down(&mut self) -> Down {
        match self.next().await {
            Received::Down(down) => down,
            other => panic!("{other:?}"),
        }
    }

    pub async fn link_down(&mut self) -> LinkDown {
        match self.next().await {
            Received::LinkDown(link_down) => link_down,
            other => panic!("{other:?}"),
        }
    }

    /// Whether nothing comes for two seconds.
    pub async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(2), self.received.recv()).await.is_err()
    }

    /// Whether nothing has come so far.
    pub fn has_nothing(&mut self) -> bool {
        match self.received.try_recv() {
            Ok(received) => panic!("{received:?}"),
            Err(error) => error == mpsc::error::TryRecvError::Empty,
        }
    }
}
