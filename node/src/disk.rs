//! What a node remembers over a restart in small pieces: a file of the data directory, or nothing.
//!
//! [`Disk`] is bytes by key, written all together or not at all, and on the disk when a write
//! returns. The file is one of `redb`: it survives a crash at any moment. In memory it survives what
//! keeps the value alive: simulated machines keep theirs over a crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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
    File(Arc<Database>),
    Memory(Arc<Mutex<Pieces>>),
}

impl Disk {
    /// Opens a file, making it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let database = Database::create(path).map_err(redb::Error::from)?;
        Ok(Self::File(Arc::new(database)))
    }

    /// Whether it outlives the program.
    pub(crate) fn is_durable(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Everything.
    pub(crate) fn read(&self) -> Result<Pieces, DiskError> {
        match self {
            Self::File(database) => Ok(read(database)?),
            Self::Memory(pieces) => {
                Ok(pieces.lock().unwrap_or_else(PoisonError::into_inner).clone())
            }
        }
    }

    /// Changes all of these or, on an error, none. May take as long as the disk does.
    pub(crate) fn write(&self, change: Change) -> Result<(), DiskError> {
        match self {
            Self::File(database) => Ok(write(database, &change)?),
            Self::Memory(pieces) => {
                let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
                for (key, value) in change {
                    match value {
                        Some(value) => drop(pieces.insert(key, value)),
                        None => drop(pieces.remove(&key)),
                    }
                }
                Ok(())
            }
        }
    }

    /// As [`write`](Self::write), off the present thread where it may take long.
    pub(crate) async fn write_aside(&self, change: Change) -> Result<(), DiskError> {
        if !self.is_durable() {
            return self.write(change);
        }
        let disk = self.clone();
        let written = tokio::task::spawn_blocking(move || disk.write(change)).await;
        written.unwrap_or_else(|error| {
            let error = std::io::Error::other(error);
            Err(DiskError(redb::Error::Io(error)))
        })
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

    #[test]
    fn what_was_written_is_there_when_the_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.redb");
        let disk = Disk::open(&path).unwrap();
        assert_eq!(disk.read().unwrap(), Pieces::new());
        let piece = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.into()));
        disk.write(vec![piece("a", "1"), piece("b", "2")]).unwrap();
        disk.write(vec![piece("a", "3"), (b"b".to_vec(), None)]).unwrap();
        drop(disk);

        let again = Disk::open(&path).unwrap().read().unwrap();

        assert_eq!(again, Pieces::from([(b"a".to_vec(), b"3".to_vec())]));
    }
}
