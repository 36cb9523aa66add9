//! What one process does must not harm others: over real sockets, with a thread for the network.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin::kinds::{Echo, Say};
use purlin::prelude::*;
use purlin_cluster_tests::memory::until_sees;

/// Never yields for so many milliseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Block(u64);

impl Message for Block {
    const NAME: &'static str = "blocker.block";
    type Reply = ();
}

struct Blocker;

impl Actor for Blocker {
    const KIND: &'static str = "blocker";
    type Args = ();
    type Messages = (Block,);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

impl Handler<Block> for Blocker {
    async fn handle(&mut self, Block(millis): Block, _: &mut Context<Self>) -> Outcome {
        std::thread::sleep(Duration::from_millis(millis));
        Ok(())
    }
}

#[test]
fn processes_that_never_yield_do_not_make_their_node_look_dead() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("home");
    let builder =
        || Node::builder().data_dir(&dir).listen("127.0.0.1:0").actor::<Blocker>().actor::<Echo>();
    let two_threads = || {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        threads.worker_threads(2).enable_all().build().unwrap()
    };
    let (blocked, free) = (two_threads(), two_threads());
    let a = blocked.block_on(builder().name("a").start()).unwrap();
    let seed = a.address().to_string();
    let b = free.block_on(builder().name("b").seed(seed).start()).unwrap();
    let a_life = a.id();
    free.block_on(async {
        until_sees(&b, 2).await;
        // More than there are threads.
        for _ in 0..4 {
            b.spawn_on::<Blocker>(&"a".into(), ()).await.unwrap().send(Block(3_500));
        }

        tokio::time::sleep(Duration::from_secs(7)).await;

        assert_eq!(b.members().len(), 2, "longer than detect_in, and it is still a member");
        let echo = b.spawn_on::<Echo>(&"a".into(), ()).await.unwrap();
        assert_eq!(echo.pid().node, a_life, "in the same life");
        assert_eq!(echo.call(Say("back".into())).await, Ok("back".into()));
        b.stop().await;
    });
    blocked.block_on(a.stop());
}
