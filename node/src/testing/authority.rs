//! Certificates that are the same in every run: fixed keys, numbers and dates.
//!
//! The keys are known to everyone who has this source, and good for nothing but simulations.

use purlin_proto::{NodeName, Role};
use purlin_transport::{Credentials, Identity, NODE_DNS_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ED25519, SanType, date_time_ymd,
};

/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410, section 7).
const ED25519: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];

/// Signs for one simulated cluster.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = params(1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = key(0);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The credentials of the node that is the `index`th of its cluster.
    pub(super) fn node(&self, name: NodeName, index: u8) -> Credentials {
        let mut params = params(u64::from(index) + 2);
        let uri = Identity { name, role: Role::Node }.to_uri();
        params.subject_alt_names = vec![
            SanType::URI(uri.try_into().expect("a URI is ASCII")),
            SanType::DnsName(NODE_DNS_NAME.to_owned().try_into().expect("it is ASCII")),
        ];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = key(index + 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Credentials::from_pem(&self.certificate, &certificate, &key.serialize_pem())
            .expect("they were just made")
    }
}

fn params(number: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(number.into());
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

fn key(seed: u8) -> KeyPair {
    let der = [&ED25519[..], &[seed; 32]].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_ED25519)
        .expect("a key of Ed25519")
}
