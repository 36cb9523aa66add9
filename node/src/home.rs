//! The data directory: credentials, and what a node must remember over restarts.
//!
//! ```text
//! authority.pem  authority.key        the authority of this user; further ones that are believed
//! cross.pem      trust.json           what is needed while two are, and after
//! tokens.json                         join tokens, where the authority's key is
//! client.pem     client.key           for the command line and programs: an operator's, where the
//!                                     authority's key is; elsewhere what was joined as
//! revoked.json                        certificates that are not believed any more
//! stamp                               the time in the last certificate that was made here
//! nodes/NAME/node.pem node.key        for the node NAME
//! nodes/NAME/creation                 its last creation: the next one is larger
//! nodes/NAME/lock                     held while it runs
//! nodes/NAME/running.json             where it is while it runs
//! nodes/NAME/state.redb               the states of its keyed processes that do not run
//! ```
//!
//! The directory is for its owner alone (0700), and so are the files (0600); if others can read
//! it, nothing starts. Files are written beside their place and renamed; whoever makes credentials
//! holds the directory's lock, so two first starts at once make one authority.
//!
//! Where somebody has joined with a token, `authority.key` is not there, and of the credentials only
//! those that it has joined for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use purlin_proto::admin::Renew;
use purlin_proto::join::Admission;
use purlin_proto::limits::CREATION;
use purlin_proto::{NodeId, NodeName, Role};
use purlin_transport::{
    Certified, Credentials, CredentialsError, Fingerprint, Identity, check_private,
};
use serde::{Deserialize, Serialize};

use crate::authority::{self, AuthorityError, Pair};

mod revocations;
mod rotation;

pub(crate) use revocations::Revoking;

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
    /// There is no authority to sign what is missing.
    #[error("there is no authority.key in {dir} to make credentials for {} {}: join with --token, \
        or start it from the directory that has the key", wanted.role.word(), wanted.name)]
    NoAuthority {
        /// The directory.
        dir: PathBuf,
        /// Whose credentials are missing.
        wanted: Identity,
    },
    /// What is remembered of revoked certificates, or of authorities, cannot be read; who goes on
    /// without it would believe what is not to be believed.
    #[error("{path} is damaged: {detail}; remove it, the other members know what was in it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// What was made anew is not what was asked for; the certificate is as it was.
    #[error(
        "{path}: the new certificate is not for this key and holder, or not good: check the clocks"
    )]
    Renewed {
        /// Whose it was to be.
        path: PathBuf,
    },
    /// Another directory has rotated the authority, and has the key of the new one.
    #[error(
        "authority.key in {dir} is of an authority that does not sign any more: copy authority.key, \
        cross.pem and trust.json from where the authority was rotated"
    )]
    Rotated {
        /// The directory.
        dir: PathBuf,
    },
    /// Two authorities are believed already.
    #[error("a rotation is under way: end it first, with `purlin cert rotate-authority --finish`")]
    Rotating,
    /// There is no rotation to end.
    #[error("one authority is believed, there is no rotation to end")]
    NotRotating,
    /// The last creation of a node is not known.
    #[error(
        "{path} does not hold the number of the node's last life: remove it, if this machine's \
        clock is right"
    )]
    Creation {
        /// The file.
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
    file: File,
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

    /// Opens a directory, making it if there is none, and makes nothing else.
    pub(crate) fn enter(dir: impl Into<PathBuf>) -> Result<Self, HomeError> {
        let home = Self { dir: dir.into() };
        make_dir(&home.dir)?;
        check_dir(&home.dir)?;
        Ok(home)
    }

    /// Opens a directory, making it if there is none. Makes the authority if there is none, and an
    /// operator's credentials if they are missing or soon over, as far as the authority's key is here.
    ///
    /// Directories from before there were operators have a client's there; it is replaced.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, HomeError> {
        let home = Self::enter(dir)?;
        let _held = home.lock("lock")?;
        let (certificate, key) = home.pair("authority");
        if !certificate.exists() {
            home.write_pair("authority", &authority::create()?)?;
        }
        if key.exists() {
            check_private(&key)?;
        }
        // Where a node has joined there may be none.
        if key.exists() || home.pair("client").0.exists() {
            home.renew("client", Identity { name: "operator".into(), role: Role::Operator })?;
        }
        Ok(home)
    }

    /// Waits for a lock of this directory and holds it.
    pub(crate) fn lock(&self, name: &str) -> Result<File, HomeError> {
        let path = self.dir.join(name);
        let held = open_lock(&path)?;
        held.lock().map_err(at(&path))?;
        Ok(held)
    }

    /// Reads a file of this directory.
    pub(crate) fn read_if_there(&self, name: &str) -> Result<Option<String>, HomeError> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }

    /// Writes a file of this directory, whole or not at all.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), HomeError> {
        write(&self.dir.join(name), text)
    }

    /// That of the authority's certificate, if there is one.
    pub(crate) fn fingerprint(&self) -> Result<Option<Fingerprint>, HomeError> {
        let certificate = self.read_if_there("authority.pem")?;
        Ok(certificate.and_then(|certificate| authority::fingerprint(&certificate)))
    }

    /// Whether there is an authority in a directory that could sign.
    pub(crate) fn has_authority(dir: &Path) -> bool {
        dir.join("authority.key").exists()
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

    /// Sees to it that there is a certificate that is good for a while, with its key.
    fn renew(&self, stem: &str, identity: Identity) -> Result<(), HomeError> {
        let (certificate, key) = self.pair(stem);
        let authority = read(&self.pair("authority").0)?;
        let present = certificate.exists() && key.exists();
        let good = present && {
            let pair = Pair { certificate: read(&certificate)?, key: read(&key)? };
            let fits = match Certified::of_pem(&pair.certificate) {
                // Where somebody has joined, who is said by the certificate.
                _ if !Self::has_authority(&self.dir) => true,
                Ok(found) => found.identity == identity && !self.is_revoked(&found)?,
                Err(_) => false,
            };
            fits && authority::is_good(&authority, &pair, SystemTime::now())
        };
        if !good {
            match (Self::has_authority(&self.dir), present) {
                (true, _) => {
                    let mut made = authority::issue(&self.authority()?, identity, self.stamp()?)?;
                    made.certificate = self.with_cross(made.certificate)?;
                    self.write_pair(stem, &made)?;
                }
                // What is wrong with it will be said where it is used.
                (false, true) => tracing::warn!(
                    certificate = %certificate.display(),
                    "it is soon over, or does not fit, and there is no authority here to renew it"
                ),
                (false, false) => {
                    return Err(HomeError::NoAuthority { dir: self.dir.clone(), wanted: identity });
                }
            }
        }
        Ok(check_private(&key)?)
    }

    /// Sees to it that nobody else can run this node from here.
    pub(crate) fn hold(&self, name: NodeName) -> Result<NodeLock, HomeError> {
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
        Ok(NodeLock { dir, file })
    }

    /// The credentials of a node, made if need be; nobody else can run it from here meanwhile.
    pub(crate) fn node(&self, name: NodeName) -> Result<(NodeLock, Credentials), HomeError> {
        let lock = self.hold(name)?;
        let stem = format!("nodes/{name}/node");
        self.renew(&stem, Identity { name, role: Role::Node })?;
        let (certificate, key) = self.pair(&stem);
        let trusted = read(&self.pair("authority").0)?;
        let credentials = Credentials::from_pem(&trusted, &read(&certificate)?, &read(&key)?)?;
        Ok((lock, credentials))
    }

    /// Makes a certificate anew for the same key, where the authority's key is.
    pub(crate) fn renew_now(&self, stem: &str) -> Result<(), HomeError> {
        let (certificate, key) = self.pair(stem);
        let before = Certified::of_pem(&read(&certificate)?)?;
        let made = authority::sign_again(&self.authority()?, &before, &read(&key)?, self.stamp()?)?;
        write(&certificate, &self.with_cross(made)?)
    }

    /// The credentials that a directory has by now.
    pub(crate) fn credentials(&self, stem: &str) -> Result<Credentials, HomeError> {
        let (certificate, key) = self.pair(stem);
        let trusted = read(&self.pair("authority").0)?;
        Ok(Credentials::from_pem(&trusted, &read(&certificate)?, &read(&key)?)?)
    }

    /// Whether those credentials are good for a while.
    pub(crate) fn is_good(&self, stem: &str, now: SystemTime) -> Result<bool, HomeError> {
        let (certificate, key) = self.pair(stem);
        let pair = Pair { certificate: read(&certificate)?, key: read(&key)? };
        Ok(authority::is_good(&read(&self.pair("authority").0)?, &pair, now))
    }

    /// Asks for a certificate anew.
    pub(crate) fn renewal_request(&self, stem: &str) -> Result<Renew, HomeError> {
        let (certificate, key) = self.pair(stem);
        let before = Certified::of_pem(&read(&certificate)?)?;
        let request = authority::request(&read(&key)?, before.identity)?;
        Ok(Renew { certificate: before.der.into(), request, forwarded: false })
    }

    /// Keeps the certificate that was made anew, if it is for our key, and good.
    pub(crate) fn take_renewed(&self, stem: &str, admission: &Admission) -> Result<(), HomeError> {
        let (certificate, key) = self.pair(stem);
        let before = Certified::of_pem(&read(&certificate)?)?;
        let mut trusted = read(&self.pair("authority").0)?;
        let pair = Pair { certificate: admission.certificate.clone(), key: read(&key)? };
        let after = Certified::of_pem(&pair.certificate)?;
        if authority::is_vouched(&trusted, &pair.certificate, &admission.authority) {
            trusted.clone_from(&admission.authority);
        }
        let same = (after.identity, &after.permissions) == (before.identity, &before.permissions);
        if !same || !authority::is_valid(&trusted, &pair, SystemTime::now()) {
            let path = self.dir.join(stem);
            return Err(HomeError::Renewed { path });
        }
        // The new certificate may be of an authority that is not believed here yet.
        write(&self.dir.join("authority.pem"), &trusted)?;
        write(&certificate, &pair.certificate)
    }

    /// The nodes that say they run from a directory. One that was killed may still be among them.
    pub(crate) fn running(dir: &Path) -> Vec<Running> {
        let Ok(nodes) = fs::read_dir(dir.join("nodes")) else { return Vec::new() };
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
    /// A file of this node alone.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A creation larger than every one before, and at least `at_least`; remembered.
    pub(crate) fn next_creation(&self, at_least: u64) -> Result<u64, HomeError> {
        let path = self.dir.join("creation");
        let last = match fs::read_to_string(&path) {
            Ok(text) => text
                .trim()
                .parse::<u64>()
                .ok()
                .filter(|last| *last < CREATION)
                .ok_or_else(|| HomeError::Creation { path: path.clone() })?,
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

    /// The node has stopped: another may run.
    pub(crate) fn stopped(&self) {
        // Left behind, it misleads nobody for long: nothing answers there.
        drop(fs::remove_file(self.dir.join("running.json")));
        // Tasks of the node that end a little later have the file still.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(dir = %self.dir.display(), %error, "the node's directory stays locked");
        }
    }
}

/// Refuses a directory that others can read.
pub(crate) fn check_dir(path: &Path) -> Result<(), HomeError> {
    let mode = fs::metadata(path).map_err(at(path))?.permissions().mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(HomeError::Exposed { path: path.to_owned() }),
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

/// Writes a file of its owner's alone, whole or not at all; when this returns it is on disk, also
/// after a crash of the machine.
fn write(path: &Path, text: &str) -> Result<(), HomeError> {
    let beside = path.with_extension(format!("tmp{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = options.open(&beside).map_err(at(&beside))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&beside))?;
    fs::rename(&beside, path).map_err(at(path))?;
    let dir = path.parent().unwrap_or(path);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("home");
        (temporary, dir)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_an_authority_and_the_clients_credentials_for_the_owner_alone() {
        let (_temporary, dir) = dir();
        let home = Home::open(&dir).unwrap();
        home.node("a".into()).unwrap();
        assert_eq!(mode(&dir), 0o700);
        for file in ["authority.key", "client.key", "client.pem", "nodes/a/node.key"] {
            assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
        }
        Credentials::from_dir(&dir).unwrap();
    }

    #[test]
    fn two_first_starts_at_once_make_one_authority() {
        let (_temporary, dir) = dir();
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let dir = &dir;
                scope.spawn(move || Home::open(dir).unwrap().node(name.into()).unwrap());
            }
        });
        let authority = read(&dir.join("authority.pem")).unwrap();
        for name in ["a", "b", "c", "d"] {
            let stem = dir.join("nodes").join(name).join("node.pem");
            let key = read(&stem.with_extension("key")).unwrap();
            let pair = Pair { certificate: read(&stem).unwrap(), key };
            assert!(authority::is_good(&authority, &pair, SystemTime::now()), "{name}");
        }
    }

    #[test]
    fn a_certificate_whose_key_was_replaced_in_a_crash_is_made_anew() {
        let (_temporary, dir) = dir();
        Home::open(&dir).unwrap();
        let other = authority::issue(
            &Home { dir: dir.clone() }.authority().unwrap(),
            Identity { name: "operator".into(), role: Role::Operator },
            1,
        );
        write(&dir.join("client.key"), &other.unwrap().key).unwrap();
        let before = read(&dir.join("client.pem")).unwrap();

        Home::open(&dir).unwrap();

        assert_ne!(read(&dir.join("client.pem")).unwrap(), before);
        Credentials::from_dir(&dir).unwrap();
    }

    #[test]
    fn a_clients_certificate_from_before_there_were_operators_becomes_an_operators() {
        let (_temporary, dir) = dir();
        let home = Home::open(&dir).unwrap();
        let old = Identity { name: "client".into(), role: Role::Client };
        let old = authority::issue(&home.authority().unwrap(), old, 1).unwrap();
        home.write_pair("client", &old).unwrap();
        let before = Credentials::from_dir(&dir).unwrap();
        assert!(before.certified().permissions.is_empty());

        Home::open(&dir).unwrap();

        assert_eq!(Credentials::from_dir(&dir).unwrap().identity().role, Role::Operator);
    }

    #[test]
    fn a_directory_without_the_authoritys_key_serves_those_who_have_credentials_there() {
        let (_temporary, dir) = dir();
        Home::open(&dir).unwrap().node("a".into()).unwrap();
        fs::remove_file(dir.join("authority.key")).unwrap();

        let home = Home::open(&dir).unwrap();
        home.node("a".into()).unwrap();
        let refused = home.node("b".into()).unwrap_err();
        assert!(matches!(refused, HomeError::NoAuthority { .. }), "{refused}");
        assert!(refused.to_string().contains("for node b"), "{refused}");
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let (_temporary, dir) = dir();
        Home::open(&dir).unwrap();
        fs::set_permissions(dir.join("client.key"), fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Home::open(&dir).unwrap_err().to_string();
        assert!(refused.contains("client.key can be read by others: run `chmod 600"), "{refused}");

        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Home::open(&dir), Err(HomeError::Exposed { .. })));
    }

    #[test]
    fn creations_rise_over_restarts_and_whatever_the_clock_says() {
        let (_temporary, dir) = dir();
        let home = Home::open(&dir).unwrap();
        let (lock, _) = home.node("a".into()).unwrap();
        assert_eq!(lock.next_creation(100).unwrap(), 100);
        assert_eq!(lock.next_creation(50).unwrap(), 101);
        drop(lock);
        let (lock, _) = home.node("a".into()).unwrap();
        assert_eq!(lock.next_creation(0).unwrap(), 102);
    }

    #[test]
    fn a_creation_that_cannot_be_read_is_an_error_and_not_a_life_from_the_past() {
        let (_temporary, dir) = dir();
        let home = Home::open(&dir).unwrap();
        let (lock, _) = home.node("a".into()).unwrap();
        for text in ["", "nonsense", "18446744073709551615"] {
            fs::write(dir.join("nodes/a/creation"), text).unwrap();
            let refused = lock.next_creation(7).unwrap_err();
            assert!(matches!(refused, HomeError::Creation { .. }), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_name_runs_once() {
        let (_temporary, dir) = dir();
        let home = Home::open(&dir).unwrap();
        let held = home.node("a".into()).unwrap();
        assert!(matches!(home.node("a".into()), Err(HomeError::Running { .. })));
        drop(held);
        home.node("a".into()).unwrap();
    }
}
