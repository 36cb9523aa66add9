//! Asking the writer of a stream to finish it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// Told when the far end has all of a stream.
pub(crate) type Finished = oneshot::Sender<()>;

/// A wish to finish, left for a writer.
#[derive(Default)]
pub(crate) struct Finish(Mutex<Option<Finished>>);

impl Finish {
    /// Leaves the wish. What is returned ends when the far end has all, or the writer is gone.
    pub(crate) fn ask(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Takes the wish, if there is one.
    pub(crate) fn wanted(&self) -> Option<Finished> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
