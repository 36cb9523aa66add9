//! Judges a client's request by its permissions.

use crate::admin::children::{GetClusterChild, ListClusterChildren};
use crate::admin::{
    GetDrainPlan, GetDrainRest, GetExclusive, GetNodeWhy, GetOwner, GetProcess, GetStatus, GetTree,
    GetWhy, ListGlobalNames, ListGroupMembers, ListGroups, ListKeyed, ListMembers, ListNames,
    ListProcesses, ListRevocations, ListTopics, Place, Renew, Subscribe, SubscribeTopic,
    UnsubscribeTopic, WhereIs, WhereIsGlobal,
};
use crate::dest::Dest;
use crate::group::{Group, Pick};
use crate::id::Pid;
use crate::message::{Message, MessageName};
use crate::name::NodeName;
use crate::payload::Payload;
use crate::session::Request;

use super::{Permissions, Rule, Target};

/// Who asks, and where.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Its session: it may subscribe that to what it may read, and nobody else.
    pub session: Option<Pid>,
    /// The node it is connected to, where names without a node are looked up.
    pub node: NodeName,
}

/// What is to become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done.
    Allowed,
    /// It may not.
    Forbidden {
        /// What may not be done, as `call global:billing`.
        what: String,
    },
    /// It may be done if this process is of a kind that is allowed: judge again when that is known.
    OfKind(Pid),
}

/// What a message to a node itself is about.
enum Own {
    Read,
    /// Finds out whom one may send to.
    LookUp(Dest),
    Subscribes(crate::name::Name, Pid),
    Events(Pid),
    /// Has its own certificate made anew, which it proves to have.
    Renews,
    Administers,
}

/// All that is read and nothing else.
const READING: [&str; 20] = [
    GetStatus::NAME,
    ListMembers::NAME,
    ListProcesses::NAME,
    GetProcess::NAME,
    GetTree::NAME,
    GetWhy::NAME,
    GetNodeWhy::NAME,
    ListNames::NAME,
    GetOwner::NAME,
    Place::NAME,
    ListGroups::NAME,
    ListTopics::NAME,
    ListGlobalNames::NAME,
    ListRevocations::NAME,
    ListKeyed::NAME,
    GetDrainPlan::NAME,
    GetDrainRest::NAME,
    GetExclusive::NAME,
    ListClusterChildren::NAME,
    GetClusterChild::NAME,
];

/// What the act needs.
#[derive(Clone, Copy)]
enum Need {
    Call,
    /// Who may call may send.
    Send,
    /// Who may send may know of the end.
    Monitor,
    Exit,
}

impl Need {
    fn word(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Send => "send",
            Self::Monitor => "monitor",
            Self::Exit => "exit",
        }
    }

    /// The target of a rule that is of use here.
    fn of(self, rule: &Rule) -> Option<&Target> {
        match (self, rule) {
            (Self::Call | Self::Send | Self::Monitor, Rule::Call(target))
            | (Self::Send | Self::Monitor, Rule::Send(target))
            | (Self::Exit, Rule::Exit(target)) => Some(target),
            _ => None,
        }
    }
}

impl Permissions {
    /// Judges a request. `kind` is that of the process it is for, where it is for a pid and that is
    /// known.
    pub fn judge(&self, request: &Request, asker: &Asker, kind: Option<&str>) -> Verdict {
        match request {
            Request::Send { to, message, payload } => {
                self.message(Need::Send, to, (message, payload), asker, kind)
            }
            Request::Call { to, message, payload, .. } => {
                self.message(Need::Call, to, (message, payload), asker, kind)
            }
            Request::Monitor { target, .. } => self.dest(Need::Monitor, target, asker, kind),
            Request::Exit { target, .. } => self.dest(Need::Exit, target, asker, kind),
            Request::MonitorGroup { group, .. } => {
                self.dest(Need::Monitor, &Dest::group(group.clone()), asker, None)
            }
            Request::Demonitor { .. } => Verdict::Allowed,
            Request::Spawn { kind: wanted, name, on, .. } => {
                let on = on.unwrap_or(asker.node);
                let spawns = |rule: &Rule| match rule {
                    Rule::Spawn { kind, node } => {
                        kind.matches(wanted.as_str()) && node.matches(on.as_str())
                    }
                    _ => false,
                };
                if !self.rules().any(spawns) {
                    return forbidden(format!("spawn {wanted} on {on}"));
                }
                // Whoever takes a name gets what others send to it.
                let named = name.as_ref().map(|name| Dest::Remote(name.clone(), on));
                match named.filter(|named| !self.may_address(named, asker)) {
                    Some(named) => forbidden(format!("spawn {wanted} as {named}")),
                    None => Verdict::Allowed,
                }
            }
        }
    }

    fn message(
        &self,
        need: Need,
        to: &Dest,
        (message, payload): (&MessageName, &Payload),
        asker: &Asker,
        kind: Option<&str>,
    ) -> Verdict {
        let name = message.as_str();
        if !name.starts_with("node.") && !name.starts_with("purlin.") {
            return self.dest(need, to, asker, kind);
        }
        let reads = || self.rules().any(|rule| matches!(rule, Rule::Read));
        let own = |pid| asker.session == Some(pid);
        let allowed = match what(name, payload, to, asker) {
            Own::Read => reads(),
            Own::Renews => true,
            Own::Events(subscriber) => reads() && own(subscriber),
            Own::LookUp(dest) => reads() || self.may_address(&dest, asker),
            Own::Subscribes(topic, pid) => {
                let covers = |rule: &Rule| match rule {
                    Rule::Subscribe(pattern) => pattern.matches(topic.as_str()),
                    _ => false,
                };
                if !self.rules().any(covers) || !own(pid) {
                    return forbidden(format!("subscribe topic:{topic}"));
                }
                true
            }
            Own::Administers => false,
        };
        match allowed {
            true => Verdict::Allowed,
            false => forbidden(format!("{} {to} {name}", need.word())),
        }
    }

    fn may_address(&self, dest: &Dest, asker: &Asker) -> bool {
        self.dest(Need::Send, dest, asker, None) == Verdict::Allowed
    }

    fn dest(&self, need: Need, dest: &Dest, asker: &Asker, kind: Option<&str>) -> Verdict {
        let targets = || self.rules().filter_map(|rule| need.of(rule));
        if targets().any(|target| target.covers(dest, asker.node, kind)) {
            return Verdict::Allowed;
        }
        let of_kinds = || targets().any(|target| matches!(target, Target::Kind(_)));
        match (dest, kind) {
            (Dest::Pid(pid), None) if of_kinds() => Verdict::OfKind(*pid),
            _ => forbidden(format!("{} {dest}", need.word())),
        }
    }
}

fn forbidden(what: String) -> Verdict {
    Verdict::Forbidden { what }
}

impl Target {
    fn covers(&self, dest: &Dest, here: NodeName, of: Option<&str>) -> bool {
        match (self, dest) {
            (Self::Name { name, node }, Dest::Local(given)) => {
                name.matches(given.as_str()) && node.matches(here.as_str())
            }
            (Self::Name { name, node }, Dest::Remote(given, at)) => {
                name.matches(given.as_str()) && node.matches(at.as_str())
            }
            (Self::Global(name), Dest::Global(given)) | (Self::Topic(name), Dest::Topic(given)) => {
                name.matches(given.as_str())
            }
            (Self::Group { scope, name }, Dest::Group(group, _)) => {
                scope.matches(group.scope.as_str()) && name.matches(group.name.as_str())
            }
            (Self::Key { kind, key }, Dest::Key { kind: given, key: of }) => {
                kind.matches(given.as_str()) && key.matches(of.as_str())
            }
            (Self::Kind(kind), Dest::Pid(_)) => of.is_some_and(|of| kind.matches(of)),
            (Self::Pid { node }, Dest::Pid(pid)) => node.matches(pid.node.name.as_str()),
            _ => false,
        }
    }
}

/// What a message to a node itself is about. What cannot be read is an operator's.
fn what(name: &str, payload: &Payload, to: &Dest, asker: &Asker) -> Own {
    let group = |group: Group| Own::LookUp(Dest::Group(group, Pick::All));
    let read = match name {
        WhereIs::NAME => payload.decode().map(|ask: WhereIs| {
            let on = to.node().unwrap_or(asker.node);
            Own::LookUp(Dest::Remote(ask.name, on))
        }),
        WhereIsGlobal::NAME => {
            payload.decode().map(|ask: WhereIsGlobal| Own::LookUp(Dest::Global(ask.name)))
        }
        ListGroupMembers::NAME => payload.decode().map(|ask: ListGroupMembers| group(ask.group)),
        SubscribeTopic::NAME => {
            payload.decode().map(|ask: SubscribeTopic| Own::Subscribes(ask.topic, ask.pid))
        }
        UnsubscribeTopic::NAME => {
            payload.decode().map(|ask: UnsubscribeTopic| Own::Subscribes(ask.topic, ask.pid))
        }
        Subscribe::NAME => payload.decode().map(|ask: Subscribe| Own::Events(ask.subscriber)),
        Renew::NAME => Ok(Own::Renews),
        name if READING.contains(&name) => Ok(Own::Read),
        _ => Ok(Own::Administers),
    };
    read.unwrap_or(Own::Administers)
}
