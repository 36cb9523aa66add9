//! The process on each measured node that does there what is measured.

use std::time::Duration;

use purlin::prelude::*;
use purlin::{RawContext, RawKind, Runtime};

use super::children::Loads;
use super::groups::{Join, Make};
use super::keyed::{FirstCalls, Use};
use super::names::{LookUp, TakeNames};
use super::topics::{Publish, Subscribe};

/// Its name on each node.
pub(crate) const NAME: &str = "figures";

static IDLE: RawKind = RawKind::new("figures.idle");

pub(crate) struct Agent;

impl Actor for Agent {
    const KIND: &'static str = "figures.agent";
    type Args = ();
    type Messages = (TakeNames, LookUp, Make, Join, Subscribe, Publish, FirstCalls, Use, Loads);

    async fn start((): (), _: &mut Context<Self>) -> Outcome<Self> {
        Ok(Self)
    }
}

/// A process that does nothing.
pub(crate) fn idle(runtime: &Runtime) -> Pid {
    let body = |mut ctx: RawContext| async move {
        loop {
            ctx.receive().await?;
        }
    };
    runtime.spawn_raw(&IDLE, body).unwrap()
}

/// Looks every millisecond whether something is so.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
