//! Judges what a client asks by what its certificate allows, before anything is done for it.
//!
//! Every client has a guard in its session. Permissions are in the certificate, so they are as old
//! as the connection and need no other node: on a split, or when others are of another version, a
//! client may do the same. What the session then sends to other nodes is the node's own and is not
//! judged there again; so a client can do no more than the node it is connected to lets it, and a
//! node of a version without permissions lets it do everything. Permissions hold once all nodes
//! know of them.
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

use purlin_proto::admin::{self, GetProcess};
use purlin_proto::session::Request;
use purlin_proto::{Asker, Dest, Name, NodeName, Permissions, Pid, Role, Verdict};
use purlin_runtime::Runtime;
use purlin_transport::Peer;

/// How long a node may take to tell the kind of a process.
const KIND_TIMEOUT: Duration = Duration::from_secs(2);

/// Kinds that are remembered for one client; all are forgotten when there are more.
const KINDS: usize = 1_024;

/// How often one session's refusals are warned of.
const LOGGED: u64 = 10;

/// What has been forbidden since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
}

impl Counts {
    /// All counts, by name.
    pub(crate) fn snapshot(&self) -> [admin::Counter; 1] {
        let count = self.requests.load(Ordering::Relaxed);
        [admin::Counter { name: "requests.forbidden".to_owned(), count }]
    }
}

/// Judges the requests of one client.
pub(crate) struct Guard {
    /// None for an operator, who may do everything.
    permissions: Option<Permissions>,
    client: NodeName,
    asker: Asker,
    kinds: BTreeMap<Pid, String>,
    refused: u64,
    runtime: Runtime,
    counts: Arc<Counts>,
}

impl Guard {
    pub(crate) fn new(peer: &Peer, session: Pid, runtime: &Runtime, counts: Arc<Counts>) -> Self {
        let permissions = match peer.role {
            Role::Operator => None,
            Role::Client | Role::Node => Some(peer.certified.permissions.clone()),
        };
        let asker = Asker { session: Some(session), node: runtime.name() };
        let (kinds, runtime) = (BTreeMap::new(), runtime.clone());
        Self { permissions, client: peer.name, asker, kinds, refused: 0, runtime, counts }
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

    fn refuse(&mut self, what: String) -> String {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
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
