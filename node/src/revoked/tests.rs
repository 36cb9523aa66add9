//! Which revocations a node believes.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime};

use purlin_proto::revocation::Revoked;
use purlin_proto::trust::{ByteBuf, Trust};

use super::trust::Heard;
use super::*;
use crate::authority::Pair;

fn signed(authority: &Pair, name: &'static str, until_ms: u64) -> SignedRevocation {
    let what = Revoked::Holder { role: Role::Node, name: name.into(), made_until_ms: 1_000 };
    authority::revoke(authority, Revocation { what, at_ms: 1_000, until_ms }).unwrap()
}

fn known(authority: &Pair, now_ms: u64) -> Arc<Known> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms);
    let (_, pem) = x509_parser::pem::parse_x509_pem(authority.certificate.as_bytes()).unwrap();
    Known::new(None, Vec::new(), None, vec![pem.contents.into()], Arc::new(move || now))
}

fn revokes(known: &Known, name: &'static str) -> bool {
    known.is_revoked(Role::Node, name.into(), &Serial::new(500, [0; 10]))
}

#[test]
fn only_what_our_authority_has_signed_is_believed() {
    let (authority, other) = (authority::create().unwrap(), authority::create().unwrap());
    let known = known(&authority, 2_000);
    let forged = signed(&other, "a", 9_000);
    let mut changed = signed(&authority, "a", 9_000);
    changed.revocation.at_ms += 1;
    let mut cut = signed(&authority, "a", 9_000);
    cut.signature.clear();

    for bad in [forged, changed, cut] {
        let Added { new, unsigned, result } = known.add(vec![bad]);
        assert!(new.is_empty() && unsigned == 1);
        assert!(matches!(result, Err(NotBelieved::Signature(_))));
    }
    assert!(!revokes(&known, "a"));

    let Added { new, result, .. } = known.add(vec![signed(&authority, "a", 9_000)]);
    assert!(new.len() == 1 && result.is_ok());
    assert!(revokes(&known, "a") && !revokes(&known, "b"));
}

#[test]
fn sets_that_hold_the_same_have_the_same_digest_in_whatever_order_they_were_told() {
    let authority = authority::create().unwrap();
    let (a, b) = (signed(&authority, "a", 9_000), signed(&authority, "b", 9_000));
    let (one, other) = (known(&authority, 2_000), known(&authority, 2_000));
    assert_eq!(one.digest(), 0);

    assert_eq!(one.add(vec![a.clone(), b.clone()]).new.len(), 2);
    assert_eq!(other.add(vec![b.clone()]).new.len(), 1);
    assert_ne!(one.digest(), other.digest());
    assert_eq!(other.add(vec![a, b]).new.len(), 1, "only what is new is told on");

    assert_eq!(one.digest(), other.digest());
    assert_eq!(one.list(), other.list());
}

#[test]
fn what_is_over_is_not_taken_and_makes_room() {
    let authority = authority::create().unwrap();
    let known = known(&authority, 10_000);
    assert!(known.add(vec![signed(&authority, "a", 9_000)]).new.is_empty());
    assert!(known.list().is_empty());
    assert_eq!(known.add(vec![signed(&authority, "a", 11_000)]).new.len(), 1);
}

#[test]
fn the_next_authority_is_believed_if_one_that_is_believed_has_signed_it() {
    let (old, stranger) = (authority::create().unwrap(), authority::create().unwrap());
    let (new, _) = authority::create_next(&old).unwrap();
    let known = known(&old, 2_000);
    known.add(vec![signed(&old, "a", 9_000)]).result.unwrap();
    let list = |number, authorities: &[&Pair], signer: &Pair| {
        let der = |pair: &&Pair| authority::ders(&pair.certificate)[0].to_vec();
        let authorities = authorities.iter().map(der).map(ByteBuf::from).collect();
        let trust = Trust { number, authorities };
        let signature = authority::signature(signer, &trust.signed_bytes().unwrap()).unwrap();
        SignedTrust { trust, signatures: vec![ByteBuf::from(signature)] }
    };

    assert!(known.believe(list(1, &[&stranger], &stranger)).is_err());
    assert!(known.believe(list(1, &[], &old)).is_err(), "nobody could be believed");
    let leaf = Pair { certificate: leaf(&old), key: String::new() };
    assert!(known.believe(list(1, &[&leaf], &old)).is_err(), "it is no authority");
    let two = list(1, &[&new, &old], &old);
    assert!(matches!(known.believe(two.clone()), Ok(Heard::News)));
    assert!(matches!(known.believe(two.clone()), Ok(Heard::Same)));
    assert!(revokes(&known, "a"));

    assert!(matches!(known.believe(list(2, &[&new], &new)), Ok(Heard::News)));

    assert!(matches!(known.believe(two), Ok(Heard::Older)));
    assert!(known.believe(list(3, &[&old], &old)).is_err(), "the old one is over");
    // What it had revoked it had signed.
    assert!(known.list().is_empty());
    assert!(known.add(vec![signed(&old, "b", 9_000)]).result.is_err());
}

fn leaf(authority: &Pair) -> String {
    let identity = purlin_transport::Identity { name: "a".into(), role: Role::Node };
    authority::issue(authority, identity, 1).unwrap().certificate
}
