//! What a node remembers over a restart in small pieces: a file of the data directory, or nothing.
//!
//! [`Disk`] is bytes by key, written all together or not at all, and on the disk when a write
//! returns. The file is one of `redb`: it survives a crash at any moment. In memory it survives what
//! keeps the value alive. That of a simulated machine survives its crashes, and can be slow, full or
//! read-only.
//!
//! # What if
//!
//! - *it is slow*: whoever writes waits, and nobody else. A voter answers late: if that takes longer than
//!   an election, another one leads; if no majority answers in time, leases run out.
//! - *it is full, read-only or fails*: the write says so, and nothing of it is there; at the latest when
//!   the file is opened anew, which the next use of it does. A node that cannot write does not vote, says
//!   so, and tries again every [`AGAIN`]: with what it had promised before, when there is room. All else
//!   goes on: what is exclusive here as long as other voters confirm its lease; and states of keys as
//!   their store says (`store.rs`).
//! - *the machine crashes while it writes*: what was written is there or not, whole.
//! - *the file is damaged*: the node does not start.
//!
//! [`AGAIN`]: crate::exclusive::AGAIN

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("purlin");

/// What is kept, by key.
pub(crate) type Pieces = BTreeMap<Vec<u8>, Vec<u8>>;

/// A change of some pieces; `None` removes.
pub(crate) type Change = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiskError(#[from] redb::Error);

/// Where a node keeps what it must not forget. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Disk {
    File(Arc<File>),
    Memory(Arc<Mutex<Pieces>>),
    #[cfg(feature = "testing")]
    Simulated(crate::testing::SimulatedDisk),
}

/// A file of `redb`.
pub(crate) struct File {
    path: PathBuf,
    /// None after an error: redb does nothing more with a file that has failed.
    database: Mutex<Option<Database>>,
}

impl Disk {
    /// Opens a file, making it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let file = File { path: path.to_owned(), database: Mutex::default() };
        file.using(|_| Ok(()))?;
        Ok(Self::File(Arc::new(file)))
    }

    /// Whether it outlives the program.
    pub(crate) fn is_durable(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }

    /// Everything.
    pub(crate) fn read(&self) -> Result<Pieces, DiskError> {
        match self {
            Self::File(file) => Ok(file.using(read)?),
            Self::Memory(pieces) => Ok(lock(pieces).clone()),
            #[cfg(feature = "testing")]
            Self::Simulated(disk) => Ok(disk.read()),
        }
    }

    /// Changes all of these or, on an error, none. Takes as long as the disk does, off the present
    /// thread.
    pub(crate) async fn write(&self, change: Change) -> Result<(), DiskError> {
        match self {
            Self::File(file) => {
                let file = Arc::clone(file);
                let write = move || file.using(|database| write(database, &change));
                let written = tokio::task::spawn_blocking(write).await;
                Ok(written.unwrap_or_else(|e| Err(redb::Error::Io(io::Error::other(e))))?)
            }
            Self::Memory(pieces) => {
                apply(&mut lock(pieces), change);
                Ok(())
            }
            #[cfg(feature = "testing")]
            Self::Simulated(disk) => Ok(disk.write(change).await.map_err(redb::Error::Io)?),
        }
    }
}

impl File {
    fn using<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let mut database = lock(&self.database);
        let open = match database.take() {
            Some(open) => open,
            None => Database::create(&self.path)?,
        };
        let done = act(&open)?;
        *database = Some(open);
        Ok(done)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes pieces in memory.
pub(crate) fn apply(pieces: &mut Pieces, change: Change) {
    for (key, value) in change {
        match value {
            Some(value) => drop(pieces.insert(key, value)),
            None => drop(pieces.remove(&key)),
        }
    }
}

fn read(database: &Database) -> Result<Pieces, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Pieces::new()),
        Err(error) => return Err(error.into()),
    };
    let mut pieces = Pieces::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        pieces.insert(key.value().to_vec(), value.value().to_vec());
    }
    Ok(pieces)
}

fn write(database: &Database, change: &Change) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in change {
            match value {
                Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
    }
    // Synced before it returns, which is redb's default.
    transaction.commit()?;
    Ok(())
}

impl Default for Disk {
    fn default() -> Self {
        Self::Memory(Arc::default())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_is_there_when_the_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.redb");
        let disk = Disk::open(&path).unwrap();
        assert_eq!(disk.read().unwrap(), Pieces::new());
        let piece = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.into()));
        disk.write(vec![piece("a", "1"), piece("b", "2")]).await.unwrap();
        disk.write(vec![piece("a", "3"), (b"b".to_vec(), None)]).await.unwrap();
        drop(disk);

        let again = Disk::open(&path).unwrap().read().unwrap();

        assert_eq!(again, Pieces::from([(b"a".to_vec(), b"3".to_vec())]));
    }

    #[tokio::test]
    async fn a_file_that_has_failed_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(&dir.path().join("kept.redb")).unwrap();
        let piece = |value: &str| vec![(b"a".to_vec(), Some(value.into()))];
        disk.write(piece("1")).await.unwrap();
        let Disk::File(file) = &disk else { panic!("it is a file") };
        let failed = redb::Error::Io(io::ErrorKind::StorageFull.into());
        file.using(|_| Err::<(), _>(failed)).unwrap_err();

        disk.write(piece("2")).await.unwrap();

        assert_eq!(disk.read().unwrap(), Pieces::from([(b"a".to_vec(), b"2".to_vec())]));
    }
}
