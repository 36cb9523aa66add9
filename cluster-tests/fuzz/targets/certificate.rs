//! Certificates and requests for some, as a holder of a token, a client that wants its own anew, or a
//! member may hand them in; the permissions in them; and what members say of certificates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purlin_proto::limits::{PERMISSIONS, STATE_BYTES};
use purlin_proto::revocation::Saying;
use purlin_proto::{Permission, Permissions, codec};
use purlin_transport::Certified;
use rcgen::CertificateSigningRequestParams;

fuzz_target!(|input: &[u8]| {
    if let Ok(certified) = Certified::of_der(input) {
        assert_eq!(certified.der, input);
        assert!(certified.permissions.iter().count() <= PERMISSIONS);
        let identity = certified.identity.to_uri();
        assert!(identity.contains(certified.identity.name.as_str()));
    }
    // As a member reads a request before it signs.
    let _ = CertificateSigningRequestParams::from_der(&input.into());
    if let Ok(saying) = codec::from_bytes::<Saying>(input, STATE_BYTES) {
        let written = codec::to_bytes(&saying).expect("what was read can be written");
        assert_eq!(written, input, "there is one way to write it");
        if let (true, Saying::These(all)) = (saying.is_bounded(), saying) {
            for signed in all {
                signed.revocation.signed_bytes().expect("what was read can be written");
            }
        }
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(permission) = text.parse::<Permission>() {
        let uri = permission.to_uri();
        assert_eq!(Permission::from_uri(&uri), Some(Ok(permission)), "{uri}");
    }
    let uris = text.lines();
    if let Ok(permissions) = Permissions::from_uris(uris.clone()) {
        assert!(permissions.iter().count() <= uris.count());
    }
});
