//! A holder's side of renewal: asks for its certificate anew, judges what comes, and keeps it.
//!
//! For programs that are clients, which bring no library that makes certificates: rustls signs, its
//! verifier judges, and a certification request (PKCS #10, RFC 2986) that says nothing but its
//! public key is a few bytes around the two.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::credentials::{Credentials, CredentialsError, certificates};

/// Why a certificate is not made anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewalError {
    /// The private key is of a kind that cannot sign a request.
    #[error("the key cannot sign a request: {0}")]
    Key(String),
    /// What came is no certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// What came is of another holder or key, has other permissions, or is of an authority that is
    /// not believed. Nothing has changed.
    #[error("what came is not our certificate made anew: {0}")]
    Other(String),
    /// It cannot be kept; it may be used until the program ends.
    #[error("it cannot be kept in {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Credentials with a certificate that was made anew, and what is to be kept of it.
#[derive(Debug)]
pub struct Renewed {
    /// These.
    pub credentials: Credentials,
    chain: String,
    authorities: Option<String>,
}

impl Credentials {
    /// Whether the certificate can still be used then, and is of the authority that signs: the first
    /// of those that are believed.
    pub fn is_good_at(&self, then: SystemTime) -> bool {
        self.authority.first().is_some_and(|first| {
            verify(std::slice::from_ref(first), &self.chain[..1], then).is_ok()
        })
    }

    /// Asks for the certificate anew, as DER: for the same public key, signed by its private one.
    pub fn renewal_request(&self) -> Result<Vec<u8>, RenewalError> {
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(self.key.clone_key());
        request(&*key.map_err(|error| RenewalError::Key(error.to_string()))?)
    }

    /// The same with another certificate, if that is the same holder's, for the same key, allows the
    /// same, and is good `now`. The authorities, of which it comes with a list, are believed from then
    /// on if they are already, or one that is vouches for them; both are PEM.
    pub fn renewed(
        &self,
        certificate: &str,
        authorities: &str,
        now: SystemTime,
    ) -> Result<Renewed, RenewalError> {
        let other = |why: &str| RenewalError::Other(why.to_owned());
        let chain = certificates("the certificate", certificate)?;
        let listed = certificates("the authority's certificate", authorities)?;
        let vouched = verify(&self.authority, &chain, now).map_err(RenewalError::Other)?;
        let known = |der: &CertificateDer<'_>| {
            self.authority.contains(der) || key_of(der).is_some_and(|key| vouched.contains(&key))
        };
        let believed = listed.iter().all(known).then_some(listed);
        let is_news = believed.as_ref().is_some_and(|listed| *listed != self.authority);
        let authority = believed.unwrap_or_else(|| self.authority.clone());
        let credentials = self.with(authority, chain)?;
        let (before, after) = (self.certified(), credentials.certified());
        if (after.identity, &after.permissions) != (before.identity, &before.permissions) {
            return Err(other("it is another holder's, or allows something else"));
        }
        let (chain, key) = (credentials.chain.clone(), credentials.key.clone_key());
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| RenewalError::Other(error.to_string()))?;
        let authorities = is_news.then(|| authorities.to_owned());
        Ok(Renewed { credentials, chain: certificate.to_owned(), authorities })
    }
}

impl Renewed {
    /// Keeps it in the directory that the credentials were read from, each file whole or not at all;
    /// those of a program's own it keeps nowhere. Blocks.
    pub fn keep(&self) -> Result<(), RenewalError> {
        let Some(dir) = self.credentials.dir() else { return Ok(()) };
        // The certificate may be of an authority that was not believed.
        if let Some(authorities) = &self.authorities {
            write(&dir.join("authority.pem"), authorities)?;
        }
        write(&dir.join("client.pem"), &self.chain)
    }
}

/// Verifies a chain, the holder's certificate first; the keys of those that it goes through.
fn verify(
    believed: &[CertificateDer<'_>],
    chain: &[CertificateDer<'_>],
    then: SystemTime,
) -> Result<Vec<Vec<u8>>, String> {
    let text = |error: webpki::Error| error.to_string();
    let (first, rest) = chain.split_first().ok_or("there is no certificate")?;
    let holder = EndEntityCert::try_from(first).map_err(text)?;
    let anchors: Vec<_> =
        believed.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let since_1970 = then.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let time = UnixTime::since_unix_epoch(since_1970);
    let usage = KeyUsage::client_auth();
    let path = holder
        .verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, rest, time, usage, None, None)
        .map_err(text)?;
    Ok(path.intermediate_certificates().filter_map(|cert| key_of(&cert.der())).collect())
}

/// The public key of an authority.
fn key_of(authority: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let anchor = anchor_from_trusted_cert(authority).ok()?;
    Some(anchor.subject_public_key_info.to_vec())
}

/// Object identifiers of signatures, as DER.
const ECDSA_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];

/// A certification request: the version, an empty name, the public key, no attributes; signed.
fn request(key: &dyn SigningKey) -> Result<Vec<u8>, RenewalError> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const VERSION_1: &[u8] = &[0x02, 1, 0];
    const NO_NAME: &[u8] = &[SEQUENCE, 0];
    const NO_ATTRIBUTES: &[u8] = &[0xa0, 0];
    let failed = |error: &dyn std::fmt::Display| RenewalError::Key(error.to_string());
    let schemes = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ];
    let unknown = "it is neither of P-256, P-384 nor Ed25519";
    let signer = key.choose_scheme(&schemes).ok_or_else(|| failed(&unknown))?;
    let public = key.public_key().ok_or_else(|| failed(&unknown))?;
    let algorithm = match signer.scheme() {
        SignatureScheme::ECDSA_NISTP256_SHA256 => ECDSA_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384 => ECDSA_SHA384,
        _ => ED25519,
    };
    let info = der(SEQUENCE, &[VERSION_1, NO_NAME, &public, NO_ATTRIBUTES]);
    let signature = signer.sign(&info).map_err(|error| failed(&error))?;
    let algorithm = der(SEQUENCE, &[algorithm]);
    Ok(der(SEQUENCE, &[&info, &algorithm, &der(BIT_STRING, &[&[0], &signature])]))
}

/// A value of DER: tag, length, and what it is made of.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = body.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut value = vec![tag];
    match body.len() {
        short @ 0..=0x7f => value.extend(u8::try_from(short)),
        _ => {
            value.extend(u8::try_from(length.len()).map(|count| 0x80 | count));
            value.extend(length);
        }
    }
    value.extend(body);
    value
}

/// Writes a file of its owner's alone, whole or not at all; when this returns it is on disk.
fn write(path: &Path, text: &str) -> Result<(), RenewalError> {
    let beside = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().map_err(|source| {
        // What is left beside it is of no use; it may not even be there.
        drop(fs::remove_file(&beside));
        RenewalError::Write { path: path.to_owned(), source }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateSigningRequestParams,
        ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData, SanType,
    };

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    struct Authority {
        pem: String,
        params: CertificateParams,
        key: KeyPair,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            Self { pem: params.self_signed(&key).unwrap().pem(), params, key }
        }

        fn issuer(&self) -> Issuer<'_, &KeyPair> {
            Issuer::from_params(&self.params, &self.key)
        }

        /// Another one's certificate, signed by this one.
        fn vouches_for(&self, other: &Self) -> String {
            other.params.signed_by(&other.key, &self.issuer()).unwrap().pem()
        }

        fn certificate(&self, uris: &[&str], key: &impl PublicKeyData, days: u32) -> String {
            let mut params = CertificateParams::default();
            let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
            params.subject_alt_names = uris.iter().map(uri).collect();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.not_before = (SystemTime::now() - DAY).into();
            params.not_after = (SystemTime::now() + days * DAY).into();
            params.signed_by(key, &self.issuer()).unwrap().pem()
        }
    }

    const SHOP: [&str; 2] = ["purlin:client:shop", "purlin-may:read"];

    fn credentials(authority: &Authority, key: &KeyPair) -> Credentials {
        let certificate = authority.certificate(&SHOP, key, 20);
        Credentials::from_pem(&authority.pem, &certificate, &key.serialize_pem()).unwrap()
    }

    #[test]
    fn a_certificate_is_good_until_it_runs_out_and_of_the_first_authority_alone() {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let key = KeyPair::generate().unwrap();
        let shop = credentials(&old, &key);
        let now = SystemTime::now();
        assert!(shop.is_good_at(now) && shop.is_good_at(now + 19 * DAY));
        assert!(!shop.is_good_at(now + 21 * DAY));

        let both = [new.pem.as_str(), &old.pem].concat();
        let certificate = old.certificate(&SHOP, &key, 20);
        let shop = Credentials::from_pem(&both, &certificate, &key.serialize_pem()).unwrap();
        assert!(!shop.is_good_at(now), "another one signs by now");
    }

    /// As the member that signs reads it.
    fn read(request: Vec<u8>) -> Option<Vec<u8>> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).ok()?;
        Some(request.public_key.der_bytes().to_vec())
    }

    #[test]
    fn a_request_is_for_the_same_key_and_signed_by_it() {
        let authority = Authority::new("a");
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let asked = credentials(&authority, &key).renewal_request().unwrap();
            let mut forged = asked.clone();
            *forged.last_mut().unwrap() ^= 1;

            assert_eq!(read(asked).as_deref(), Some(key.der_bytes()), "{algorithm:?}");
            assert_eq!(read(forged), None, "{algorithm:?}");
        }
    }

    #[test]
    fn what_comes_is_taken_if_it_is_ours_and_nothing_else() {
        let (authority, foreign) = (Authority::new("a"), Authority::new("f"));
        let (key, others) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (shop, now) = (credentials(&authority, &key), SystemTime::now());
        let taken = |chain: &str| shop.renewed(chain, &authority.pem, now);

        let renewed = taken(&authority.certificate(&SHOP, &key, 365)).unwrap().credentials;
        assert!(renewed.is_good_at(now + 300 * DAY));
        assert_eq!(renewed.certified().identity, shop.certified().identity);

        let more = ["purlin:client:shop", "purlin-may:read", "purlin-may:call:*"];
        for wrong in [
            authority.certificate(&SHOP, &others, 365),
            authority.certificate(&["purlin:client:bank", "purlin-may:read"], &key, 365),
            authority.certificate(&["purlin:operator:shop", "purlin-may:read"], &key, 365),
            authority.certificate(&more, &key, 365),
            foreign.certificate(&SHOP, &key, 365),
        ] {
            assert!(matches!(taken(&wrong), Err(RenewalError::Other(_))), "{wrong}");
        }
        let late =
            shop.renewed(&authority.certificate(&SHOP, &key, 20), &authority.pem, now + 21 * DAY);
        assert!(matches!(late, Err(RenewalError::Other(_))), "it is over");
        assert!(matches!(taken("nothing"), Err(RenewalError::Credentials(_))));
    }

    #[test]
    fn another_authority_is_believed_if_one_that_is_vouches_for_it() {
        let (old, new, foreign) =
            (Authority::new("old"), Authority::new("new"), Authority::new("f"));
        let key = KeyPair::generate().unwrap();
        let (shop, now) = (credentials(&old, &key), SystemTime::now());
        let chain = new.certificate(&SHOP, &key, 365) + &old.vouches_for(&new);
        let both = [new.pem.as_str(), &old.pem].concat();

        let renewed = shop.renewed(&chain, &both, now).unwrap();
        assert_eq!(renewed.authorities.as_deref(), Some(both.as_str()));
        let renewed = renewed.credentials;
        assert!(renewed.is_good_at(now) && renewed.authorities().len() == 2);
        // And from then on without the old one.
        let last = new.certificate(&SHOP, &key, 365);
        let finished = renewed.renewed(&last, &new.pem, now).unwrap().credentials;
        assert_eq!(finished.authorities().len(), 1);

        // One that nobody vouches for is not, whoever lists it.
        let more = [new.pem.as_str(), &old.pem, &foreign.pem].concat();
        let renewed = shop.renewed(&chain, &more, now).unwrap();
        assert_eq!((renewed.authorities, renewed.credentials.authorities().len()), (None, 1));
        let chain = foreign.certificate(&SHOP, &key, 365) + &foreign.vouches_for(&new);
        assert!(matches!(shop.renewed(&chain, &more, now), Err(RenewalError::Other(_))));
    }

    #[test]
    fn it_is_kept_where_it_was_read() {
        let authority = Authority::new("a");
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("authority.pem", authority.pem.clone()),
            ("client.pem", authority.certificate(&SHOP, &key, 20)),
            ("client.key", key.serialize_pem()),
        ];
        for (name, text) in files {
            write(&dir.path().join(name), &text).unwrap();
        }
        let shop = Credentials::from_dir(dir.path()).unwrap();
        let now = SystemTime::now();
        let chain = authority.certificate(&SHOP, &key, 365);

        shop.renewed(&chain, &authority.pem, now).unwrap().keep().unwrap();

        let read = Credentials::from_dir(dir.path()).unwrap();
        assert!(read.is_good_at(now + 300 * DAY));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "and nothing beside it");

        fs::remove_dir_all(dir.path()).unwrap();
        let kept = shop.renewed(&chain, &authority.pem, now).unwrap().keep();
        assert!(matches!(kept, Err(RenewalError::Write { .. })), "{kept:?}");
    }
}
