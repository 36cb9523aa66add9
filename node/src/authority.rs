//! The cluster authority of a user: made once, signs every node and client of that user.

use std::time::Duration;

use purlin_proto::Role;
use purlin_transport::{Identity, NODE_DNS_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Certificates of nodes and clients are good for so long, and are made anew when a quarter is left.
pub(crate) const VALIDITY: Duration = Duration::from_hours(365 * 24);

const AUTHORITY_VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);

/// Clocks of machines differ; a certificate is good a little before it was made.
const SKEW: Duration = Duration::from_hours(1);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct AuthorityError(#[from] rcgen::Error);

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Makes a new authority.
pub(crate) fn create() -> Result<Pair, AuthorityError> {
    let mut params = params(AUTHORITY_VALIDITY);
    let name = format!("purlin authority {:08x}", rand_u32());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

/// Signs a certificate for a node or client.
pub(crate) fn issue(authority: &Pair, identity: Identity) -> Result<Pair, AuthorityError> {
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = params(VALIDITY);
    params.distinguished_name.push(DnType::CommonName, identity.name.as_str());
    params.subject_alt_names = vec![SanType::URI(identity.to_uri().try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if identity.role == Role::Node {
        params.subject_alt_names.push(SanType::DnsName(NODE_DNS_NAME.to_owned().try_into()?));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

fn params(validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = std::time::SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + validity).into();
    params
}

/// Tells authorities apart for people; not a secret.
fn rand_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).expect("32 bits")
}
