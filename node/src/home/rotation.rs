//! A new authority for the old one, in the data directory that has its key.
//!
//! `authority.pem` has all authorities that are believed; the first is the one whose key is in
//! `authority.key`. While two are believed, `cross.pem` is the new one as the old one has signed it,
//! and goes with each certificate that the new one signs: so whoever believes only the old one, as
//! clients and members that were away, believes those as well.
//!
//! A crash leaves a step done or not done, and what was not done can be done again: first comes what
//! is told to others (`trust.json`) and the new key (`authority.key.next`), then `authority.pem` is
//! replaced, which decides, then the key is moved to its place, by whoever needs it next if need be.

use std::fs;
use std::io;

use purlin_proto::trust::{ByteBuf, SignedTrust, Trust};

use super::{Home, HomeError, at, read};
use crate::authority::{self, Pair};

impl Home {
    /// The authorities that are believed, as the members were told; none if there was ever one alone.
    pub(crate) fn trust(&self) -> Result<Option<SignedTrust>, HomeError> {
        let Some(text) = self.read_if_there("trust.json")? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| HomeError::Damaged {
            path: self.dir.join("trust.json"),
            detail: error.to_string(),
        })
    }

    /// Believes these authorities from now on, if that is news here.
    pub(crate) fn remember_trust(&self, signed: &SignedTrust) -> Result<(), HomeError> {
        let _held = self.lock("trust.lock")?;
        match self.trust()? {
            Some(before) if before.trust.number >= signed.trust.number => Ok(()),
            _ => {
                // Who crashes in between believes them, and is told again.
                self.write_authorities(signed)?;
                self.write_trust(signed)
            }
        }
    }

    fn write_authorities(&self, signed: &SignedTrust) -> Result<(), HomeError> {
        let pems = signed.trust.authorities.iter().map(|der| authority::pem(der));
        self.write("authority.pem", &pems.collect::<String>())
    }

    fn write_trust(&self, signed: &SignedTrust) -> Result<(), HomeError> {
        self.write("trust.json", &serde_json::to_string(signed).expect("plain data"))
    }

    /// The authority, where its key is.
    pub(crate) fn authority(&self) -> Result<Pair, HomeError> {
        let (certificate, key) = self.pair("authority");
        let next = self.dir.join("authority.key.next");
        let pem = read(&certificate)?;
        if let Some(next_key) = self.read_if_there("authority.key.next")?
            && authority::is_key_of(&pem, &next_key)
        {
            match fs::rename(&next, &key) {
                // Somebody else has just done it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                moved => moved.map_err(at(&key))?,
            }
        }
        let pair = Pair { certificate: pem, key: read(&key)? };
        match authority::is_key_of(&pair.certificate, &pair.key) {
            true => Ok(pair),
            false => Err(HomeError::Rotated { dir: self.dir.clone() }),
        }
    }

    /// A certificate that was signed here, with what others may need to believe it.
    pub(crate) fn with_cross(&self, certificate: String) -> Result<String, HomeError> {
        Ok(certificate + &self.read_if_there("cross.pem")?.unwrap_or_default())
    }

    /// Whether two authorities are believed.
    pub(crate) fn is_rotating(&self) -> Result<bool, HomeError> {
        Ok(authority::ders(&read(&self.dir.join("authority.pem"))?).len() > 1)
    }

    /// Makes another authority, which signs from now on; the one before is believed beside it.
    pub(crate) fn rotate(&self) -> Result<SignedTrust, HomeError> {
        let _held = self.lock("trust.lock")?;
        if self.is_rotating()? {
            return Err(HomeError::Rotating);
        }
        let old = self.authority()?;
        let (new, cross) = authority::create_next(&old)?;
        let authorities = [authority::ders(&new.certificate), authority::ders(&old.certificate)];
        let signed = self.sign_trust(&authorities.concat(), &[&old, &new])?;
        self.write("authority.key.next", &new.key)?;
        self.write("cross.pem", &cross)?;
        self.write_trust(&signed)?;
        self.write_authorities(&signed)?;
        self.authority()?;
        Ok(signed)
    }

    /// Believes the new authority alone.
    pub(crate) fn finish_rotation(&self) -> Result<SignedTrust, HomeError> {
        let _held = self.lock("trust.lock")?;
        if !self.is_rotating()? {
            return Err(HomeError::NotRotating);
        }
        let pair = self.authority()?;
        let authorities = authority::ders(&pair.certificate);
        let signed = self.sign_trust(&authorities[..1], &[&pair])?;
        self.write_trust(&signed)?;
        self.write_authorities(&signed)?;
        match fs::remove_file(self.dir.join("cross.pem")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HomeError::Io { path: self.dir.join("cross.pem"), source: error })
            }
            _ => Ok(signed),
        }
    }

    fn sign_trust(
        &self,
        authorities: &[bytes::Bytes],
        signers: &[&Pair],
    ) -> Result<SignedTrust, HomeError> {
        let number = self.trust()?.map_or(0, |signed| signed.trust.number) + 1;
        let authorities = authorities.iter().map(|der| ByteBuf::from(der.to_vec())).collect();
        let trust = Trust { number, authorities };
        let bytes = trust.signed_bytes().expect("plain data");
        let sign = |signer: &&Pair| authority::signature(signer, &bytes).map(ByteBuf::from);
        let signatures = signers.iter().map(sign).collect::<Result<_, _>>()?;
        Ok(SignedTrust { trust, signatures })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::open(temporary.path().join("home")).unwrap();
        (temporary, home)
    }

    fn is_good(home: &Home, stem: &str) -> bool {
        home.is_good(stem, SystemTime::now()).unwrap()
    }

    #[test]
    fn the_new_authority_signs_and_the_old_one_is_believed_until_the_end() {
        let (_temporary, home) = home();
        let lock = home.node("a".into()).unwrap();
        let old = home.authority().unwrap();
        let before = authority::ders(&old.certificate);

        let trust = home.rotate().unwrap();

        assert_eq!((trust.trust.number, trust.trust.authorities.len()), (1, 2));
        assert!(!is_good(&home, "nodes/a/node"), "it is to be made anew");
        assert!(matches!(home.rotate(), Err(HomeError::Rotating)));
        home.renew_now("nodes/a/node").unwrap();
        assert!(is_good(&home, "nodes/a/node"));
        let chain = read(&home.dir.join("nodes/a/node.pem")).unwrap();
        let [leaf, cross] = &authority::ders(&chain)[..] else { panic!("{chain}") };
        assert!(!authority::is_signed_by(&before, leaf));
        assert!(authority::is_signed_by(&before, cross), "the old one vouches for the new one");

        let trust = home.finish_rotation().unwrap();

        assert_eq!((trust.trust.number, trust.trust.authorities.len()), (2, 1));
        assert!(is_good(&home, "nodes/a/node"));
        assert!(matches!(home.finish_rotation(), Err(HomeError::NotRotating)));
        home.renew_now("nodes/a/node").unwrap();
        assert_eq!(authority::ders(&read(&home.dir.join("nodes/a/node.pem")).unwrap()).len(), 1);
        drop(lock);
    }

    #[test]
    fn a_crash_leaves_a_rotation_begun_or_not_begun() {
        let (_temporary, home) = home();
        let old = home.authority().unwrap();
        let (new, _) = authority::create_next(&old).unwrap();
        // The new key is there, and nothing else.
        home.write("authority.key.next", &new.key).unwrap();
        assert_eq!(home.authority().unwrap().key, old.key);

        let trust = home.rotate().unwrap();
        // The key has not been moved.
        let key = read(&home.dir.join("authority.key")).unwrap();
        home.write("authority.key.next", &key).unwrap();
        home.write("authority.key", &old.key).unwrap();
        assert_eq!(home.authority().unwrap().key, key);
        assert_eq!(home.trust().unwrap(), Some(trust));

        // The end is told, and not done here.
        let both = read(&home.dir.join("authority.pem")).unwrap();
        let told = home.finish_rotation().unwrap();
        home.write("authority.pem", &both).unwrap();
        let again = home.finish_rotation().unwrap();
        assert_eq!(again.trust.number, told.trust.number + 1);
        assert_eq!(again.trust.authorities, told.trust.authorities);
    }

    #[test]
    fn a_directory_with_the_old_key_believes_the_new_authority_and_signs_no_more() {
        let ((_one, home), (_other, second)) = (self::home(), self::home());
        for file in ["authority.pem", "authority.key"] {
            second.write(file, &read(&home.dir.join(file)).unwrap()).unwrap();
        }
        let trust = home.rotate().unwrap();

        second.remember_trust(&trust).unwrap();

        assert!(second.is_rotating().unwrap());
        assert!(matches!(second.authority(), Err(HomeError::Rotated { .. })));
        let finished = home.finish_rotation().unwrap();
        second.remember_trust(&finished).unwrap();
        second.remember_trust(&trust).unwrap();
        assert!(!second.is_rotating().unwrap(), "what is older is not taken");
    }
}
