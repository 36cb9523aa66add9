//! New certificates for old ones, while the node runs.
//!
//! A node looks after its own: when a quarter of the time is left it has its certificate made anew,
//! by its own data directory if the authority's key is there, else by a member whose directory has
//! it (`sign.rs`). What is on disk is what counts: the node looks there every [`LOOK_EVERY`], also
//! for what `purlin cert renew` has made, and shows that in handshakes from then on. Connections
//! that there are go on, with the certificate they began with; members are told when the new one
//! expires.
//!
//! The key stays the same, so a renewal is one file, replaced as a whole; and the request, which is
//! signed with the key, is all the proof that is needed. Whoever wants a new key joins with a token.
//!
//! # What if
//!
//! - **No member can sign**, on a split or since none runs that has the key: it is tried again every
//!   [`RETRY_EVERY`]. From 30 days before the end the log warns once a day, and so do `purlin members`
//!   and `purlin status`.
//! - **The node was away until its certificate expired.** Members refuse it, and both sides say so;
//!   it needs a new token, or a start where the authority's key is.
//! - **Clocks differ.** A certificate is good from an hour before it was made, and is renewed a
//!   quarter of a year before its end.
//! - **The disk is full.** The old certificate stays; it is tried again.
//! - **The certificate was revoked.** It is not made anew by a member that knows of it. A member that
//!   has the key as well, and was cut off from the one where it was revoked, may make it anew: where
//!   several directories have the key, revoke again when all can be reached.

pub(crate) mod sign;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use purlin_proto::admin::TrustInfo;
use purlin_proto::{NodeName, Role};
use purlin_transport::{Certified, Credentials};
use tokio::time::{Instant, MissedTickBehavior};

use crate::allowance::Allowances;
use crate::authority;
use crate::builder::millis;
use crate::home::{Home, HomeError};
use crate::inputs::Told;
use crate::node::Shared;
use crate::revoked::Known;

/// How long before it expires a certificate is warned of.
pub(crate) const WARN: Duration = Duration::from_hours(30 * 24);

/// How often the data directory is looked into.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often is looked whether a certificate is to be made anew.
const TRY_EVERY: Duration = Duration::from_mins(10);

/// How soon it is tried again when nobody could.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// How often is warned of one that is soon over.
const WARN_EVERY: Duration = Duration::from_hours(24);

/// The same holder's certificate is made anew here so often,
const SIGNED: u32 = 24;

/// and once more after each such time: whoever has it could have others sign without end, through
/// every member.
const SIGNED_EVERY: Duration = Duration::from_secs(30);

/// What a node shows, and whom it believes.
pub(crate) struct Renewal {
    /// In milliseconds since 1970; 0 if that cannot be read.
    expires_ms: AtomicU64,
    shown: Mutex<Shown>,
    /// Of holders whose certificates are signed here.
    signed: Arc<Allowances<(Role, NodeName)>>,
}

#[derive(Clone, PartialEq)]
struct Shown {
    certified: Certified,
    authorities: Vec<Bytes>,
}

impl Shown {
    fn of(credentials: &Credentials) -> Self {
        let certified = credentials.certified().clone();
        Self { certified, authorities: credentials.authorities() }
    }
}

impl Renewal {
    pub(crate) fn new(credentials: &Credentials) -> Self {
        let shown = Mutex::new(Shown::of(credentials));
        let signed = Arc::new(Allowances::new(SIGNED, SIGNED_EVERY));
        let renewal = Self { expires_ms: AtomicU64::new(0), shown, signed };
        renewal.note(credentials);
        renewal
    }

    /// When it expires, in milliseconds since 1970.
    pub(crate) fn expires_ms(&self) -> Option<u64> {
        Some(self.expires_ms.load(Ordering::Relaxed)).filter(|expires| *expires > 0)
    }

    fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These are shown and believed from now on.
    fn note(&self, credentials: &Credentials) {
        let shown = Shown::of(credentials);
        let expires_ms = authority::expires_ms(&shown.certified.der).unwrap_or(0);
        self.expires_ms.store(expires_ms, Ordering::Relaxed);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// How far this node is in a rotation of the authority.
    pub(crate) fn trust_info(&self, known: &Known) -> TrustInfo {
        let Shown { certified, authorities } = self.shown();
        let first: Vec<_> = authorities.iter().take(1).cloned().collect();
        TrustInfo {
            number: known.trust().map_or(0, |signed| signed.trust.number),
            authorities: authorities.len(),
            renewed: authority::is_signed_by(&first, &certified.der),
        }
    }
}

/// Looks after a node's certificate, as long as there is the node. One that was given its
/// credentials instead of a data directory has to look after them itself.
pub(crate) async fn keep(node: Weak<Shared>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tried, mut warned, mut failed) = (None, None, false);
    loop {
        let Some(known) = node.upgrade().map(|node| Arc::clone(&node.revoked)) else { return };
        tokio::select! {
            biased;
            // Other authorities are believed.
            () = known.changed.notified() => tried = None,
            _ = looks.tick() => {}
        }
        drop(known);
        let Some(node) = node.upgrade() else { return };
        let Some(home) = node.revoked.home().cloned() else { return };
        let stem = format!("nodes/{}/node", node.runtime.name());
        let again_in = if failed { RETRY_EVERY } else { TRY_EVERY };
        if can_ask(&node, &home) && is_due(&mut tried, again_in) {
            let renewed = renew_if_due(&node, &home, &stem).await;
            failed = renewed.is_err();
            if let Err(error) = renewed {
                tracing::warn!(error, "the certificate is not made anew, trying on");
            }
        }
        if let Err(error) = take_over(&node, home, stem).await {
            tracing::error!(%error, "the certificate on disk is not used");
        }
        let expires_ms = node.renewal.expires_ms().unwrap_or(u64::MAX);
        let left = Duration::from_millis(expires_ms.saturating_sub(millis(&node.clock)));
        if left <= WARN && is_due(&mut warned, WARN_EVERY) {
            let days = left.as_secs() / 86_400;
            tracing::warn!(days, "this node's certificate is soon over, and others will refuse it");
        }
    }
}

/// Whether there is anybody who might make it anew.
fn can_ask(node: &Shared, home: &Home) -> bool {
    Home::has_authority(home.dir()) || node.membership().live().count() > 1
}

/// Whether something is due that was done last then; if so it is done now.
fn is_due(done: &mut Option<Instant>, every: Duration) -> bool {
    let due = done.is_none_or(|done| done.elapsed() >= every);
    if due {
        *done = Some(Instant::now());
    }
    due
}

/// Has the certificate on disk made anew, when a quarter of its time is left.
async fn renew_if_due(node: &Shared, home: &Home, stem: &str) -> Result<(), String> {
    let (looked, name, now) = (home.clone(), stem.to_owned(), (node.clock)());
    let request = on_disk(move || match looked.is_good(&name, now)? {
        true => Ok(None),
        false if Home::has_authority(looked.dir()) => looked.renew_now(&name).map(|()| None),
        false => looked.renewal_request(&name).map(Some),
    })
    .await?;
    let Some(request) = request else { return Ok(()) };
    let admission = sign::ask_others(node, request).await?;
    let (home, name) = (home.clone(), stem.to_owned());
    on_disk(move || home.take_renewed(&name, &admission)).await
}

/// Shows the certificate that is on disk, if that is another.
async fn take_over(node: &Shared, home: Home, stem: String) -> Result<(), String> {
    let credentials = on_disk(move || home.credentials(&stem)).await?;
    let (before, now) = (node.renewal.shown(), Shown::of(&credentials));
    if before == now {
        return Ok(());
    }
    node.endpoint.set_credentials(&credentials).map_err(|error| error.to_string())?;
    node.renewal.note(&credentials);
    if before.authorities != now.authorities {
        tracing::info!(count = now.authorities.len(), "the authorities on disk are believed");
    }
    if before.certified.serial != now.certified.serial {
        tracing::info!(serial = %now.certified.serial, "the certificate was made anew");
        if let Some(expires_ms) = node.renewal.expires_ms() {
            node.inputs.tell(Told::Renewed { expires_ms });
        }
    }
    Ok(())
}

/// Does something that waits for the disk.
async fn on_disk<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, HomeError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(act).await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}
