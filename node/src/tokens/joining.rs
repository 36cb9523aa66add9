//! The side that joins: from a token and a seed to credentials in the data directory.
//!
//! The key is made here, and on disk before anybody is asked: if the answer is lost, or this
//! machine crashes, the same request is made again and costs no further use of the token. Then the
//! authority's certificate is written, then our own: where it is, the rest is.
//!
//! Seeds are tried in turn, all addresses of each. Who says no has the last word; who does not
//! answer, or is too busy, is tried again until the time is over. Who is not of the token's
//! authority is told nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use purlin_proto::join::{Admission, JoinAnswer, JoinRefusal, JoinRequest};
use purlin_proto::limits::JOIN_ANSWER_BYTES;
use purlin_proto::{Name, NodeName, Refusal, Role, codec};
use purlin_transport::{Credentials, DialError, Identity, ask_to_join};
use tokio::time::Instant;

use super::Token;
use crate::authority::{self, AuthorityError, Pair};
use crate::home::{Home, HomeError};
use crate::seeds::SeedResolver;

/// Between two rounds of trying every seed.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Why nobody has joined. What was in the data directory is as it was, but for a key without a
/// certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is nobody to ask.
    #[error("a token needs a --seed HOST:PORT, a node of the cluster to be joined")]
    NoSeed,
    /// The token is for something else.
    #[error("this token lets {} join: {}", role.article(), usage(*role))]
    Role {
        /// What it is for.
        role: Role,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "{dir} has the credentials of another cluster's authority: say --data-dir for another \
        directory"
    )]
    OtherAuthority {
        /// The directory.
        dir: PathBuf,
    },
    /// Whoever answers is not of the token's authority.
    #[error("{seed} does not prove that it is of the token's cluster, and was told nothing: {why}")]
    NotTrusted {
        /// Where it answered.
        seed: SocketAddr,
        /// What is wrong with its certificate.
        why: DialError,
    },
    /// The cluster says no.
    #[error("{seed} refuses: {why}")]
    Refused {
        /// Who was asked.
        seed: SocketAddr,
        /// Why.
        why: JoinRefusal,
    },
    /// Nobody answers.
    #[error("no seed answers: {}", tried.join("; "))]
    NoAnswer {
        /// Each seed, and what became of it.
        tried: Vec<String>,
    },
    /// The answer cannot be used.
    #[error("the answer of {seed} cannot be used: {detail}")]
    Answer {
        /// Who gave it.
        seed: SocketAddr,
        /// What is wrong with it.
        detail: String,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The key or the request cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

fn usage(role: Role) -> &'static str {
    match role {
        Role::Node => "purlin start --seed HOST:PORT --token …",
        Role::Client | Role::Operator => "purlin join --seed HOST:PORT --token …",
    }
}

/// A resolver that takes longer counts as one that fails.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who joins, and how.
pub(crate) struct Joining<'a> {
    pub(crate) token: &'a Token,
    pub(crate) role: Role,
    pub(crate) name: NodeName,
    pub(crate) cluster: Name,
    pub(crate) seeds: &'a [String],
    pub(crate) resolver: &'a SeedResolver,
    /// How long to try on.
    pub(crate) patience: Duration,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// There are credentials already; nobody was asked.
    Before,
    /// Through this node.
    Through(SocketAddr),
}

/// What became of asking one address.
enum Asked {
    Admitted(Admission),
    Final(JoinError),
    NotTrusted(JoinError),
    Again(String),
}

impl Joining<'_> {
    /// Sees to it that the directory has the credentials that the token is for.
    pub(crate) async fn run(&self, dir: PathBuf) -> Result<Joined, JoinError> {
        if self.role != self.token.role {
            return Err(JoinError::Role { role: self.token.role });
        }
        let home = Home::enter(dir)?;
        let other = || JoinError::OtherAuthority { dir: home.dir().to_owned() };
        if let Some(certificate) = home.read_if_there("authority.pem")? {
            if !authority::fingerprints(&certificate).contains(&self.token.authority) {
                return Err(other());
            }
            if Home::has_authority(home.dir()) || self.has_credentials(&home, &certificate)? {
                return Ok(Joined::Before);
            }
        }
        if self.seeds.is_empty() {
            return Err(JoinError::NoSeed);
        }
        let _lock = match self.role {
            Role::Node => Some(home.hold(self.name)?),
            Role::Client | Role::Operator => None,
        };
        let key = self.key(&home)?;
        let (admission, seed) = self.ask(&self.request(&key)?).await?;
        let pair = Pair { certificate: admission.certificate, key };
        self.check(&admission.authority, &pair)
            .map_err(|detail| JoinError::Answer { seed, detail })?;
        home.write("authority.pem", &admission.authority)?;
        home.write(&format!("{}.pem", self.stem()), &pair.certificate)?;
        Ok(Joined::Through(seed))
    }

    fn identity(&self) -> Identity {
        Identity { name: self.name, role: self.role }
    }

    fn stem(&self) -> String {
        match self.role {
            Role::Node => format!("nodes/{}/node", self.name),
            Role::Client | Role::Operator => "client".to_owned(),
        }
    }

    fn has_credentials(&self, home: &Home, authority: &str) -> Result<bool, HomeError> {
        let certificate = home.read_if_there(&format!("{}.pem", self.stem()))?;
        let key = home.read_if_there(&format!("{}.key", self.stem()))?;
        let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(false) };
        Ok(authority::is_valid(authority, &Pair { certificate, key }, SystemTime::now()))
    }

    /// The key of an attempt before this one, or a new one; on disk.
    fn key(&self, home: &Home) -> Result<String, JoinError> {
        let file = format!("{}.key", self.stem());
        let before = home.read_if_there(&file)?;
        if let Some(key) = before.filter(|key| authority::request(key, self.identity()).is_ok()) {
            return Ok(key);
        }
        let key = authority::new_key()?;
        home.write(&file, &key)?;
        Ok(key)
    }

    fn request(&self, key: &str) -> Result<Bytes, JoinError> {
        let request = JoinRequest {
            cluster: self.cluster.clone(),
            token: self.token.id,
            secret: self.token.secret,
            role: self.role,
            name: self.name,
            request: authority::request(key, self.identity())?,
        };
        Ok(codec::to_bytes(&request).expect("plain data"))
    }

    /// Asks until somebody says yes or no.
    async fn ask(&self, request: &Bytes) -> Result<(Admission, SocketAddr), JoinError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let (mut tried, mut not_trusted) = (Vec::new(), None);
            for seed in self.seeds {
                let found = tokio::time::timeout(RESOLVE_TIMEOUT, (self.resolver)(seed.clone()));
                let addresses = match found.await {
                    Ok(Ok(addresses)) => addresses,
                    Ok(Err(error)) => {
                        tried.push(format!("{seed}: {error}"));
                        continue;
                    }
                    Err(_) => {
                        tried.push(format!("{seed}: the resolver does not answer"));
                        continue;
                    }
                };
                for address in addresses {
                    match self.ask_one(address, request.clone()).await {
                        Asked::Admitted(admission) => return Ok((admission, address)),
                        Asked::Final(error) => return Err(error),
                        Asked::NotTrusted(error) => not_trusted = Some(error),
                        Asked::Again(why) => tried.push(format!("{address}: {why}")),
                    }
                }
            }
            if let Some(error) = not_trusted {
                return Err(error);
            }
            if Instant::now() + RETRY_EVERY >= deadline {
                return Err(JoinError::NoAnswer { tried });
            }
            tracing::info!(tried = tried.join("; "), "not joined yet, trying on");
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    async fn ask_one(&self, seed: SocketAddr, request: Bytes) -> Asked {
        let answer = match ask_to_join(seed, self.token.authority, request).await {
            Ok(answer) => answer,
            Err(why @ DialError::TheirCertificate(_)) => {
                return Asked::NotTrusted(JoinError::NotTrusted { seed, why });
            }
            Err(DialError::Refused(why @ Refusal::Protocol { .. })) => {
                let detail = why.to_string();
                return Asked::Final(JoinError::Answer { seed, detail });
            }
            Err(error) => return Asked::Again(error.to_string()),
        };
        match codec::from_bytes::<JoinAnswer>(&answer, JOIN_ANSWER_BYTES) {
            Ok(Ok(admission)) => Asked::Admitted(admission),
            Ok(Err(JoinRefusal::Busy)) => Asked::Again(JoinRefusal::Busy.to_string()),
            Ok(Err(why)) => Asked::Final(JoinError::Refused { seed, why }),
            Err(error) => Asked::Final(JoinError::Answer { seed, detail: error.to_string() }),
        }
    }

    /// What was signed is ours, by the authority of the token, and good by our own clock.
    fn check(&self, authority: &str, pair: &Pair) -> Result<(), String> {
        if !authority::fingerprints(authority).contains(&self.token.authority) {
            return Err("its authority is not the token's".to_owned());
        }
        if !authority::is_valid(authority, pair, SystemTime::now()) {
            return Err("the certificate is not for our key, or over: check the clocks".to_owned());
        }
        let credentials = Credentials::from_pem(authority, &pair.certificate, &pair.key);
        match credentials.map_err(|error| error.to_string())?.identity() {
            identity if identity == self.identity() => Ok(()),
            other => Err(format!("the certificate is for {}", other.to_uri())),
        }
    }
}
