//! Judges what a client asks by what it may do, before anything is done for it.
//!
//! Every client has a guard in its session. Permissions are in the certificate or in this node's own
//! config, so they are as old as the connection and need no other node: on a split, or when others
//! are of another version, a client may do the same. What the session then sends to other nodes is the node's own and is not
//! judged there again; so a client can do no more than the node it is connected to lets it, and a
//! node of a version without permissions lets it do everything. Permissions hold once all nodes
//! know of them.
//!
//! The config has the last word: of a client whose name it has a pattern for, the certificate does
//! not count ([`GrantedPermissions`]). Whoever can write a node's config can have its certificate and
//! processes as well, so that it can give gives nobody a power that he does not have; and that it
//! can take is the quickest way to take. Each node judges its own clients, so what is to hold in the
//! whole cluster is to be in the config of all nodes; where one lacks it the certificate counts. What
//! counts here instead of its certificate the client is told, if it can hear that; an older one
//! believes its certificate, and so calls a message forbidden that was sent, or does not know that
//! one was.
//!
//! A pid tells nothing of what it is: if only processes of some kinds are allowed, the pid's node is
//! asked for its kind, once for each pid, and the requests behind it wait for that,
//! [`KIND_TIMEOUT`] at most. Kinds never change, and pids are never used again. A process that is
//! gone has no kind; a request for it is let through, and comes to nothing as it would anyway. If
//! its node does not answer, the request is forbidden.
//!
//! What is forbidden is told to the client, counted (`purlin status`) and logged; of one session the
//! first [`LOGGED`] times as a warning, so that a client cannot fill the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use purlin_proto::admin::{self, GetProcess, Renew};
use purlin_proto::session::{Request, Update};
use purlin_proto::{
    Asker, Capabilities, Dest, GrantedPermissions, Message, Name, NodeName, Permissions, Pid, Role,
    Verdict,
};
use purlin_runtime::Runtime;
use purlin_transport::Peer;
use tokio::time::Instant;

use crate::allowance::Allowances;

/// How long a node may take to tell the kind of a process.
const KIND_TIMEOUT: Duration = Duration::from_secs(2);

/// Kinds that are remembered for one client; all are forgotten when there are more.
const KINDS: usize = 1_024;

/// How often one session's refusals are warned of.
const LOGGED: u64 = 10;

/// A client may ask so often to have a certificate made anew, on each node,
const RENEWALS: u32 = 16;

/// and once more after each such time.
const RENEWAL_EVERY: Duration = Duration::from_secs(30);

/// What the guards of a node have in common.
#[derive(Debug)]
pub(crate) struct Guards {
    granted: GrantedPermissions,
    /// Of clients by their names.
    renewals: Allowances<NodeName>,
    /// What has been forbidden since the node started.
    requests: AtomicU64,
    /// What else was not done since it was asked too often.
    renewals_refused: AtomicU64,
}

impl Guards {
    pub(crate) fn new(granted: GrantedPermissions) -> Self {
        let renewals = Allowances::new(RENEWALS, RENEWAL_EVERY);
        let (requests, renewals_refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { granted, renewals, requests, renewals_refused }
    }

    /// All counts, by name.
    pub(crate) fn snapshot(&self) -> [admin::Counter; 2] {
        let counter = |name: &str, count: &AtomicU64| {
            let count = count.load(Ordering::Relaxed);
            admin::Counter { name: name.to_owned(), count }
        };
        [
            counter("requests.forbidden", &self.requests),
            counter("requests.renewals_refused", &self.renewals_refused),
        ]
    }
}

/// Judges the requests of one client.
pub(crate) struct Guard {
    /// None for an operator, who may do everything.
    permissions: Option<Permissions>,
    /// Whether they are this node's config's, and the client can hear of it.
    told: bool,
    client: NodeName,
    asker: Asker,
    kinds: BTreeMap<Pid, String>,
    refused: u64,
    runtime: Runtime,
    guards: Arc<Guards>,
}

impl Guard {
    pub(crate) fn new(peer: &Peer, session: Pid, runtime: &Runtime, guards: Arc<Guards>) -> Self {
        let granted = match peer.role {
            Role::Operator => None,
            Role::Client | Role::Node => guards.granted.of(peer.name),
        };
        let told = granted.is_some() && peer.capabilities.has(Capabilities::PERMITTED);
        let permissions = match peer.role {
            Role::Operator => None,
            Role::Client | Role::Node => {
                Some(granted.unwrap_or_else(|| peer.certified.permissions.clone()))
            }
        };
        let asker = Asker { session: Some(session), node: runtime.name() };
        let (kinds, runtime) = (BTreeMap::new(), runtime.clone());
        let client = peer.name;
        Self { permissions, told, client, asker, kinds, refused: 0, runtime, guards }
    }

    /// What the client is to be told before anything else: what it may do here, if that is not what
    /// its certificate says.
    pub(crate) fn introduction(&self) -> Option<Update> {
        let permissions = self.permissions.as_ref().filter(|_| self.told)?;
        let may = permissions.iter().map(ToString::to_string).collect();
        Some(Update::Permitted { may })
    }

    /// An error says what is forbidden.
    pub(crate) async fn judge(&mut self, request: &Request) -> Result<(), String> {
        let Some(permissions) = self.permissions.clone() else { return Ok(()) };
        let verdict = match permissions.judge(request, &self.asker, None) {
            Verdict::OfKind(pid) => match self.kind(pid).await {
                Ok(Some(kind)) => permissions.judge(request, &self.asker, Some(&kind)),
                Ok(None) => Verdict::Allowed,
                Err(what) => Verdict::Forbidden { what },
            },
            verdict => verdict,
        };
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::OfKind(pid) => Err(self.refuse(format!("{pid}"))),
            Verdict::Forbidden { what } => Err(self.refuse(what)),
        }
    }

    /// Whether it asks too often for what anybody may ask: a certificate anew, which costs a member
    /// with the authority's key a signature. Counts it.
    pub(crate) fn is_too_often(&self, request: &Request) -> bool {
        let (Request::Send { message, .. } | Request::Call { message, .. }) = request else {
            return false;
        };
        let refused = message.as_str() == Renew::NAME
            && !self.guards.renewals.take(self.client, Instant::now());
        if refused {
            self.guards.renewals_refused.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    fn refuse(&mut self, what: String) -> String {
        self.guards.requests.fetch_add(1, Ordering::Relaxed);
        self.refused += 1;
        let client = self.client;
        match self.refused {
            0..LOGGED => tracing::warn!(%client, what, "forbidden"),
            LOGGED => tracing::warn!(%client, what, "forbidden, and more of it is not logged"),
            _ => tracing::debug!(%client, what, "forbidden"),
        }
        what
    }

    /// The kind of a process; none if there is none.
    async fn kind(&mut self, pid: Pid) -> Result<Option<String>, String> {
        if let Some(kind) = self.kinds.get(&pid) {
            return Ok(Some(kind.clone()));
        }
        let ask = GetProcess { target: Dest::Pid(pid) };
        let node = pid.node.name;
        let found = if node == self.runtime.name() {
            self.runtime.process_detail(&ask.target)
        } else {
            let system = Dest::Remote(Name::new(admin::SYSTEM).expect("a name"), node);
            let asked = self.runtime.call_timeout(system, ask, KIND_TIMEOUT).await;
            asked.map_err(|error| format!("{pid}, whose kind cannot be told: {error}"))?
        };
        let kind = found.map(|process| process.kind);
        if let Some(kind) = &kind {
            if self.kinds.len() >= KINDS {
                self.kinds.clear();
            }
            self.kinds.insert(pid, kind.clone());
        }
        Ok(kind)
    }
}
