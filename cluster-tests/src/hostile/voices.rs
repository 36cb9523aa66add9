//! What members say of leases and certificates, by chance and most of it nearly right: frames `0x33`
//! and `0x36` as `PROTOCOL.md` has them.
//!
//! Part of it would be heeded: a member may claim to lead the voters, and what is exclusive relies on
//! it. Left out is only what is signed by the authority.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use purlin::proto::revocation::{Revocation, Revoked, Saying, SignedRevocation};
use purlin::proto::trust::{ByteBuf, SignedTrust, Trust};
use purlin::proto::{Frame, NodeId, NodeName, Role, Serial, codec};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use serde::Serialize;

/// `(founded, founder)`.
type Authority = (u64, NodeName);

/// What a voter is asked, numbered as in the protocol. A vote is `((term, voter), committed)`, a place
/// in the log `((term, voter), index)`.
#[derive(Serialize)]
enum Question {
    Append(Vote, Option<Place>, Vec<(Place, Entry)>, Option<Place>),
    Vote(Vote, Option<Place>),
    Snapshot(Vote, (Option<Place>, (Option<Place>, Voters), String), Vec<u8>),
}

type Vote = ((u64, u64), bool);
type Place = ((u64, u64), u64);
type Voters = (Vec<BTreeSet<u64>>, BTreeMap<u64, String>);

#[derive(Serialize)]
enum Entry {
    Blank,
    Normal(u64, (u64, Vec<NodeId>)),
    Membership(Voters),
}

/// What it answers.
#[derive(Serialize)]
enum Answer {
    Append(Appended),
    Vote(Vote, bool, Option<Place>),
    Snapshot(Vote),
}

#[derive(Serialize)]
enum Appended {
    Success,
    PartialSuccess(Option<Place>),
    Conflict,
    HigherVote(Vote),
}

/// Says such things from a seed.
pub struct Voices {
    chance: StdRng,
    lives: Vec<NodeId>,
    authority: Authority,
    voters: Vec<u64>,
}

/// Numbers of voters that are kept.
const VOTERS: usize = 16;

/// As they are read here.
const LIMIT: usize = 1 << 20;

impl Voices {
    /// Of and to these lives.
    pub fn new(seed: u64, lives: Vec<NodeId>) -> Self {
        let authority = (1, lives[0].name);
        Self { chance: StdRng::seed_from_u64(seed), lives, authority, voters: vec![1, 2] }
    }

    pub fn chance(&mut self) -> &mut StdRng {
        &mut self.chance
    }

    /// What others say: their authority, and the numbers of those who vote, are used from then on.
    pub fn hear(&mut self, frame: Bytes) {
        type Here = (bool, Option<(Authority, Vec<NodeName>)>);
        let Ok(Frame::Exclusive(said)) = Frame::decode(frame) else { return };
        match said.split_first() {
            Some((0, body)) => {
                if let Ok((_, Some((authority, _)))) = codec::from_bytes::<Here>(body, LIMIT) {
                    self.authority = authority;
                }
            }
            Some((5, body)) => {
                let ready = codec::from_bytes::<(Authority, u64)>(body, LIMIT);
                if let Ok((_, voter)) = ready
                    && self.voters.len() < VOTERS
                    && !self.voters.contains(&voter)
                {
                    self.voters.push(voter);
                }
            }
            _ => {}
        }
    }

    /// The next frame, for a control stream.
    pub fn make(&mut self) -> Bytes {
        let mut frame = match self.chance.random_range(0..10) {
            0 => self.of_certificates(),
            _ => self.of_leases(),
        };
        if self.chance.random_range(0..1_000) == 0 {
            // It ends the connection, most likely.
            let at = self.chance.random_range(1..frame.len());
            frame[at] ^= 1 << self.chance.random_range(0..8);
        }
        frame.into()
    }

    fn of_leases(&mut self) -> Vec<u8> {
        let kind = *[0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 7, 16, 17, 200]
            .choose(&mut self.chance)
            .expect("some");
        let authority = self.authority();
        let body = match kind {
            0 => {
                let known = self.chance.random::<bool>().then(|| (authority, self.names()));
                written(&(self.chance.random::<bool>(), known))
            }
            1 => {
                let [number, known, installed, seen] = [(); 4].map(|()| self.number());
                let leaves = self.chance.random::<bool>();
                written(&(authority, number, known, installed, seen, leaves))
            }
            2 => {
                let [number, epoch, cleared] = [(); 3].map(|()| self.number());
                let view = self.chance.random::<bool>().then(|| self.view());
                let leased = self.chance.random::<bool>();
                written(&((authority, number, leased, epoch, cleared, view), self.names()))
            }
            3 => {
                let leader = self.names().first().copied();
                written(&((authority, self.names()), leader))
            }
            4 | 16 => written(&authority),
            5 => written(&(authority, self.voter())),
            6 => {
                let (number, voter) = (self.number(), self.voter());
                let question = self.question(voter);
                written(&(number, authority, voter, question))
            }
            7 => {
                let answer = match self.chance.random_range(0..4) {
                    0 => Err("x".repeat(self.chance.random_range(0..2_000))),
                    _ => Ok(self.answer()),
                };
                written(&(self.number(), answer))
            }
            17 => written(&(authority, self.number(), self.number())),
            _ => self.noise(300),
        };
        [&[0x33, kind][..], &body].concat()
    }

    fn of_certificates(&mut self) -> Vec<u8> {
        let saying = match self.chance.random_range(0..60) {
            0..20 => Saying::Know { digest: self.chance.random(), answer: self.chance.random() },
            20..40 => {
                let count = self.chance.random_range(0..50);
                Saying::These((0..count).map(|_| self.revocation()).collect())
            }
            40..59 => Saying::Renewed { expires_ms: self.number() },
            _ => {
                let authorities = self.blobs(400);
                let trust = Trust { number: self.number(), authorities };
                Saying::Trusted(SignedTrust { trust, signatures: self.blobs(100) })
            }
        };
        [&[0x36][..], &written(&saying)].concat()
    }

    fn revocation(&mut self) -> SignedRevocation {
        let what = match self.chance.random() {
            true => Revoked::Serial(Serial::of(&[&[1][..], &self.noise(18)].concat())),
            false => Revoked::Holder {
                role: Role::Node,
                name: self.life().name,
                made_until_ms: self.number(),
            },
        };
        let revocation = Revocation { what, at_ms: self.number(), until_ms: self.number() };
        SignedRevocation { revocation, signature: self.noise(80) }
    }

    /// Most of them are what a voter could ask, of this node or of another one.
    fn question(&mut self, of: u64) -> Question {
        let sound = self.chance.random_range(0..40) > 0;
        let (leader, committed) = self.vote();
        let mut vote = (leader, committed);
        let kind = self.chance.random_range(0..8);
        if sound {
            let asker = leader.1 ^ u64::from(leader.1 == of);
            vote = ((leader.0, asker), kind > 0);
        }
        let earlier = |place: Option<Place>| match place {
            Some((leader, index)) if sound => Some((leader.min(vote.0), index.min(1 << 47))),
            other => other,
        };
        match kind {
            0 => Question::Vote(vote, earlier(self.perhaps_place())),
            1 => {
                let last = earlier(Some(self.place()));
                let voters = (last.filter(|_| self.chance.random()), self.voters());
                let meta = (last, voters, "snapshot".to_owned());
                let view = if sound { written(&self.view()) } else { self.noise(100) };
                Question::Snapshot(vote, meta, view)
            }
            _ => {
                let before = earlier(self.perhaps_place());
                let count = self.chance.random_range(0..4);
                let mut entries: Vec<_> = (0..count).map(|_| self.entry()).collect();
                if sound {
                    // One after the other, of its own term.
                    let mut next = before.map_or(0, |(_, index)| index.saturating_add(1));
                    for ((leader, index), _) in &mut entries {
                        (*leader, *index) = (vote.0, next);
                        next = next.saturating_add(1);
                    }
                }
                let committed = match self.chance.random() {
                    true => entries.last().map(|(place, _)| *place).or(before),
                    false => earlier(self.perhaps_place()),
                };
                Question::Append(vote, before, entries, committed)
            }
        }
    }

    fn answer(&mut self) -> Answer {
        match self.chance.random_range(0..6) {
            0 if self.chance.random_range(0..40) == 0 => {
                Answer::Append(Appended::PartialSuccess(self.perhaps_place()))
            }
            0 | 1 => Answer::Append(Appended::Success),
            2 => Answer::Append(Appended::Conflict),
            3 => Answer::Append(Appended::HigherVote(self.vote())),
            4 => Answer::Vote(self.vote(), self.chance.random(), self.perhaps_place()),
            _ => Answer::Snapshot(self.vote()),
        }
    }

    fn entry(&mut self) -> (Place, Entry) {
        let entry = match self.chance.random_range(0..3) {
            0 => Entry::Blank,
            1 => Entry::Normal(self.number(), self.view()),
            _ => Entry::Membership(self.voters()),
        };
        (self.place(), entry)
    }

    fn voters(&mut self) -> Voters {
        let least = usize::from(self.chance.random_range(0..100) > 0);
        let sets = (0..self.chance.random_range(least..3)).map(|_| {
            let voters = 0..self.chance.random_range(least..4);
            voters.map(|_| *self.voters.choose(&mut self.chance).expect("some")).collect()
        });
        let sets: Vec<BTreeSet<u64>> = sets.collect();
        let named = self.voters.iter().zip(self.lives.iter().cycle());
        (sets, named.map(|(voter, life)| (*voter, life.name.to_string())).collect())
    }

    fn vote(&mut self) -> Vote {
        ((self.number(), self.voter()), self.chance.random())
    }

    fn perhaps_place(&mut self) -> Option<Place> {
        (self.chance.random_range(0..4) > 0).then(|| self.place())
    }

    fn place(&mut self) -> Place {
        ((self.number(), self.voter()), self.number())
    }

    fn voter(&mut self) -> u64 {
        match self.chance.random_range(0..10) {
            0 => self.chance.random(),
            _ => *self.voters.choose(&mut self.chance).expect("some"),
        }
    }

    fn authority(&mut self) -> Authority {
        let (founded, founder) = self.authority;
        match self.chance.random_range(0..20) {
            0 => (self.number(), founder),
            1 => (founded.saturating_add(1), self.life().name),
            _ => (founded, founder),
        }
    }

    fn view(&mut self) -> (u64, Vec<NodeId>) {
        let members = (0..self.chance.random_range(0..4)).map(|_| self.life()).collect();
        (self.number(), members)
    }

    fn names(&mut self) -> Vec<NodeName> {
        (0..self.chance.random_range(0..4)).map(|_| self.life().name).collect()
    }

    fn life(&mut self) -> NodeId {
        let life = *self.lives.choose(&mut self.chance).expect("some");
        match self.chance.random_range(0..8) {
            0 => NodeId::new("nobody".into(), self.number()),
            1 => NodeId::new(life.name, self.number()),
            _ => life,
        }
    }

    /// Most are small, few as large as can be.
    fn number(&mut self) -> u64 {
        match self.chance.random_range(0..1_000) {
            0 => u64::MAX - self.chance.random_range(0..2),
            1 => self.chance.random(),
            2..20 => 1 << 48,
            20..40 => self.chance.random_range(0..1 << 48),
            _ => self.chance.random_range(0..40),
        }
    }

    fn blobs(&mut self, most: usize) -> Vec<ByteBuf> {
        (0..self.chance.random_range(0..4)).map(|_| ByteBuf::from(self.noise(most))).collect()
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.chance.random_range(0..=most)];
        self.chance.fill_bytes(&mut bytes);
        bytes
    }
}

fn written<T: Serialize>(value: &T) -> Vec<u8> {
    codec::to_bytes(value).expect("it is plain").to_vec()
}
