//! What a data directory remembers of revocations, and how they are made where the authority's key is.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use purlin_proto::Serial;
use purlin_proto::limits::CREATION;
use purlin_proto::revocation::{Revocation, Revoked, SignedRevocation};
use purlin_transport::{Certified, Identity};

use super::{Home, HomeError};
use crate::authority;

/// Clocks differ: a revocation is kept for so long after all that it covers has expired.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// What is to be revoked.
pub(crate) enum Revoking {
    /// One certificate.
    Serial(Serial),
    /// All of one holder that were made until now.
    Holder(Identity),
}

impl Home {
    /// A time for a certificate that is made here, in milliseconds since 1970: now, but later than
    /// any before, whatever the clock does. So what was revoked up to a time is not what is made
    /// after it. Remembered before it is used.
    pub(crate) fn stamp(&self) -> Result<u64, HomeError> {
        let _held = self.lock("stamp.lock")?;
        let stamp = self.last_stamp()?.saturating_add(1).max(now_ms());
        self.write("stamp", &format!("{stamp}\n"))?;
        Ok(stamp)
    }

    /// The time in the last certificate; 0 if none was made, or it is not known.
    fn last_stamp(&self) -> Result<u64, HomeError> {
        let text = self.read_if_there("stamp")?.unwrap_or_default();
        Ok(text.trim().parse().ok().filter(|stamp| *stamp < CREATION).unwrap_or(0))
    }

    /// The revocations that are remembered here.
    pub(crate) fn revocations(&self) -> Result<Vec<SignedRevocation>, HomeError> {
        let Some(text) = self.read_if_there("revoked.json")? else { return Ok(Vec::new()) };
        serde_json::from_str(&text).map_err(|error| HomeError::Damaged {
            path: self.dir.join("revoked.json"),
            detail: error.to_string(),
        })
    }

    /// Remembers revocations beside those that are, and forgets those that are over.
    pub(crate) fn remember_revocations(&self, new: Vec<SignedRevocation>) -> Result<(), HomeError> {
        let _held = self.lock("revoked.lock")?;
        let mut all: BTreeSet<_> = self.revocations()?.into_iter().chain(new).collect();
        let now = now_ms();
        all.retain(|one| one.revocation.until_ms > now);
        let text = serde_json::to_string(&all).expect("plain data");
        self.write("revoked.json", &text)
    }

    /// Revokes certificates, with the authority's key; remembered here.
    pub(crate) fn revoke(&self, what: Revoking) -> Result<SignedRevocation, HomeError> {
        let now = now_ms();
        let made_until_ms = self.stamp()?;
        let what = match what {
            Revoking::Serial(serial) => Revoked::Serial(serial),
            Revoking::Holder(Identity { role, name }) => {
                Revoked::Holder { role, name, made_until_ms }
            }
        };
        let last = made_until_ms.max(now);
        let kept = authority::VALIDITY + authority::SKEW + FORGET_AFTER;
        let until_ms = last + u64::try_from(kept.as_millis()).expect("some years");
        let revocation = Revocation { what, at_ms: now, until_ms };
        let signed = authority::revoke(&self.authority()?, revocation)?;
        self.remember_revocations(vec![signed.clone()])?;
        Ok(signed)
    }

    /// Whether a certificate has been revoked, as far as is known here.
    pub(super) fn is_revoked(&self, certified: &Certified) -> Result<bool, HomeError> {
        let Identity { role, name } = certified.identity;
        let all = self.revocations()?;
        Ok(all.iter().any(|one| one.revocation.covers(role, name, &certified.serial)))
    }

    /// Whether what this holder had at a time has been revoked since.
    pub(crate) fn was_revoked(&self, holder: Identity, at_ms: u64) -> Result<bool, HomeError> {
        let had = Serial::new(at_ms, [0; 10]);
        let all = self.revocations()?;
        Ok(all.iter().any(|one| one.revocation.covers(holder.role, holder.name, &had)))
    }

    /// The certificates that are here, each by the stem of its file; those that cannot be read are
    /// left out.
    pub(crate) fn certificates(&self) -> Vec<(String, Certified)> {
        let nodes = fs::read_dir(self.dir.join("nodes")).into_iter().flatten().flatten();
        let names = nodes.filter_map(|node| node.file_name().into_string().ok());
        let mut stems: Vec<_> = names.map(|name| format!("nodes/{name}/node")).collect();
        stems.sort();
        stems.insert(0, "client".to_owned());
        let read = |stem: String| {
            let text = fs::read_to_string(self.dir.join(format!("{stem}.pem"))).ok()?;
            Some((stem, Certified::of_pem(&text).ok()?))
        };
        stems.into_iter().filter_map(read).collect()
    }
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::PathBuf;

    use purlin_proto::Role;

    use super::*;

    fn dir() -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("home");
        (temporary, dir)
    }

    #[test]
    fn what_is_made_after_a_revocation_is_not_revoked_whatever_the_clock_does() {
        let (_temporary, dir) = dir();
        let home = Home::open(&dir).unwrap();
        let (lock, _) = home.node("a".into()).unwrap();
        // The clock was a year ahead when the certificate was made.
        let ahead = now_ms() + 365 * 86_400_000;
        home.write("stamp", &ahead.to_string()).unwrap();
        let a = Identity { name: "a".into(), role: Role::Node };
        let made = authority::issue(&home.authority().unwrap(), a, home.stamp().unwrap()).unwrap();
        let before = Certified::of_pem(&made.certificate).unwrap();
        home.write_pair("nodes/a/node", &made).unwrap();

        home.revoke(Revoking::Holder(a)).unwrap();

        assert!(home.is_revoked(&before).unwrap());
        drop(lock);
        let (_lock, after) = home.node("a".into()).unwrap();
        assert_ne!(after.certified().serial, before.serial, "made anew, where the authority is");
        assert!(!home.is_revoked(after.certified()).unwrap());
    }

    #[test]
    fn damaged_revocations_are_said_to_be_and_nothing_starts_without_them() {
        let (_temporary, dir) = dir();
        let home = Home::open(&dir).unwrap();
        home.revoke(Revoking::Serial(Serial::new(1, [2; 10]))).unwrap();
        assert_eq!(home.revocations().unwrap().len(), 1);
        home.write("revoked.json", "[{").unwrap();
        assert!(matches!(Home::open(&dir), Err(HomeError::Damaged { .. })));
    }
}
