//! The disk of a simulated machine: it survives crashes, and can be slow, full or read-only.
//!
//! What has begun to be written when the machine crashes is there or not, by chance. Writes are done
//! one after the other, as a file's are. Reading always works, and takes no time.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::disk::{Change, Pieces, apply};

/// What a simulated machine's disk is like; see [`Cluster::set_disk`](super::Cluster::set_disk).
///
/// ```
/// use std::time::Duration;
/// use purlin::testing::{Cluster, DiskState};
///
/// let cluster = Cluster::builder(1).nodes(1).start();
/// cluster.set_disk("n0", DiskState::Slow(Duration::from_millis(200)));
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    /// It works, and takes no time.
    #[default]
    Sound,
    /// A write takes up to this time, by chance and the machine's clock.
    Slow(Duration),
    /// Nothing can be written.
    ReadOnly,
    /// Nothing can be written, but something removed.
    Full,
}

/// A simulated disk. Clones are the same one.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Inner>);

struct Inner {
    kept: Mutex<Kept>,
    /// Held by whoever writes.
    writing: tokio::sync::Mutex<()>,
}

struct Kept {
    pieces: Pieces,
    state: DiskState,
    chance: StdRng,
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        let kept = Kept { pieces: Pieces::new(), state: DiskState::Sound, chance };
        Self(Arc::new(Inner { kept: Mutex::new(kept), writing: tokio::sync::Mutex::default() }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, state: DiskState) {
        self.kept().state = state;
    }

    /// Everything.
    pub(crate) fn read(&self) -> Pieces {
        self.kept().pieces.clone()
    }

    /// Looks at what is there.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Pieces) -> T) -> T {
        look(&self.kept().pieces)
    }

    /// Changes all of these, or none.
    pub(crate) async fn write(&self, change: Change) -> io::Result<()> {
        let grows = change.iter().any(|(_, value)| value.is_some());
        self.change(grows, |pieces| apply(pieces, change)).await
    }

    /// Changes what is there; it needs room if it `grows`. Not cancel safe: it may have happened.
    pub(super) async fn change<T>(
        &self,
        grows: bool,
        change: impl FnOnce(&mut Pieces) -> T,
    ) -> io::Result<T> {
        let _writing = self.0.writing.lock().await;
        let (wait, first) = self.kept().time();
        if first {
            let done = self.kept().change(grows, change);
            pass(wait).await;
            return done;
        }
        pass(wait).await;
        self.kept().change(grows, change)
    }
}

impl Kept {
    /// How long a write takes, and whether it is on the disk at the beginning of that, or at its end.
    fn time(&mut self) -> (Duration, bool) {
        match self.state {
            DiskState::Slow(most) => {
                let share = self.chance.random_range(0.0..=1.0);
                (most.mul_f64(share), self.chance.random_bool(0.5))
            }
            _ => (Duration::ZERO, true),
        }
    }

    fn change<T>(&mut self, grows: bool, change: impl FnOnce(&mut Pieces) -> T) -> io::Result<T> {
        match self.state {
            DiskState::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            DiskState::Full if grows => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(change(&mut self.pieces)),
        }
    }
}

async fn pass(wait: Duration) {
    if wait > Duration::ZERO {
        tokio::time::sleep(wait).await;
    }
}
