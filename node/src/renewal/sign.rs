//! A member's side of renewal: signs, or finds one that can.
//!
//! Whoever has a certificate that is neither expired nor revoked, and its key, gets the same again.
//! So nothing is asked of the connection that the request came by, and members hand it on as it is.

use std::sync::Arc;
use std::time::Duration;

use purlin_proto::admin::{self, Renew};
use purlin_proto::join::Admission;
use purlin_proto::{Dest, Name, NodeName};
use purlin_transport::Certified;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::authority;
use crate::home::Home;
use crate::node::Shared;

/// How long a member may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes a certificate anew, here or at another member.
pub(crate) async fn renew(node: &Shared, ask: Renew) -> Result<Admission, String> {
    let home = node.revoked.home().filter(|home| Home::has_authority(home.dir())).cloned();
    let Some(home) = home else {
        return match ask.forwarded {
            true => Err(format!("{} does not have the authority's key", node.runtime.name())),
            false => ask_others(node, ask).await,
        };
    };
    let now = (node.clock)();
    let before = Certified::of_der(&ask.certificate)?;
    let holder = before.identity;
    if node.revoked.is_revoked(holder.role, holder.name, &before.serial) {
        tracing::warn!(holder = holder.to_uri(), "revoked, and not made anew");
        return Err(
            "the certificate has been revoked: a new one is had with a new token".to_owned()
        );
    }
    let turns = Arc::clone(&node.renewal.signed);
    let signed = tokio::task::spawn_blocking(move || {
        sign(&home, &before, &ask.request, now, || {
            turns.take((holder.role, holder.name), Instant::now())
        })
    });
    let admission = signed.await.map_err(|error| error.to_string())??;
    tracing::info!(holder = holder.to_uri(), "certificate made anew");
    Ok(admission)
}

fn sign(
    home: &Home,
    before: &Certified,
    request: &[u8],
    now: std::time::SystemTime,
    has_turn: impl FnOnce() -> bool,
) -> Result<Admission, String> {
    let subject = authority::subject(request)?;
    let authority = home.authority().map_err(|error| failed(&error))?;
    let authorities = authority::ders(&authority.certificate);
    authority::check_renewable(&authorities, &before.der, &subject, now)?;
    // Not before it is proved who asks: nobody uses up another's turns.
    if !has_turn() {
        return Err("it has been made anew too often of late".to_owned());
    }
    if before.permissions.is_partial() {
        return Err("it has permissions that this version does not know".to_owned());
    }
    let at_ms = home.stamp().map_err(|error| failed(&error))?;
    let signed = authority::sign(&authority, before.identity, &before.permissions, at_ms, &subject);
    let certificate = home.with_cross(signed.map_err(|error| failed(&error))?);
    let certificate = certificate.map_err(|error| failed(&error))?;
    Ok(Admission { certificate, authority: authority.certificate })
}

/// Others are not told what is on this machine; the operator is, who has to act.
fn failed(error: &dyn std::fmt::Display) -> String {
    tracing::error!(%error, "certificates cannot be made anew here");
    "the member that has the authority's key could not sign: see its log".to_owned()
}

/// Asks all other members at once; the first that can is taken.
pub(super) async fn ask_others(node: &Shared, ask: Renew) -> Result<Admission, String> {
    let ask = Renew { forwarded: true, ..ask };
    let others: Vec<NodeName> = {
        let membership = node.membership();
        membership.live().filter(|name| *name != node.runtime.name()).collect()
    };
    let mut asked = JoinSet::new();
    for member in others {
        let (runtime, ask) = (node.runtime.clone(), ask.clone());
        let system = Dest::Remote(Name::new(admin::SYSTEM).expect("a name"), member);
        asked.spawn(async move {
            let answer = runtime.call_timeout(system, ask, SIGN_TIMEOUT).await;
            answer.unwrap_or_else(|error| Err(format!("{member}: {error}")))
        });
    }
    let mut refused = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(admission)) => return Ok(admission),
            Ok(Err(why)) => refused.push(why),
            Err(error) => refused.push(error.to_string()),
        }
    }
    match refused.is_empty() {
        true => Err("there is no other member".to_owned()),
        false => Err(refused.join("; ")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::SystemTime;

    use purlin_proto::{Permissions, Role};
    use purlin_transport::Identity;

    use super::*;

    struct Setting {
        _dir: tempfile::TempDir,
        home: Home,
        key: String,
        before: Certified,
    }

    /// A client with a certificate of this directory's authority.
    fn setting() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path().join("home")).unwrap();
        let key = authority::new_key().unwrap();
        let identity = Identity { name: "shop".into(), role: Role::Client };
        let may = Permissions::new(vec!["call:hits".parse().unwrap()]).unwrap();
        let subject = authority::subject(&authority::request(&key, identity).unwrap()).unwrap();
        let pair = home.authority().unwrap();
        let pem = authority::sign(&pair, identity, &may, 1, &subject).unwrap();
        Setting { _dir: dir, home, key, before: Certified::of_pem(&pem).unwrap() }
    }

    fn request(key: &str, before: &Certified) -> Vec<u8> {
        authority::request(key, before.identity).unwrap()
    }

    #[test]
    fn the_same_holder_gets_the_same_again_with_another_number_and_end() {
        let Setting { home, key, before, .. } = &setting();
        let now = SystemTime::now();

        let made = sign(home, before, &request(key, before), now, || true).unwrap();

        let after = Certified::of_pem(&made.certificate).unwrap();
        assert_eq!((after.identity, &after.permissions), (before.identity, &before.permissions));
        assert!(after.serial.made_ms() > before.serial.made_ms());
        let pair = authority::Pair { certificate: made.certificate, key: key.clone() };
        assert!(authority::is_good(&made.authority, &pair, now));
    }

    #[test]
    fn nobody_else_gets_it() {
        let Setting { home, key, before, .. } = &setting();
        let now = SystemTime::now();
        let other = authority::new_key().unwrap();
        let refused = sign(home, before, &request(&other, before), now, || false).unwrap_err();
        assert!(refused.contains("another key"), "{refused}");

        let foreign = setting();
        let asked = request(&foreign.key, &foreign.before);
        let refused = sign(home, &foreign.before, &asked, now, || false).unwrap_err();
        assert!(refused.contains("not of this cluster's authority"), "{refused}");

        let late = now + authority::VALIDITY + Duration::from_secs(1);
        let refused = sign(home, before, &request(key, before), late, || false).unwrap_err();
        assert!(refused.contains("has expired"), "{refused}");

        let refused = sign(home, before, &request(key, before), now, || false).unwrap_err();
        assert!(refused.contains("too often"), "{refused}");

        assert!(sign(home, before, b"nothing", now, || false).is_err());
    }
}
