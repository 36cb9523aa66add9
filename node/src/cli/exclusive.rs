//! What `purlin status` says of leases and voters.

use purlin_proto::admin::{self, ExclusiveInfo};
use serde::Serialize;

/// What a node says of itself, with this.
#[derive(Serialize)]
pub(super) struct Status {
    #[serde(flatten)]
    pub(super) status: admin::Status,
    pub(super) exclusive: Option<ExclusiveInfo>,
}

/// Who decides what may run at most once, and whether this node may run it; nothing of a node that
/// does not take part.
pub(super) fn rows(info: ExclusiveInfo) -> Vec<Vec<String>> {
    if !info.takes_part {
        return Vec::new();
    }
    let names = info.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let voters = match (info.authority, names.is_empty()) {
        (None, _) => "no authority known, nothing exclusive runs here".to_owned(),
        (Some(_), true) => "not known".to_owned(),
        (Some(_), false) => names,
    };
    let lease = match info.lease_s {
        Some(left) => format!("good for {left:.1} s more"),
        None => "none, nothing exclusive runs here".to_owned(),
    };
    let leader = info.leader.map_or_else(|| "not known".to_owned(), |leader| leader.to_string());
    let mut rows = vec![
        vec!["voters".to_owned(), voters],
        vec!["voters' leader".to_owned(), leader],
        vec!["ring view".to_owned(), format!("{}, {} nodes", info.epoch, info.members.len())],
        vec!["lease".to_owned(), lease],
    ];
    if info.votes && !info.durable {
        let warning = "in memory: when most voters restart at once, nothing exclusive runs again";
        rows.push(vec!["votes".to_owned(), warning.to_owned()]);
    }
    rows
}
