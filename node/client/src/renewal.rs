//! A client's own certificate, made anew while the program runs.
//!
//! When a quarter of its time is left the client asks its node (`node.renew`), which asks whoever can
//! sign, and shows the new certificate from the next connection on. The present one goes on, and
//! nothing that is under way notices. Credentials that were read from a directory are kept there, so
//! that the next start has them; and what others have written there (`purlin cert renew`, another
//! program of the same directory) is taken over.
//!
//! # What if
//!
//! - **Nobody can sign**, or the node is lost: it is tried again every [`TRY_EVERY`], for a quarter of
//!   a year, and warned of once a day.
//! - **The directory cannot be written**, or there is none: the new certificate is used until the
//!   program ends, and the next one asks again. That is warned of, too.
//! - **The program was away until it ran out.** Nodes refuse it, and it wants a new token.
//! - **The authority is rotated.** That alone is not noticed here: `purlin cert renew` has to be said
//!   in its directory, and is noticed.
//! - **What comes is not ours.** It is not taken ([`Credentials::renewed`]).
//! - **The client is dropped** while it asks: its connection ends when that is answered, or has timed
//!   out.

use std::sync::Weak;
use std::time::{Duration, SystemTime};

use purlin_proto::admin::{self, Renew};
use purlin_proto::{Dest, Name};
use purlin_transport::Credentials;
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::{Client, Inner};

/// A quarter of the year that certificates are good for.
const BEFORE: Duration = Duration::from_hours(365 * 24 / 4);

/// How often the directory is looked into.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// How often a certificate that is soon over is tried to be made anew.
const TRY_EVERY: Duration = Duration::from_mins(10);

/// How often is warned when that fails.
const WARN_EVERY: Duration = Duration::from_hours(24);

struct Keeper {
    /// What is shown from the next connection on.
    shown: Credentials,
    /// What was in the directory when it was last looked into.
    on_disk: Credentials,
}

/// Looks after the certificate, as long as there is the client.
pub(crate) async fn keep(client: Weak<Inner>, credentials: Credentials) {
    let mut keeper = Keeper { on_disk: credentials.clone(), shown: credentials };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once; the directory has just been read.
    looks.tick().await;
    let (mut tried, mut warned) = (None, None);
    loop {
        if !keeper.is_good() && is_due(&mut tried, TRY_EVERY) {
            let Some(client) = client.upgrade().map(Client) else { return };
            if let Err(error) = keeper.renew(&client).await
                && is_due(&mut warned, WARN_EVERY)
            {
                tracing::warn!(error, "our certificate is soon over");
            }
        }
        looks.tick().await;
        let Some(client) = client.upgrade().map(Client) else { return };
        keeper.look(&client).await;
    }
}

/// Whether something is due that was done last then; if so it is done now.
fn is_due(done: &mut Option<Instant>, every: Duration) -> bool {
    let due = done.is_none_or(|done| done.elapsed() >= every);
    if due {
        *done = Some(Instant::now());
    }
    due
}

impl Keeper {
    fn is_good(&self) -> bool {
        self.shown.is_good_at(SystemTime::now() + BEFORE)
    }

    /// Has it made anew, shows it, and keeps it.
    async fn renew(&mut self, client: &Client) -> Result<(), String> {
        let request = self.shown.renewal_request().map_err(|error| error.to_string())?;
        let certificate = self.shown.certified().der.to_vec();
        let ask = Renew { certificate, request, forwarded: false };
        let system = Dest::Local(Name::new(admin::SYSTEM).expect("a name"));
        let answer = client.call(system, ask).await.map_err(|error| error.to_string())?;
        let made = answer?;
        let renewed = self.shown.renewed(&made.certificate, &made.authority, SystemTime::now());
        let renewed = renewed.map_err(|error| error.to_string())?;
        client.show(&renewed.credentials)?;
        self.shown = renewed.credentials.clone();
        tracing::info!(serial = %self.shown.certified().serial, "our certificate was made anew");
        let kept = tokio::task::spawn_blocking(move || renewed.keep()).await;
        kept.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.on_disk = self.shown.clone();
        Ok(())
    }

    /// Takes over what others have written into the directory.
    async fn look(&mut self, client: &Client) {
        let Some(dir) = self.on_disk.dir().map(ToOwned::to_owned) else { return };
        let read = tokio::task::spawn_blocking(move || Credentials::from_dir(dir)).await;
        let read = match read {
            Ok(Ok(read)) => read,
            // It may be that just now somebody writes there.
            Ok(Err(error)) => return tracing::debug!(%error, "the credentials are not read"),
            Err(error) => return tracing::error!(%error, "the credentials are not read"),
        };
        if read.is_same(&self.on_disk) {
            return;
        }
        self.on_disk = read.clone();
        match client.show(&read) {
            Ok(()) => {
                self.shown = read;
                tracing::info!(serial = %self.shown.certified().serial, "other credentials are used");
            }
            Err(error) => tracing::warn!(error, "the credentials on disk are not used"),
        }
    }
}
