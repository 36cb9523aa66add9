//! The data directory: credentials, and what a node must remember over restarts.
//!
//! ```text
//! authority.pem  authority.key        the authority of this user
//! client.pem     client.key           for clients and the command line
//! nodes/NAME/node.pem node.key        for the node NAME
//! nodes/NAME/creation                 its last creation: the next one is larger
//! nodes/NAME/lock                     held while it runs
//! nodes/NAME/running.json             where it is while it runs
//! ```
//!
//! The directory is for its owner alone (0700), and so are the files (0600); if others can read
//! it, nothing starts. Files are written beside their place and renamed; whoever makes credentials
//! holds the directory's lock, so two first starts at once make one authority.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use purlin_proto::{NodeId, NodeName, Role};
use purlin_transport::{Credentials, CredentialsError, Identity, check_private};
use serde::{Deserialize, Serialize};

use crate::authority::{self, AuthorityError, Pair, VALIDITY};

/// A data directory that has been checked.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is no home directory to put it in.
    #[error("neither --data-dir nor $PURLIN_HOME nor $HOME says where to keep credentials")]
    Nowhere,
    /// Others can read the directory.
    #[error("{path} can be read by others: run `chmod 700 {path}`")]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A node of this name runs from this directory.
    #[error("a node named {name} is already running from {dir}: choose another --name, or stop it")]
    Running {
        /// The name.
        name: NodeName,
        /// The directory.
        dir: PathBuf,
    },
    /// The credentials in it cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// New ones could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Where a node is while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) name: NodeName,
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) os_pid: u32,
}

/// Held while a node runs; the system lets go of it when the node's process ends, however it ends.
#[derive(Debug)]
pub(crate) struct NodeLock {
    dir: PathBuf,
    _file: File,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> HomeError + '_ {
    move |source| HomeError::Io { path: path.to_owned(), source }
}

impl Home {
    /// The directory that `--data-dir`, `$PURLIN_HOME` or `~/.purlin` name, in this order.
    pub fn locate(data_dir: Option<PathBuf>) -> Result<PathBuf, HomeError> {
        let from = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        data_dir
            .or_else(|| from("PURLIN_HOME"))
            .or_else(|| from("HOME").map(|home| home.join(".purlin")))
            .ok_or(HomeError::Nowhere)
    }

    /// Opens a directory, making it if there is none. Makes the authority and the client's
    /// credentials if they are missing.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, HomeError> {
        let home = Self { dir: dir.into() };
        make_dir(&home.dir)?;
        let mode = fs::metadata(&home.dir).map_err(at(&home.dir))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(HomeError::Exposed { path: home.dir });
        }
        let lock = home.dir.join("lock");
        let held = open_lock(&lock)?;
        held.lock().map_err(at(&lock))?;
        let authority = home.pair("authority");
        if !authority.0.exists() {
            home.write_pair("authority", &authority::create()?)?;
        }
        check_private(&authority.1)?;
        if Self::is_due(&home.pair("client").0) {
            let name = NodeName::from("client");
            let identity = Identity { name, role: Role::Client };
            home.write_pair("client", &authority::issue(&home.authority()?, identity)?)?;
        }
        check_private(&home.pair("client").1)?;
        Ok(home)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn pair(&self, stem: &str) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{stem}.pem")), self.dir.join(format!("{stem}.key")))
    }

    fn write_pair(&self, stem: &str, pair: &Pair) -> Result<(), HomeError> {
        let (certificate, key) = self.pair(stem);
        // The certificate last: where it is, its key is.
        write(&key, &pair.key)?;
        write(&certificate, &pair.certificate)
    }

    fn authority(&self) -> Result<Pair, HomeError> {
        let (certificate, key) = self.pair("authority");
        Ok(Pair { certificate: read(&certificate)?, key: read(&key)? })
    }

    /// Whether a certificate is missing, or so old that it is to be made anew.
    fn is_due(certificate: &Path) -> bool {
        let made = fs::metadata(certificate).and_then(|m| m.modified()).ok();
        let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
        match (made, age) {
            (None, _) => true,
            (Some(_), Some(age)) => age > VALIDITY / 4 * 3,
            // Made in the future, by a clock that has been put right since.
            (Some(_), None) => false,
        }
    }

    /// The credentials of a node, made if need be; nobody else can run it from here meanwhile.
    pub(crate) fn node(&self, name: NodeName) -> Result<(NodeLock, Credentials), HomeError> {
        let dir = self.dir.join("nodes").join(name.as_str());
        make_dir(&dir)?;
        let path = dir.join("lock");
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(HomeError::Running { name, dir: self.dir.clone() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(HomeError::Io { path, source }),
        }
        let stem = format!("nodes/{name}/node");
        let (certificate, key) = self.pair(&stem);
        if Self::is_due(&certificate) {
            let identity = Identity { name, role: Role::Node };
            self.write_pair(&stem, &authority::issue(&self.authority()?, identity)?)?;
        }
        check_private(&key)?;
        let trusted = read(&self.pair("authority").0)?;
        let credentials = Credentials::from_pem(&trusted, &read(&certificate)?, &read(&key)?)?;
        Ok((NodeLock { dir, _file: file }, credentials))
    }

    /// The nodes that say they run from here. One that was killed may still be among them.
    pub(crate) fn running(&self) -> Vec<Running> {
        let Ok(nodes) = fs::read_dir(self.dir.join("nodes")) else { return Vec::new() };
        let mut running: Vec<Running> = nodes
            .flatten()
            .filter_map(|node| fs::read(node.path().join("running.json")).ok())
            .filter_map(|text| serde_json::from_slice(&text).ok())
            .collect();
        running.sort_by_key(|running| running.name);
        running
    }
}

impl NodeLock {
    /// A creation larger than every one before, and at least `at_least`; remembered.
    pub(crate) fn next_creation(&self, at_least: u64) -> Result<u64, HomeError> {
        let path = self.dir.join("creation");
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(HomeError::Io { path, source }),
        };
        let next = at_least.max(last + 1);
        write(&path, &format!("{next}\n"))?;
        Ok(next)
    }

    /// Tells the command line where the node is.
    pub(crate) fn running(&self, id: NodeId, address: SocketAddr) -> Result<(), HomeError> {
        let running = Running { name: id.name, id, address, os_pid: std::process::id() };
        let text = serde_json::to_string(&running).expect("plain data");
        write(&self.dir.join("running.json"), &text)
    }

    /// The node has stopped.
    pub(crate) fn stopped(&self) {
        // Left behind, it misleads nobody for long: nothing answers there.
        drop(fs::remove_file(self.dir.join("running.json")));
    }
}

fn make_dir(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

fn open_lock(path: &Path) -> Result<File, HomeError> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false).mode(0o600);
    options.open(path).map_err(at(path))
}

fn read(path: &Path) -> Result<String, HomeError> {
    fs::read_to_string(path).map_err(at(path))
}

/// Writes a file of its owner's alone, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), HomeError> {
    let beside = path.with_extension(format!("tmp{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = options.open(&beside).map_err(at(&beside))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&beside))?;
    fs::rename(&beside, path).map_err(at(path))
}
