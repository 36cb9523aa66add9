//! How members tell each other of revocations and authorities, and what they do when they hear of
//! them. Part of the driver.
//!
//! What is new is told to all others at once. Beside that two members compare what they know when
//! they connect, and each member with one other every [`COMPARE_EVERY`], in turn: that finds what
//! was lost. A comparison is a digest; whoever has another one sends all that it has, which is at
//! most some hundred kilobytes. An answer is not answered with a digest again, so two members that
//! can never agree (one has forgotten what the other has not yet) do not go on about it.
//!
//! To look at a revocation that no authority of ours has signed costs a signature's check, and means
//! nothing. A member that goes from one authority to another later than we do has some of them, and
//! says them whenever it compares; a hostile one has as many as it likes. So each member has
//! [`UNSIGNED`] of them; beyond, what it says of revocations is not looked at until some of that time
//! has passed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::limits::STATE_BYTES;
use purlin_proto::revocation::{Saying, SignedRevocation};
use purlin_proto::trust::SignedTrust;
use purlin_proto::{Frame, NodeId, NodeName, Refusal, codec};
use purlin_transport::Endpoint;
use tokio::time::Instant;

use super::trust::Heard;
use super::{Added, Known};
use crate::allowance::Allowances;

/// How often one other member is asked whether it knows the same.
const COMPARE_EVERY: Duration = Duration::from_secs(15);

/// How many unsigned revocations of a member are looked at: two comparisons of as many as there may be,
const UNSIGNED: u32 = 8_192;

/// and one more after each such time, so that there is room for the next comparison.
const UNSIGNED_EVERY: Duration = Duration::from_micros(3_500);

/// How often is warned of a member that says some, and how soon again.
const WARNED: u32 = 4;
const WARNED_EVERY: Duration = Duration::from_secs(15);

pub(crate) struct Warden {
    known: Arc<Known>,
    endpoint: Endpoint,
    unsigned: Allowances<NodeName>,
    warned: Allowances<NodeName>,
    compared: Duration,
    turn: usize,
}

impl Warden {
    pub(crate) fn new(known: Arc<Known>, endpoint: Endpoint) -> Self {
        let unsigned = Allowances::new(UNSIGNED, UNSIGNED_EVERY);
        let warned = Allowances::new(WARNED, WARNED_EVERY);
        Self { known, endpoint, unsigned, warned, compared: Duration::ZERO, turn: 0 }
    }

    /// There is a link to a member.
    pub(crate) fn connected(&self, peer: NodeId) {
        self.known.note_expiry(peer.name, None);
        self.say_trust(peer);
        self.compare(peer, false);
    }

    /// Compares with one member, when it is time.
    pub(crate) fn tick(&mut self, now: Duration) {
        if now.saturating_sub(self.compared) < COMPARE_EVERY {
            return;
        }
        self.compared = now;
        let peers = self.peers();
        if !peers.is_empty() {
            self.turn += 1;
            let peer = peers[self.turn % peers.len()];
            self.say_trust(peer);
            self.compare(peer, false);
        }
    }

    fn peers(&self) -> Vec<NodeId> {
        let links = self.endpoint.links();
        let mut peers: Vec<_> =
            links.iter().filter_map(|link| Some(link.peer().node.as_ref()?.id)).collect();
        peers.sort_unstable();
        peers
    }

    /// Who knows of none says nothing: whoever knows of some will.
    fn compare(&self, peer: NodeId, answer: bool) {
        let digest = self.known.digest();
        if digest != 0 || answer {
            self.say(peer, &Saying::Know { digest, answer });
        }
    }

    fn say(&self, peer: NodeId, saying: &Saying) {
        let bytes = codec::to_bytes(saying).ok();
        let frame = bytes.and_then(|bytes| Frame::Certificates(bytes).to_bytes().ok());
        if let (Some(frame), Some(link)) = (frame, self.endpoint.link(&peer)) {
            // A control stream that is full this far is not read; what is lost is found later.
            let _ = link.send_control(frame);
        }
    }

    /// This node has a new certificate, which members cannot see on connections that there are.
    pub(crate) fn renewed(&self, expires_ms: u64) {
        self.peers().into_iter().for_each(|peer| self.say(peer, &Saying::Renewed { expires_ms }));
    }

    /// A member says something.
    pub(crate) fn said(&self, from: NodeId, bytes: &Bytes) {
        let saying = codec::from_bytes::<Saying>(bytes, STATE_BYTES);
        let wrong = match saying {
            Ok(Saying::Know { digest, answer }) => {
                if digest != self.known.digest() {
                    let all = self.known.all();
                    if !all.is_empty() {
                        self.say(from, &Saying::These(all));
                    }
                    if !answer {
                        self.compare(from, true);
                    }
                }
                None
            }
            Ok(these) if !these.is_bounded() => Some("too much about certificates".to_owned()),
            Ok(Saying::Renewed { expires_ms }) => {
                self.known.note_expiry(from.name, Some(expires_ms));
                None
            }
            Ok(Saying::Trusted(signed)) => self.believe(signed, Some(from)).err(),
            Ok(Saying::These(_)) if !self.unsigned.is_left(&from.name, Instant::now()) => {
                tracing::debug!(peer = %from, "what it says of revocations is not looked at");
                None
            }
            Ok(Saying::These(all)) => {
                // As of an authority that others believe still.
                if let Err(error) = self.heed(all, Some(from)) {
                    match self.warned.take(from.name, Instant::now()) {
                        true => tracing::warn!(peer = %from, error, "not heeded"),
                        false => tracing::debug!(peer = %from, error, "not heeded"),
                    }
                }
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(detail) = wrong {
            tracing::warn!(peer = %from, detail, "protocol violation");
            self.endpoint.close_peer(&from, &Refusal::Protocol { detail });
        }
    }

    fn say_trust(&self, peer: NodeId) {
        if let Some(signed) = self.known.trust() {
            self.say(peer, &Saying::Trusted(signed));
        }
    }

    /// Believes other authorities, and tells the others; returns whether it is news.
    pub(crate) fn believe(
        &self,
        signed: SignedTrust,
        from: Option<NodeId>,
    ) -> Result<bool, String> {
        let number = signed.trust.number;
        match self.known.believe(signed.clone())? {
            Heard::Same => Ok(false),
            Heard::Older => {
                if let Some(from) = from {
                    self.say_trust(from);
                }
                Ok(false)
            }
            Heard::News => {
                let authorities = signed.trust.authorities.len();
                tracing::warn!(number, authorities, "other authorities are believed from now on");
                for peer in self.peers().into_iter().filter(|peer| Some(*peer) != from) {
                    self.say_trust(peer);
                }
                self.known.remember_trust(signed);
                Ok(true)
            }
        }
    }

    /// Does what revocations say, and tells the others; returns how many were new.
    pub(crate) fn heed(
        &self,
        all: Vec<SignedRevocation>,
        from: Option<NodeId>,
    ) -> Result<usize, String> {
        let Added { new, unsigned, result } = self.known.add(all);
        if let Some(from) = from.filter(|_| unsigned > 0) {
            self.unsigned.charge(from.name, unsigned, Instant::now());
        }
        if !new.is_empty() {
            for one in &new {
                tracing::warn!(revoked = %one.revocation.what, "certificates revoked");
            }
            for peer in self.peers().into_iter().filter(|peer| Some(*peer) != from) {
                self.say(peer, &Saying::These(new.clone()));
            }
            self.known.remember(new.clone());
            self.endpoint.close_where(&|peer| self.known.refusal(&peer.certified));
        }
        match result {
            Ok(()) => Ok(new.len()),
            Err(error) => Err(error.to_string()),
        }
    }
}
