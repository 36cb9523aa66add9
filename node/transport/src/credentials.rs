//! Who we are, and whom we believe: an authority, a certificate, a key.
//!
//! # What a certificate says
//!
//! A node's certificate has the DNS name `node.purlin`; whoever dials asks for that name, so a
//! client's certificate can never serve. The name and the role are in a URI, `purlin:node:NAME`,
//! `purlin:client:NAME` or `purlin:operator:NAME`; what a client may do is in further ones
//! ([`Permissions`]). Everything else (chain, dates, key usage) is checked by rustls' own verifiers,
//! in both directions.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use purlin_proto::{NodeName, Permissions, Role, Serial};

/// The DNS name in the certificate of every node.
pub const NODE_DNS_NAME: &str = "node.purlin";

/// What is needed to take part: whom to believe, and how to prove who we are.
///
/// Cheap enough to clone; prints without the key.
pub struct Credentials {
    pub(crate) authority: Vec<CertificateDer<'static>>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    certified: Certified,
    dir: Option<PathBuf>,
}

/// Whose a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Whose it is.
    pub name: NodeName,
    /// What it lets its holder be.
    pub role: Role,
}

/// What a certificate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Whose it is, and what it lets its holder be.
    pub identity: Identity,
    /// What a client may do; of no meaning for others.
    pub permissions: Permissions,
    /// Its number.
    pub serial: Serial,
    /// The certificate itself, as DER.
    pub der: Bytes,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; the first `purlin start` of a user makes it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A private key can be read by others.
    #[error("{path} can be read by others: run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A file or text is not PEM, or not what it should be.
    #[error("{what} is not valid PEM: {detail}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The certificate names no Purlin node or client.
    #[error("the certificate is not of a Purlin node or client: {0}")]
    Identity(String),
}

impl Credentials {
    /// Reads credentials from PEM texts: authority certificates, our chain, our private key.
    pub fn from_pem(authority: &str, chain: &str, key: &str) -> Result<Self, CredentialsError> {
        let authority = certificates("the authority's certificate", authority)?;
        let chain = certificates("the certificate", chain)?;
        let bad = |error| CredentialsError::Pem { what: "the key", detail: format!("{error}") };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(bad)?;
        let certified = Certified::of(&chain[0]).map_err(CredentialsError::Identity)?;
        Ok(Self { authority, chain, key, certified, dir: None })
    }

    /// The same key with another certificate, and other authorities.
    pub(crate) fn with(
        &self,
        authority: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CredentialsError> {
        let certified = Certified::of(&chain[0]).map_err(CredentialsError::Identity)?;
        let (key, dir) = (self.key.clone_key(), self.dir.clone());
        Ok(Self { authority, chain, key, certified, dir })
    }

    /// Reads a client's credentials from a directory: `authority.pem`, `client.pem`, `client.key`.
    ///
    /// The first `purlin start` of a user makes them in `$PURLIN_HOME`, or `~/.purlin`. A key that
    /// others can read is refused.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, CredentialsError> {
        let dir = dir.as_ref();
        let key = dir.join("client.key");
        let text = read(&key)?;
        check_private(&key)?;
        let (authority, chain) =
            (read(&dir.join("authority.pem"))?, read(&dir.join("client.pem"))?);
        let credentials = Self::from_pem(&authority, &chain, &text)?;
        Ok(Self { dir: Some(dir.to_owned()), ..credentials })
    }

    /// The directory that they were read from by [`from_dir`](Self::from_dir).
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Whether these are the same certificates, of us and of authorities.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.authority, &self.chain) == (&other.authority, &other.chain)
    }

    /// Whose they are.
    pub fn identity(&self) -> Identity {
        self.certified.identity
    }

    /// The certificates of the authorities that are believed, as DER.
    pub fn authorities(&self) -> Vec<Bytes> {
        self.authority.iter().map(|der| Bytes::copy_from_slice(der)).collect()
    }

    /// All that our certificate proves.
    pub fn certified(&self) -> &Certified {
        &self.certified
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            authority: self.authority.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            certified: self.certified.clone(),
            dir: self.dir.clone(),
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

impl Certified {
    /// Reads what a certificate proves.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let der = Bytes::copy_from_slice(certificate);
        let certificate =
            webpki::EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
        let mut found = certificate.valid_uri_names().filter_map(Identity::from_uri);
        let identity = match (found.next(), found.next()) {
            (Some(identity), None) => identity?,
            (None, _) => return Err("it has no purlin: name".to_owned()),
            (Some(_), Some(_)) => return Err("it has several purlin: names".to_owned()),
        };
        let permissions = Permissions::from_uris(certificate.valid_uri_names());
        let permissions = permissions.map_err(|error| error.to_string())?;
        Ok(Self { identity, permissions, serial: Serial::of(certificate.serial()), der })
    }
}

impl Certified {
    /// As [`of`](Self::of), of plain bytes.
    pub fn of_der(certificate: &[u8]) -> Result<Self, String> {
        Self::of(&CertificateDer::from(certificate))
    }

    /// Reads what a certificate proves, in PEM; of the first, if there are several.
    pub fn of_pem(certificate: &str) -> Result<Self, CredentialsError> {
        let all = certificates("the certificate", certificate)?;
        Self::of(&all[0]).map_err(CredentialsError::Identity)
    }
}

impl Identity {
    fn from_uri(uri: &str) -> Option<Result<Self, String>> {
        let (role, name) = uri.strip_prefix("purlin:")?.split_once(':')?;
        let role = match role {
            "node" => Role::Node,
            "client" => Role::Client,
            "operator" => Role::Operator,
            other => return Some(Err(format!("unknown role {other:?}"))),
        };
        let named = NodeName::new(name).map_err(|error| error.to_string());
        Some(named.map(|name| Self { name, role }))
    }

    /// The URI that a certificate carries for it.
    pub fn to_uri(self) -> String {
        format!("purlin:{}:{}", self.role.word(), self.name)
    }
}

pub(crate) fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(list) if list.is_empty() => {
            Err(CredentialsError::Pem { what, detail: "there is no certificate in it".to_owned() })
        }
        Ok(list) => Ok(list),
        Err(error) => Err(CredentialsError::Pem { what, detail: error.to_string() }),
    }
}

fn read(path: &Path) -> Result<String, CredentialsError> {
    std::fs::read_to_string(path)
        .map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
}

/// Refuses a file that its group or others may read.
pub fn check_private(path: &Path) -> Result<(), CredentialsError> {
    use std::os::unix::fs::PermissionsExt;
    let of = |source| CredentialsError::Read { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(of)?.permissions().mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(CredentialsError::Exposed { path: path.to_owned() }),
    }
}
