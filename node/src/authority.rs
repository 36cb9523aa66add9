//! The cluster authority of a user: made once, signs every node and client of that user.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use purlin_proto::revocation::{Revocation, SignedRevocation};
use purlin_proto::{Permissions, Role, Serial};
use purlin_transport::{Certified, Fingerprint, Identity, NODE_DNS_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::parse_x509_certificate;
use x509_parser::pem::{Pem, parse_x509_pem};

/// Certificates of nodes and clients are good for so long, and are made anew when a quarter is left.
pub(crate) const VALIDITY: Duration = Duration::from_hours(365 * 24);

const AUTHORITY_VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);

/// Clocks of machines differ; a certificate is good a little before it was made.
pub(crate) const SKEW: Duration = Duration::from_hours(1);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The key or what is to be in it cannot be used.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system has no random numbers.
    #[error("cannot make a certificate: the system has no random numbers")]
    Chance,
}

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

/// Makes a key, and signs a certificate for it, of a holder that needs no permissions. `at_ms` is the
/// time in its number.
pub(crate) fn issue(
    authority: &Pair,
    identity: Identity,
    at_ms: u64,
) -> Result<Pair, AuthorityError> {
    let key = KeyPair::generate()?;
    let certificate = sign(authority, identity, &Permissions::default(), at_ms, &key)?;
    Ok(Pair { certificate, key: key.serialize_pem() })
}

/// Signs a certificate anew, for the same key and all else.
pub(crate) fn sign_again(
    authority: &Pair,
    before: &Certified,
    key: &str,
    at_ms: u64,
) -> Result<String, AuthorityError> {
    let key = KeyPair::from_pem(key)?;
    sign(authority, before.identity, &before.permissions, at_ms, &key)
}

/// The certificates of a PEM text, as DER.
pub(crate) fn ders(pem: &str) -> Vec<Bytes> {
    Pem::iter_from_buffer(pem.as_bytes()).flatten().map(|pem| pem.contents.into()).collect()
}

/// Makes a key, as PEM, for a certificate that somebody else is to sign.
pub(crate) fn new_key() -> Result<String, AuthorityError> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// Asks for a certificate (PKCS #10, RFC 2986): the public key, signed by its private key.
pub(crate) fn request(key: &str, identity: Identity) -> Result<Vec<u8>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, identity.name.as_str());
    Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.der().to_vec())
}

/// The public key of a request, if whoever made it has the private one. Nothing else of it counts.
pub(crate) fn subject(request: &[u8]) -> Result<rcgen::PublicKey, String> {
    let request = CertificateSigningRequestParams::from_der(&request.into());
    let key = request.map_err(|error| error.to_string())?.public_key;
    let known = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    match known.contains(&key.algorithm()) {
        true => Ok(key),
        false => Err("the key is neither of P-256, P-384 nor Ed25519".to_owned()),
    }
}

/// Signs a certificate, as PEM, for the public key of a node, client or operator. Permissions are
/// for clients; `at_ms` is the time in its number.
pub(crate) fn sign(
    authority: &Pair,
    identity: Identity,
    permissions: &Permissions,
    at_ms: u64,
    key: &impl PublicKeyData,
) -> Result<String, AuthorityError> {
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = params(VALIDITY);
    params.distinguished_name.push(DnType::CommonName, identity.name.as_str());
    params.serial_number = Some(serial(at_ms)?);
    params.subject_alt_names = vec![SanType::URI(identity.to_uri().try_into()?)];
    for permission in permissions.iter() {
        params.subject_alt_names.push(SanType::URI(permission.to_uri().try_into()?));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if identity.role == Role::Node {
        params.subject_alt_names.push(SanType::DnsName(NODE_DNS_NAME.to_owned().try_into()?));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    Ok(params.signed_by(key, &issuer)?.pem())
}

fn serial(at_ms: u64) -> Result<SerialNumber, AuthorityError> {
    let mut chance = [0; 10];
    SystemRandom::new().fill(&mut chance).map_err(|_| AuthorityError::Chance)?;
    Ok(SerialNumber::from_slice(Serial::new(at_ms, chance).as_bytes()))
}

/// Signs a revocation.
pub(crate) fn revoke(
    authority: &Pair,
    revocation: Revocation,
) -> Result<SignedRevocation, AuthorityError> {
    let bytes = revocation.signed_bytes().expect("plain data");
    let signature = KeyPair::from_pem(&authority.key)?.sign(&bytes)?;
    Ok(SignedRevocation { revocation, signature })
}

/// Whether one of these authorities (certificates as DER) has signed this.
pub(crate) fn has_signed(authorities: &[Bytes], bytes: &[u8], signature: &[u8]) -> bool {
    authorities.iter().any(|der| {
        let Ok((_, authority)) = parse_x509_certificate(der) else { return false };
        let key = &authority.public_key().subject_public_key.data;
        // The length tells the kinds of keys apart that are used here.
        let algorithm: &dyn VerificationAlgorithm = match key.len() {
            32 => &ED25519,
            65 => &ECDSA_P256_SHA256_ASN1,
            97 => &ECDSA_P384_SHA384_ASN1,
            _ => return false,
        };
        UnparsedPublicKey::new(algorithm, key).verify(bytes, signature).is_ok()
    })
}

/// What is wrong with a certificate (as DER) that is to be made anew: whether one of these
/// authorities has signed it, it has not expired, and it is of this key.
pub(crate) fn check_renewable(
    authorities: &[Bytes],
    der: &[u8],
    key: &impl PublicKeyData,
    now: SystemTime,
) -> Result<(), String> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let (signed, signature) = (&certificate.tbs_certificate, &certificate.signature_value.data);
    let now_ms = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    if !has_signed(authorities, signed.as_ref(), signature) {
        return Err("the certificate is not of this cluster's authority".to_owned());
    }
    if expires_ms(der).is_none_or(|expires| u128::from(expires) <= now_ms) {
        return Err("the certificate has expired: a new one is had with a new token".to_owned());
    }
    if *certificate.public_key().subject_public_key.data != *key.der_bytes() {
        return Err("the request is for another key than the certificate's".to_owned());
    }
    Ok(())
}

/// When a certificate runs out, in milliseconds since 1970.
pub(crate) fn expires_ms(der: &[u8]) -> Option<u64> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    seconds.checked_mul(1_000)
}

/// The fingerprint of a certificate in PEM; of the first, if there are several.
pub(crate) fn fingerprint(certificate: &str) -> Option<Fingerprint> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
    Some(Fingerprint::of(&pem.contents))
}

fn params(validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + validity).into();
    params
}

/// Whether a certificate can be used for a while yet: [`is_valid`] until a quarter of its time is
/// left.
pub(crate) fn is_good(authority: &str, pair: &Pair, now: SystemTime) -> bool {
    is_valid(authority, pair, now + VALIDITY / 4)
}

/// Whether a certificate has not run out by then, and is of this authority and of its own key. What
/// cannot be read cannot be used.
pub(crate) fn is_valid(authority: &str, pair: &Pair, then: SystemTime) -> bool {
    let Ok((_, authority)) = parse_x509_pem(authority.as_bytes()) else { return false };
    let Ok((_, certificate)) = parse_x509_pem(pair.certificate.as_bytes()) else { return false };
    let (Ok(authority), Ok(certificate)) = (authority.parse_x509(), certificate.parse_x509())
    else {
        return false;
    };
    let Ok(key) = KeyPair::from_pem(&pair.key) else { return false };
    let until = certificate.validity().not_after.timestamp();
    let wanted = then.duration_since(SystemTime::UNIX_EPOCH);
    let wanted = wanted.map_or(0, |wanted| wanted.as_secs());
    let same_key = *certificate.public_key().subject_public_key.data == *key.public_key_raw();
    let signed = certificate.issuer().as_raw() == authority.subject().as_raw();
    same_key && signed && u64::try_from(until).is_ok_and(|until| until > wanted)
}

/// Tells authorities apart for people; not a secret.
fn rand_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).expect("32 bits")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { name: "a".into(), role: Role::Node }
    }

    #[test]
    fn a_certificate_is_good_until_a_quarter_of_its_time_is_left() {
        let authority = create().unwrap();
        let pair = issue(&authority, identity(), 1).unwrap();
        let now = SystemTime::now();
        let day = Duration::from_hours(24);
        assert!(is_good(&authority.certificate, &pair, now));
        assert!(is_good(&authority.certificate, &pair, now + VALIDITY / 4 * 3 - day));
        assert!(!is_good(&authority.certificate, &pair, now + VALIDITY / 4 * 3 + day));
    }

    #[test]
    fn a_certificate_of_another_authority_or_another_key_is_not_good() {
        let (authority, other) = (create().unwrap(), create().unwrap());
        let pair = issue(&authority, identity(), 1).unwrap();
        let now = SystemTime::now();
        assert!(!is_good(&other.certificate, &pair, now));
        let key = issue(&authority, identity(), 1).unwrap().key;
        assert!(!is_good(&authority.certificate, &Pair { key, ..pair }, now));
    }

    #[test]
    fn what_cannot_be_read_is_not_good() {
        let authority = create().unwrap();
        let pair = issue(&authority, identity(), 1).unwrap();
        let now = SystemTime::now();
        for broken in ["", "nothing", &pair.certificate[..200]] {
            let broken = Pair { certificate: broken.to_owned(), key: pair.key.clone() };
            assert!(!is_good(&authority.certificate, &broken, now));
        }
    }
}
