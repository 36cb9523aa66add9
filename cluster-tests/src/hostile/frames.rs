//! Frames by chance, most of them nearly right: what a node must withstand from a member.
//!
//! Left out is what a member may do by right and what would end the experiment: to stop a node, to end
//! a process by its name or pid outside of the victims, and to tell of members in a form that is
//! understood (whoever has a node's certificate can have others declared down; the threat model says
//! so).

use std::time::Duration;

use bytes::Bytes;
use purlin::proto::{
    CallError, Codec, Envelope, ExitReason, Frame, Key, MessageName, Name, Payload, Pid, Reference,
    Signal, Spawn, SpawnError, Target,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

/// How a frame goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Lane,
    Control,
    Datagram,
}

/// Makes frames from a seed.
pub struct Frames {
    chance: StdRng,
    victims: Vec<Pid>,
    kinds: Vec<&'static str>,
    messages: Vec<&'static str>,
    heard: Vec<Bytes>,
}

/// Genuine frames that are kept to be spoiled.
const HEARD: usize = 64;

impl Frames {
    /// Aimed at these processes, with kinds and messages that are known there.
    pub fn new(
        seed: u64,
        victims: Vec<Pid>,
        kinds: Vec<&'static str>,
        messages: Vec<&'static str>,
    ) -> Self {
        Self { chance: StdRng::seed_from_u64(seed), victims, kinds, messages, heard: Vec::new() }
    }

    /// A genuine frame, to be spoiled later.
    pub fn hear(&mut self, frame: Bytes) {
        if self.heard.len() < HEARD {
            self.heard.push(frame);
        } else {
            let at = self.chance.random_range(0..HEARD);
            self.heard[at] = frame;
        }
    }

    pub fn chance(&mut self) -> &mut StdRng {
        &mut self.chance
    }

    /// The next frame, and the way it goes.
    pub fn make(&mut self) -> (Way, Bytes) {
        match self.chance.random_range(0..1_000) {
            0..860 => (Way::Lane, self.envelope()),
            860..900 => (Way::Control, self.flow_control()),
            // These end the connection, most of them.
            900..902 => self.spoiled(),
            902..904 => (self.way(), self.bytes(64)),
            904..906 => self.membership(),
            906..914 => (Way::Lane, self.large()),
            914..934 => (Way::Datagram, Bytes::from_static(&[0x50])),
            934..998 => (Way::Datagram, self.numbered(0x30, 600)),
            _ => (Way::Control, self.numbered(0x31, 300)),
        }
    }

    fn way(&mut self) -> Way {
        *[Way::Lane, Way::Control, Way::Datagram].choose(&mut self.chance).expect("three")
    }

    fn bytes(&mut self, most: usize) -> Bytes {
        let mut bytes = vec![0; self.chance.random_range(0..=most)];
        self.chance.fill_bytes(&mut bytes);
        bytes.into()
    }

    /// Bytes by chance behind the number of a frame.
    fn numbered(&mut self, number: u8, most: usize) -> Bytes {
        let body = self.bytes(most);
        [&[number][..], &body].concat().into()
    }

    fn flow_control(&mut self) -> Bytes {
        let target = match self.target() {
            Target::Topic(_) => Target::Node,
            one => one,
        };
        let frame = match self.chance.random() {
            true => Frame::Stop(target),
            false => Frame::GoOn(target),
        };
        frame.to_bytes().expect("it is small")
    }

    /// Entries that are not understood.
    fn membership(&mut self) -> (Way, Bytes) {
        (Way::Control, self.numbered(0x32, 300))
    }

    /// A frame of the node itself, cut short or gone on with: no bit of it is turned, lest it tell
    /// something of members.
    fn spoiled(&mut self) -> (Way, Bytes) {
        let Some(heard) = self.heard.choose(&mut self.chance).cloned() else {
            return (Way::Lane, self.bytes(10));
        };
        let cut = heard.slice(..self.chance.random_range(0..=heard.len()));
        let more = self.bytes(8);
        let spoiled = match self.chance.random() {
            true => cut,
            false => [&heard[..], &more].concat().into(),
        };
        (self.way(), spoiled)
    }

    /// An envelope of the right form, or with a few bytes of its body turned.
    fn envelope(&mut self) -> Bytes {
        let (mut to, signal) = (self.target(), self.signal());
        let fits = match to {
            Target::Topic(_) => matches!(signal, Signal::Send { waits: false, .. }),
            Target::Key { .. } => matches!(signal, Signal::Send { .. } | Signal::Call { .. }),
            _ => true,
        };
        // What does not ends the connection.
        if !fits && self.chance.random_range(0..100) > 0 {
            to = Target::Serial(self.serial());
        }
        let from = self.serial();
        let mut bytes = bytes::BytesMut::new();
        Envelope { to, from, signal }.encode(&mut bytes).expect("it is small");
        if self.chance.random_range(0..200) == 0 {
            for _ in 0..self.chance.random_range(1..4) {
                let at = self.chance.random_range(0..bytes.len());
                bytes[at] = self.chance.random();
            }
            // No exit for whoever it may be now.
            if bytes[0] == 0x14 {
                bytes[0] = 0x18;
            }
        }
        bytes.freeze()
    }

    /// A message of some megabytes.
    fn large(&mut self) -> Bytes {
        let size = self.chance.random_range(60_000..2_000_000);
        let payload = Payload { codec: Codec::Bincode, bytes: vec![7; size].into() };
        let (message, waits) = (self.message(), self.chance.random());
        let signal = Signal::Send { message, payload, waits };
        let to = Target::Serial(self.victim());
        Frame::Envelope(Envelope { to, from: 1, signal }).to_bytes().expect("it is not that large")
    }

    fn victim(&mut self) -> u64 {
        self.victims.choose(&mut self.chance).map_or(u64::MAX, |pid| pid.serial)
    }

    /// A victim, or nobody.
    fn serial(&mut self) -> u64 {
        match self.chance.random_range(0..10) {
            0 => 0,
            1 => self.chance.random_range(1 << 40..u64::MAX),
            _ => self.victim(),
        }
    }

    fn name(&mut self) -> Name {
        let names = ["nobody", "victim", "x", "purlin", "no.such"];
        (*names.choose(&mut self.chance).expect("some")).into()
    }

    fn target(&mut self) -> Target {
        match self.chance.random_range(0..12) {
            0 => Target::Node,
            1 => Target::Name(self.name()),
            2 => Target::Topic(self.name()),
            3 => Target::Key {
                kind: self.kind(),
                key: Key::from("k"),
                forwarded: self.chance.random(),
            },
            _ => Target::Serial(self.serial()),
        }
    }

    fn kind(&mut self) -> Name {
        (*self.kinds.choose(&mut self.chance).unwrap_or(&"none")).into()
    }

    fn message(&mut self) -> MessageName {
        let name = match self.chance.random_range(0..3) {
            0 => "no.such",
            _ => self.messages.choose(&mut self.chance).copied().unwrap_or("no.such"),
        };
        MessageName::from(Name::from(name))
    }

    fn payload(&mut self) -> Payload {
        let codec = if self.chance.random() { Codec::Bincode } else { Codec::Json };
        let bytes = match (codec, self.chance.random_range(0..4)) {
            (Codec::Json, 0) => "[".repeat(self.chance.random_range(1..4_000)).into(),
            (Codec::Json, 1) => Bytes::from_static(b"{\"a\":[1,2,null,\"\\u0000\"]}"),
            (Codec::Bincode, 0) => u64::MAX.to_le_bytes().to_vec().into(),
            _ => self.bytes(200),
        };
        Payload { codec, bytes }
    }

    fn reference(&mut self) -> Reference {
        let range = if self.chance.random() { 0..1_000 } else { 0..u64::MAX };
        Reference(self.chance.random_range(range))
    }

    fn reason(&mut self) -> ExitReason {
        match self.chance.random_range(0..6) {
            0 => ExitReason::Normal,
            1 => ExitReason::Killed,
            2 => ExitReason::NoConnection,
            3 => ExitReason::NoProcess,
            4 => ExitReason::error("x".repeat(self.chance.random_range(0..40_000))),
            _ => ExitReason::other("some"),
        }
    }

    fn signal(&mut self) -> Signal {
        let reference = self.reference();
        match self.chance.random_range(0..16) {
            0..3 => {
                let (message, payload) = (self.message(), self.payload());
                Signal::Send { message, payload, waits: self.chance.random() }
            }
            3..6 => {
                let remaining =
                    Duration::from_millis(self.chance.random_range(0..u64::from(u32::MAX)));
                let (message, payload) = (self.message(), self.payload());
                Signal::Call { reference, remaining, message, payload }
            }
            6 => Signal::Reply { reference, result: Ok(self.payload()) },
            7 => Signal::Reply { reference, result: Err(CallError::Overloaded) },
            8 => Signal::Link,
            9 => Signal::Unlink { reference },
            10 => Signal::UnlinkAck { reference },
            11 => Signal::LinkDown { reason: self.reason() },
            12 => match self.chance.random() {
                true => Signal::Monitor { reference },
                false => Signal::Join { reference },
            },
            13 => match self.chance.random() {
                true => Signal::Demonitor { reference },
                false => Signal::Joined { reference },
            },
            14 => Signal::Down { reference, reason: self.reason() },
            _ => match self.chance.random() {
                true => Signal::Spawned { reference, result: Err(SpawnError::Overloaded) },
                false => Signal::Spawn(Spawn {
                    reference,
                    kind: self.kind(),
                    args: self.payload(),
                    name: None,
                    link: self.chance.random(),
                    monitor: self.chance.random::<bool>().then_some(reference),
                    remaining: Duration::MAX,
                }),
            },
        }
    }
}
