//! The tokens of a data directory: `tokens.json`, beside the authority's key.
//!
//! Only a hash of each secret is kept. It is of 128 random bits, so a plain SHA-256 cannot be
//! searched, and comparing hashes tells nothing by its time.
//!
//! A use is counted, and on disk with its directory, before anything is signed: a crash can cost a
//! use, never give one. So that it costs none, a use belongs to a name and a public key: whoever
//! asks again for the same gets its certificate again, and nothing is counted. Who replays that
//! request gets a certificate for a key that it does not have.
//!
//! Nodes and commands of one directory share the file: it is replaced as a whole, under a lock by
//! whoever changes it. If several directories hold the
//! same authority's key, each has its own tokens: a token is good as long as a node runs from the
//! directory that made it, and its uses are counted there alone.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::HEXLOWER;
use purlin_proto::join::{Admission, JoinAnswer, JoinRefusal, JoinRequest, Secret, TokenId};
use purlin_proto::{Name, NodeName, Permission, PermissionError, Permissions, Role};
use purlin_transport::Identity;
use rcgen::PublicKeyData;
use serde::{Deserialize, Serialize};

use super::Token;
use crate::authority;
use crate::home::{Home, HomeError};

/// Tokens that a directory may have; those that are over for [`KEPT`] make room.
const TOKENS: usize = 1_000;

/// How long it is remembered why a token is no good.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// Why tokens cannot be made or shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The directory has no authority that could sign.
    #[error(
        "there is no authority.key in {dir}: tokens are made where it is, which is where the \
        cluster's first node was started"
    )]
    NoAuthority {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory has as many as it may.
    #[error("there are {TOKENS} tokens already; those that are over are forgotten after 30 days")]
    TooMany,
    /// There is none with this id.
    #[error("there is no token {0} here: `purlin token list` shows those that there are")]
    Unknown(TokenId),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Chance,
    /// The file is not what was written.
    #[error("{path} is damaged: {detail}; remove it to revoke all tokens")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// The tokens of one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    home: Home,
}

/// A token as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    id: String,
    role: Role,
    /// SHA-256 of the secret.
    hash: String,
    created_ms: u64,
    expires_ms: u64,
    uses: u32,
    revoked: bool,
    used: Vec<Use>,
    /// What a client may do that joins with it; tokens of before have none.
    #[serde(default)]
    may: Vec<String>,
}

/// Who was let in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Use {
    pub(crate) name: NodeName,
    /// SHA-256 of the public key.
    pub(crate) key: String,
    pub(crate) at_ms: u64,
}

/// A token as it is shown; the names of the fields stay.
#[derive(Debug, Serialize)]
pub(crate) struct TokenInfo {
    pub(crate) id: String,
    pub(crate) role: Role,
    pub(crate) state: TokenState,
    pub(crate) uses: u32,
    pub(crate) used: usize,
    pub(crate) created_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) joined: Vec<Use>,
    pub(crate) may: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenState {
    Open,
    UsedUp,
    Expired,
    Revoked,
}

/// What the one who signs knows of the cluster.
pub(crate) struct Surroundings<'a> {
    pub(crate) cluster: &'a Name,
    /// Where the live member of a name is, if there is one.
    pub(crate) live: &'a dyn Fn(NodeName) -> Option<SocketAddr>,
}

/// A stranger is not told what is on this machine; the operator is, who has to act.
pub(super) fn failed(error: impl std::fmt::Display) -> JoinRefusal {
    tracing::error!(%error, "nobody can join with the tokens made here");
    JoinRefusal::Failed { detail: "see its log".to_owned() }
}

fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

fn millis(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

impl Record {
    fn state(&self, now_ms: u64) -> TokenState {
        match self {
            _ if self.revoked => TokenState::Revoked,
            _ if now_ms >= self.expires_ms => TokenState::Expired,
            _ if self.used.len() >= self.uses as usize => TokenState::UsedUp,
            _ => TokenState::Open,
        }
    }

    fn info(&self, now_ms: u64) -> TokenInfo {
        TokenInfo {
            id: self.id.clone(),
            role: self.role,
            state: self.state(now_ms),
            uses: self.uses,
            used: self.used.len(),
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            joined: self.used.clone(),
            may: self.may.clone(),
        }
    }

    /// What it allows. What is not a permission here is of a newer version, and not signed.
    fn permissions(&self) -> Result<Permissions, PermissionError> {
        let may = self.may.iter().map(|may| may.parse::<Permission>());
        Permissions::new(may.collect::<Result<_, _>>()?)
    }
}

impl Tokens {
    pub(crate) fn new(home: Home) -> Self {
        Self { home }
    }

    /// Makes a token; permissions are for a client's.
    pub(crate) fn create(
        &self,
        role: Role,
        may: &Permissions,
        ttl: Duration,
        uses: u32,
        now: SystemTime,
    ) -> Result<(Token, TokenInfo), TokensError> {
        if !Home::has_authority(self.home.dir()) {
            return Err(TokensError::NoAuthority { dir: self.home.dir().to_owned() });
        }
        let (mut id, mut secret) = ([0; 8], [0; 16]);
        let chance = SystemRandom::new();
        chance
            .fill(&mut id)
            .and_then(|()| chance.fill(&mut secret))
            .map_err(|_| TokensError::Chance)?;
        let authority = self
            .home
            .fingerprint()?
            .ok_or_else(|| TokensError::NoAuthority { dir: self.home.dir().to_owned() })?;
        let (id, secret) = (TokenId(u64::from_be_bytes(id)), Secret(secret));
        let token = Token { role, id, secret, authority };
        let record = Record {
            id: id.to_string(),
            role,
            hash: hash(&secret.0),
            created_ms: millis(now),
            expires_ms: millis(now + ttl),
            uses,
            revoked: false,
            used: Vec::new(),
            may: may.iter().map(ToString::to_string).collect(),
        };
        let info = record.info(millis(now));
        let _held = self.lock()?;
        let mut records = self.load()?;
        let forgotten = millis(now.checked_sub(KEPT).unwrap_or(UNIX_EPOCH));
        records.retain(|record| record.expires_ms > forgotten);
        if records.len() >= TOKENS {
            return Err(TokensError::TooMany);
        }
        records.push(record);
        self.save(&records)?;
        Ok((token, info))
    }

    /// All that are remembered, the newest last.
    pub(crate) fn list(&self, now: SystemTime) -> Result<Vec<TokenInfo>, TokensError> {
        Ok(self.load()?.iter().map(|record| record.info(millis(now))).collect())
    }

    /// From now on nobody joins with it.
    pub(crate) fn revoke(&self, id: TokenId) -> Result<(), TokensError> {
        let _held = self.lock()?;
        let mut records = self.load()?;
        let record = records.iter_mut().find(|record| record.id == id.to_string());
        record.ok_or(TokensError::Unknown(id))?.revoked = true;
        self.save(&records)
    }

    /// Whether it was made here.
    pub(crate) fn knows(&self, id: TokenId) -> Result<bool, TokensError> {
        Ok(self.load()?.iter().any(|record| record.id == id.to_string()))
    }

    /// Takes somebody in, if its token is good. Nothing is told to one who does not know the secret.
    pub(crate) fn take_in(
        &self,
        request: &JoinRequest,
        around: &Surroundings<'_>,
        now: SystemTime,
    ) -> JoinAnswer {
        let _held = self.lock().map_err(failed)?;
        let mut records = self.load().map_err(failed)?;
        let (id, hashed) = (request.token.to_string(), hash(&request.secret.0));
        let record = records
            .iter_mut()
            .find(|record| record.id == id && record.hash == hashed)
            .ok_or(JoinRefusal::UnknownToken { silent: 0 })?;
        if record.revoked {
            return Err(JoinRefusal::Revoked);
        }
        if let Some(over) = millis(now).checked_sub(record.expires_ms) {
            return Err(JoinRefusal::Expired { ago_s: over / 1000 });
        }
        if request.role != record.role {
            return Err(JoinRefusal::Role { role: record.role });
        }
        if request.cluster != *around.cluster {
            return Err(JoinRefusal::Cluster { theirs: around.cluster.clone() });
        }
        let subject = authority::subject(&request.request)
            .map_err(|detail| JoinRefusal::Request { detail })?;
        let permissions = record.permissions().map_err(failed)?;
        let (name, key) = (request.name, hash(subject.der_bytes()));
        if request.role == Role::Node
            && let Some(address) = (around.live)(name)
        {
            return Err(JoinRefusal::NameTaken { name, address });
        }
        let identity = Identity { name, role: request.role };
        let before = record.used.iter().find(|used| used.name == name && used.key == key);
        if let Some(used) = before {
            // Else whoever has been shut out came back with the token that it had.
            if self.home.was_revoked(identity, used.at_ms).map_err(failed)? {
                return Err(JoinRefusal::Revoked);
            }
        } else {
            if record.used.len() >= record.uses as usize {
                return Err(JoinRefusal::UsedUp { uses: record.uses });
            }
            record.used.push(Use { name, key, at_ms: millis(now) });
            self.save(&records).map_err(failed)?;
        }
        let pair = self.home.authority().map_err(failed)?;
        let at_ms = self.home.stamp().map_err(failed)?;
        let signed = authority::sign(&pair, identity, &permissions, at_ms, &subject);
        let certificate = self.home.with_cross(signed.map_err(failed)?).map_err(failed)?;
        Ok(Admission { certificate, authority: pair.certificate })
    }

    fn lock(&self) -> Result<File, TokensError> {
        Ok(self.home.lock("tokens.lock")?)
    }

    fn path(&self) -> PathBuf {
        self.home.dir().join("tokens.json")
    }

    fn load(&self) -> Result<Vec<Record>, TokensError> {
        let Some(text) = self.home.read_if_there("tokens.json")? else { return Ok(Vec::new()) };
        serde_json::from_str(&text)
            .map_err(|error| TokensError::Damaged { path: self.path(), detail: error.to_string() })
    }

    fn save(&self, records: &[Record]) -> Result<(), TokensError> {
        let text = serde_json::to_string_pretty(records).expect("plain data");
        Ok(self.home.write("tokens.json", &text)?)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
