//! The node's own store of keyed processes' states: `nodes/NAME/state.redb` in the data directory.
//!
//! One thread of its own reads and writes, so that no worker waits for the disk. What is asked while it
//! is busy is done together, in one transaction, when it is done: so a disk that syncs 200 times a
//! second still takes thousands of states. Nothing is answered before it is on disk.
//!
//! # What if
//!
//! - *the disk is slow*: at most [`WAITING`] requests wait; who asks more waits until there is room.
//! - *the disk is full, or fails*: everybody in that transaction gets the error, and nothing of it is
//!   stored. The file is opened anew with the next request, so it goes on when there is room again.
//! - *the machine crashes*: what was answered is there; redb never leaves a file half written.
//! - *the file is damaged*: the node does not start, and says which file it is.
//! - *the node ends*: the thread ends when nobody has the store any more, after what it was asked.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use purlin_runtime::{Key, Snapshot, Store, StoreError, StoreFuture};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

/// Kind and key; the snapshot in bytes.
const STATES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("states-1");

/// Requests that wait for the disk.
const WAITING: usize = 1_024;

/// So many are done in one transaction.
const TOGETHER: usize = 256;

/// Bytes of the file that are kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// So many keys are told at once.
const PAGE: usize = 1_000;

/// A store on the disk of its node.
pub(crate) struct DiskStore {
    /// Taken at the end, so that the thread sees it.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Request {
    Load(Id, Answer<Option<Snapshot>>),
    Save(Id, Snapshot, Answer<bool>),
    Delete(Id, u64, Answer<()>),
    Keys(String, Option<Key>, Answer<Vec<Key>>),
}

struct Id {
    kind: String,
    key: Key,
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed { detail: error.to_string() }
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable { detail: error.to_string() }
}

impl DiskStore {
    /// Opens a file, making it if there is none. Blocks for as long as the disk takes.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut file = File { path: path.to_owned(), database: None };
        file.database()?;
        let (requests, waiting) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name("purlin-store".to_owned());
        let thread = thread.spawn(move || file.serve(waiting)).map_err(failed)?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    fn ask<'a, T: Send + 'a>(
        &'a self,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> StoreFuture<'a, T> {
        let (answer, answered) = oneshot::channel();
        let request = request(answer);
        Box::pin(async move {
            let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
            requests.send(request).await.map_err(|_| StoreError::Closed)?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

impl Store for DiskStore {
    fn load<'a>(&'a self, kind: &'a str, key: &'a Key) -> StoreFuture<'a, Option<Snapshot>> {
        self.ask(|answer| Request::Load(id(kind, key), answer))
    }

    fn save<'a>(
        &'a self,
        kind: &'a str,
        key: &'a Key,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, bool> {
        self.ask(|answer| Request::Save(id(kind, key), snapshot, answer))
    }

    fn delete<'a>(&'a self, kind: &'a str, key: &'a Key, upto: u64) -> StoreFuture<'a, ()> {
        self.ask(|answer| Request::Delete(id(kind, key), upto, answer))
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn keys<'a>(&'a self, kind: &'a str, after: Option<&'a Key>) -> StoreFuture<'a, Vec<Key>> {
        self.ask(|answer| Request::Keys(kind.to_owned(), after.cloned(), answer))
    }
}

fn id(kind: &str, key: &Key) -> Id {
    Id { kind: kind.to_owned(), key: key.clone() }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A moment at most: nothing waits any more. So the file is free for who comes next.
            drop(thread.join());
        }
    }
}

/// Sends an answer when what it says is on disk.
type Later = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

fn later<T: Send + 'static>(answer: Answer<T>, said: Result<T, StoreError>) -> Later {
    // Whoever asked may have stopped waiting.
    Box::new(move |stored| drop(answer.send(stored.and(said))))
}

struct File {
    path: PathBuf,
    /// None after an error: redb does nothing more with a file that has failed.
    database: Option<Database>,
}

impl File {
    fn database(&mut self) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            let opened = Database::builder().set_cache_size(CACHE_BYTES).create(&self.path);
            let database = opened.map_err(failed)?;
            // Readers find the table.
            let transaction = database.begin_write().map_err(failed)?;
            drop(transaction.open_table(STATES).map_err(failed)?);
            transaction.commit().map_err(failed)?;
            self.database = Some(database);
        }
        self.database.as_ref().ok_or(StoreError::Closed)
    }

    /// Runs until nobody can ask any more.
    fn serve(mut self, mut waiting: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(TOGETHER);
        while waiting.blocking_recv_many(&mut batch, TOGETHER) > 0 {
            let mut answers = Vec::with_capacity(batch.len());
            let done = self.run(&mut batch, &mut answers);
            if let Err(error) = &done {
                tracing::error!(path = %self.path.display(), %error, "the store fails");
                self.database = None;
            }
            // Those that it did not come to.
            answers.extend(batch.drain(..).map(|request| match request {
                Request::Load(_, answer) => later(answer, Err(StoreError::Closed)),
                Request::Save(_, _, answer) => later(answer, Err(StoreError::Closed)),
                Request::Delete(_, _, answer) => later(answer, Err(StoreError::Closed)),
                Request::Keys(_, _, answer) => later(answer, Err(StoreError::Closed)),
            }));
            for answer in answers {
                answer(done.clone());
            }
        }
    }

    /// Does what is asked in one transaction, in order.
    fn run(
        &mut self,
        batch: &mut Vec<Request>,
        answers: &mut Vec<Later>,
    ) -> Result<(), StoreError> {
        let database = self.database()?;
        let reads = |request: &Request| matches!(request, Request::Load(..) | Request::Keys(..));
        if batch.iter().all(reads) {
            let transaction = database.begin_read().map_err(failed)?;
            let table = transaction.open_table(STATES).map_err(failed)?;
            for request in batch.drain(..) {
                answers.extend(read(&table, request)?);
            }
            return Ok(());
        }
        let transaction = database.begin_write().map_err(failed)?;
        {
            let mut table = transaction.open_table(STATES).map_err(failed)?;
            for request in batch.drain(..) {
                answers.push(match request {
                    Request::Save(Id { kind, key }, snapshot, answer) => {
                        let id = (kind.as_str(), key.as_str());
                        let newer = at(&table, id)?.is_none_or(|at| at <= snapshot.at);
                        match snapshot.to_bytes() {
                            Ok(bytes) if newer => {
                                table.insert(id, &bytes[..]).map_err(failed)?;
                                later(answer, Ok(true))
                            }
                            Ok(_) => later(answer, Ok(false)),
                            Err(error) => later(answer, Err(failed(error))),
                        }
                    }
                    Request::Delete(Id { kind, key }, upto, answer) => {
                        let id = (kind.as_str(), key.as_str());
                        if at(&table, id)?.is_some_and(|at| at <= upto) {
                            table.remove(id).map_err(failed)?;
                        }
                        later(answer, Ok(()))
                    }
                    other => match read(&table, other)? {
                        Some(answer) => answer,
                        None => continue,
                    },
                });
            }
        }
        transaction.commit().map_err(failed)
    }
}

/// How new the snapshot of a key is; the oldest there can be if it cannot be read.
fn at(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    id: (&str, &str),
) -> Result<Option<u64>, StoreError> {
    let found = table.get(id).map_err(failed)?;
    Ok(found.map(|bytes| Snapshot::from_bytes(bytes.value()).map_or(0, |snapshot| snapshot.at)))
}

fn read(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    request: Request,
) -> Result<Option<Later>, StoreError> {
    Ok(match request {
        Request::Load(Id { kind, key }, answer) => {
            let found = table.get((kind.as_str(), key.as_str())).map_err(failed)?;
            let found = found.map(|bytes| Snapshot::from_bytes(bytes.value())).transpose();
            Some(later(answer, found.map_err(unreadable)))
        }
        Request::Keys(kind, after, answer) => {
            let from = match &after {
                Some(after) => Bound::Excluded((kind.as_str(), after.as_str())),
                None => Bound::Included((kind.as_str(), "")),
            };
            let mut keys = Vec::new();
            for entry in table.range((from, Bound::Unbounded)).map_err(failed)? {
                let (id, _) = entry.map_err(failed)?;
                let (of, key) = id.value();
                if of != kind || keys.len() >= PAGE {
                    break;
                }
                keys.push(Key::new(key).map_err(unreadable)?);
            }
            Some(later(answer, Ok(keys)))
        }
        Request::Save(..) | Request::Delete(..) => None,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn snapshot(at: u64) -> Snapshot {
        Snapshot { at, version: 3, state: at.to_string().into_bytes().into() }
    }

    #[tokio::test]
    async fn what_is_saved_is_there_after_the_file_is_opened_again_and_the_newest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let store = DiskStore::open(&path).unwrap();
        let (one, two) = (Key::from(1), Key::from(2));
        assert_eq!(store.load("cart", &one).await, Ok(None));
        assert_eq!(store.save("cart", &one, snapshot(5)).await, Ok(true));
        assert_eq!(store.save("cart", &one, snapshot(4)).await, Ok(false));
        assert_eq!(store.save("cart", &two, snapshot(7)).await, Ok(true));
        assert_eq!(store.save("carts", &one, snapshot(9)).await, Ok(true));
        drop(store);

        let store = DiskStore::open(&path).unwrap();
        assert_eq!(store.load("cart", &one).await, Ok(Some(snapshot(5))));
        assert_eq!(store.keys("cart", None).await, Ok(vec![one.clone(), two.clone()]));
        assert_eq!(store.keys("cart", Some(&one)).await, Ok(vec![two.clone()]));
        assert_eq!(store.keys("cart", Some(&two)).await, Ok(vec![]));
        store.delete("cart", &one, 4).await.unwrap();
        assert_eq!(store.load("cart", &one).await, Ok(Some(snapshot(5))), "it is newer");
        store.delete("cart", &one, 5).await.unwrap();
        assert_eq!(store.load("cart", &one).await, Ok(None));
        assert_eq!(store.load("carts", &one).await, Ok(Some(snapshot(9))));
    }

    #[tokio::test]
    async fn many_that_save_at_once_all_find_what_they_saved() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(&dir.path().join("state.redb")).unwrap();
        let store = std::sync::Arc::new(store);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..3_000 {
            let store = std::sync::Arc::clone(&store);
            tasks.spawn(async move {
                let key = Key::from(number);
                assert_eq!(store.save("cart", &key, snapshot(number)).await, Ok(true));
                assert_eq!(store.load("cart", &key).await, Ok(Some(snapshot(number))));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let first = store.keys("cart", None).await.unwrap();
        assert_eq!(first.len(), PAGE);
    }

    #[tokio::test]
    async fn a_damaged_file_is_said_and_a_disk_that_fails_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let damaged = dir.path().join("damaged");
        std::fs::write(&damaged, vec![7; 10_000]).unwrap();
        assert!(DiskStore::open(&damaged).is_err());

        let path = dir.path().join("state.redb");
        let mut file = File { path, database: None };
        let nowhere = file.path.with_file_name("nowhere").join("state.redb");
        let there = std::mem::replace(&mut file.path, nowhere);
        assert!(matches!(file.database(), Err(StoreError::Failed { .. })));
        file.path = there;
        assert!(file.database().is_ok());
    }
}
