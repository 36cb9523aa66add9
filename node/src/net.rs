//! The thread that the network runs on.
//!
//! Heartbeats must not wait for user code: a process that never yields would make its node look
//! dead. So membership has a thread and a tokio runtime of its own, and the transport's tasks live
//! there, unless the network is one in memory, where everything shares the test's (paused) time.
//! Workers that are free poll the transport's tasks in its stead; see `transport/executor.rs`.

use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) struct Net {
    handle: Handle,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Net {
    /// Runs on the present tokio runtime.
    pub(crate) fn shared() -> Self {
        Self { handle: Handle::current(), thread: None }
    }

    /// Runs on a thread of its own.
    pub(crate) fn own(node: &str) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread =
            std::thread::Builder::new().name(format!("purlin-{node}")).spawn(move || {
                // Ends when it is told to, or when the node is gone.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self { handle, thread: Some((stop, thread)) })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a future on the network's thread and waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.handle.spawn(future).await.ok()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            // The thread may have ended by itself.
            let _ = stop.send(());
            // Joining would block whoever drops the node; the thread has nothing left to do.
            drop(thread);
        }
    }
}
