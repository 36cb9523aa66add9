//! What this node thinks of the members, and why, for an operator.

use purlin_cluster::{Happened, Member, Noted, State};
use purlin_proto::admin::{MemberInfo, MemberState, NodePast, NodeWhy};
use purlin_proto::{NodeId, NodeName};
use purlin_transport::Link;

use crate::builder::millis;
use crate::node::Shared;

pub(crate) fn members(node: &Shared) -> Vec<MemberInfo> {
    let members: Vec<_> = node.membership().members().cloned().collect();
    members.into_iter().map(|member| info(node, member)).collect()
}

fn info(node: &Shared, member: Member) -> MemberInfo {
    let link = node.endpoint.link(&member.id);
    let path = link.as_ref().map(Link::path);
    let certificate_expires_ms = match member.id == node.runtime.id() {
        true => node.renewal.expires_ms(),
        false => link.and_then(|link| node.revoked.expiry(link.peer())),
    };
    MemberInfo {
        name: member.id.name,
        id: member.id,
        address: member.address,
        state: match member.state {
            State::Up if node.directory.is_draining(member.id.name) => MemberState::Draining,
            State::Up => MemberState::Up,
            State::Suspect => MemberState::Suspect,
            State::Down => MemberState::Down,
            State::Left => MemberState::Left,
        },
        since_s: node.started.elapsed().saturating_sub(member.since).as_secs_f64(),
        labels: member.labels,
        rtt_ms: path.map(|path| path.rtt.as_secs_f64() * 1_000.0),
        loss: path.map(|path| path.loss()),
        certificate_expires_ms,
    }
}

pub(crate) fn why(node: &Shared, about: NodeName) -> NodeWhy {
    let (member, tally, noted): (_, _, Vec<Noted>) = {
        let membership = node.membership();
        let noted = membership.history(about).cloned().collect();
        (membership.member(about).cloned(), membership.tally(about), noted)
    };
    let (now, now_ms) = (node.started.elapsed(), millis(&node.clock));
    let past = |noted: Noted| {
        let ago = now.saturating_sub(noted.at).as_millis();
        let at_ms = now_ms.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX));
        let (event, by, detail) = describe(noted.what);
        NodePast { at_ms, times: noted.times, event: event.to_owned(), by, detail }
    };
    NodeWhy {
        seen_by: node.runtime.name(),
        member: member.map(|member| info(node, member)),
        probes_failed: tally.unanswered,
        suspected: tally.suspected,
        refuted: tally.refuted,
        stalls: tally.stalls,
        longest_stall_s: tally.longest_stall.as_secs_f64(),
        events: noted.into_iter().map(past).collect(),
    }
}

/// The event's name, who had to do with it, and more of it.
fn describe(what: Happened) -> (&'static str, Option<NodeId>, Option<String>) {
    match what {
        Happened::Up(id) => ("up", None, Some(id.to_string())),
        Happened::Connected => ("connected", None, None),
        Happened::Disconnected { why } => ("disconnected", None, Some(why)),
        Happened::Unanswered => ("unanswered", None, Some("a probe".to_owned())),
        Happened::Suspected { by: None } => {
            let detail = "neither its own probe nor those of others were answered";
            ("suspected", None, Some(detail.to_owned()))
        }
        Happened::Suspected { by } => ("suspected", by, None),
        Happened::Alive { by } => ("alive", by, None),
        Happened::PortClosed => ("port_closed", None, None),
        Happened::Answered => ("answered", None, None),
        Happened::Down(why) => ("down", None, Some(why.to_string())),
        Happened::Left => ("left", None, None),
        Happened::Stalled(lag) => ("stalled", None, Some(format!("for {lag:.1?}"))),
        Happened::Accused { by } => ("accused", Some(by), None),
        Happened::DeclaredDown { by } => ("declared_down", Some(by), None),
        Happened::Returned { creation } => {
            ("returned", None, Some(format!("under creation {creation}")))
        }
    }
}
