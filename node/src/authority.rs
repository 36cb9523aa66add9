//! The cluster authority of a user: made once, signs every node and client of that user.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use bytes::Bytes;
use data_encoding::BASE64;
use purlin_proto::revocation::{Revocation, SignedRevocation};
use purlin_proto::{Permissions, Role, Serial};
use purlin_transport::{Certified, Fingerprint, Identity, NODE_DNS_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SigningKey,
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
    let key = KeyPair::generate()?;
    let certificate = authority_params().self_signed(&key)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

/// Makes an authority that is to take the place of another, and its certificate as that one signs
/// it.
pub(crate) fn create_next(old: &Pair) -> Result<(Pair, String), AuthorityError> {
    let (params, key) = (authority_params(), KeyPair::generate()?);
    let certificate = params.self_signed(&key)?.pem();
    let issuer = Issuer::from_ca_cert_pem(&old.certificate, KeyPair::from_pem(&old.key)?)?;
    let cross = params.signed_by(&key, &issuer)?.pem();
    Ok((Pair { certificate, key: key.serialize_pem() }, cross))
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

/// A certificate as PEM (RFC 7468: base64 in lines of 64 characters).
pub(crate) fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII"));
    let body: Vec<_> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", body.join("\n"))
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

/// Signs bytes.
pub(crate) fn signature(authority: &Pair, bytes: &[u8]) -> Result<Vec<u8>, AuthorityError> {
    Ok(KeyPair::from_pem(&authority.key)?.sign(bytes)?)
}

/// Signs a revocation.
pub(crate) fn revoke(
    authority: &Pair,
    revocation: Revocation,
) -> Result<SignedRevocation, AuthorityError> {
    let bytes = revocation.signed_bytes().expect("plain data");
    let signature = signature(authority, &bytes)?;
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

/// Whether one of these authorities has signed a certificate; all as DER.
pub(crate) fn is_signed_by(authorities: &[Bytes], der: &[u8]) -> bool {
    parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
        let (signed, signature) = (&certificate.tbs_certificate, &certificate.signature_value);
        has_signed(authorities, signed.as_ref(), &signature.data)
    })
}

/// Whether all of these authorities are believed already, or one that is vouches for them in the chain
/// of a certificate; all in PEM.
pub(crate) fn is_vouched(believed: &str, chain: &str, authorities: &str) -> bool {
    let key = |der: &[u8]| {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        Some(certificate.public_key().raw.to_vec())
    };
    let (believed, all) = (ders(believed), ders(authorities));
    let crosses: Vec<_> = ders(chain)
        .into_iter()
        .skip(1)
        .filter(|cross| is_authority(cross) && is_signed_by(&believed, cross))
        .collect();
    let vouched =
        |der: &Bytes| believed.contains(der) || crosses.iter().any(|cross| key(cross) == key(der));
    !all.is_empty() && all.iter().all(vouched)
}

/// Whether this can be an authority.
pub(crate) fn is_authority(der: &[u8]) -> bool {
    parse_x509_certificate(der).is_ok_and(|(_, certificate)| certificate.is_ca())
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
    let now_ms = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    if !is_signed_by(authorities, der) {
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

/// The fingerprints of all certificates in a PEM text.
pub(crate) fn fingerprints(certificates: &str) -> Vec<Fingerprint> {
    ders(certificates).iter().map(|der| Fingerprint::of(der)).collect()
}

/// The fingerprint of a certificate in PEM; of the first, if there are several.
pub(crate) fn fingerprint(certificate: &str) -> Option<Fingerprint> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
    Some(Fingerprint::of(&pem.contents))
}

fn authority_params() -> CertificateParams {
    let mut params = params(AUTHORITY_VALIDITY);
    let name = format!("purlin authority {:08x}", rand_u32());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + validity).into();
    params
}

/// Whether a certificate can be used for a while yet: of the authority that signs (the first of
/// those in PEM), until a quarter of its time is left.
pub(crate) fn is_good(authorities: &str, pair: &Pair, now: SystemTime) -> bool {
    let first: Vec<_> = ders(authorities).into_iter().take(1).collect();
    is_valid_by(&first, pair, now + VALIDITY / 4)
}

/// Whether a certificate has not run out by then, and is of one of these authorities (in PEM) and of
/// its own key. What cannot be read cannot be used.
pub(crate) fn is_valid(authorities: &str, pair: &Pair, then: SystemTime) -> bool {
    is_valid_by(&ders(authorities), pair, then)
}

fn is_valid_by(authorities: &[Bytes], pair: &Pair, then: SystemTime) -> bool {
    let wanted = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let certificate = ders(&pair.certificate).into_iter().next();
    certificate.is_some_and(|der| {
        is_key_of(&pair.certificate, &pair.key)
            && is_signed_by(authorities, &der)
            && expires_ms(&der).is_some_and(|expires| u128::from(expires) > wanted)
    })
}

/// Whether a certificate (in PEM; the first, if there are several) is for this key.
pub(crate) fn is_key_of(certificate: &str, key: &str) -> bool {
    let Ok((_, pem)) = parse_x509_pem(certificate.as_bytes()) else { return false };
    let (Ok(certificate), Ok(key)) = (pem.parse_x509(), KeyPair::from_pem(key)) else {
        return false;
    };
    *certificate.public_key().subject_public_key.data == *key.public_key_raw()
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
