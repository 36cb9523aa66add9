//! What an operator may know of keyed processes.

use purlin_proto::Name;
use purlin_proto::admin::{KeyedInfo, ListKeyed};
use purlin_proto::limits::PAGE_ENTRIES;

use super::table::Table;
use crate::runtime::Runtime;

impl Runtime {
    /// A page of the keyed processes of this node, by kind and key.
    pub fn keyed_infos(&self, ask: &ListKeyed) -> Vec<KeyedInfo> {
        let mut page = Vec::new();
        let mut after = ask.after.as_ref();
        for (kind, table) in &self.0.keyed {
            let Ok(kind) = Name::new(kind) else { continue };
            if ask.kind.as_ref().is_some_and(|wanted| *wanted != kind) {
                continue;
            }
            let behind = match after {
                Some((before, _)) if kind < *before => continue,
                Some((before, key)) if kind == *before => Some(key),
                _ => None,
            };
            after = None;
            let mut found = Vec::new();
            for part in 0..Table::parts() {
                let looked = table.look(part).into_iter();
                found.extend(looked.filter(|(key, ..)| behind.is_none_or(|behind| key > behind)));
            }
            found.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
            found.truncate(PAGE_ENTRIES - page.len());
            page.extend(found.into_iter().map(|(key, process, idle)| KeyedInfo {
                kind: kind.clone(),
                key,
                pid: process.pid(),
                node: self.name(),
                mailbox: process.mailbox_len(),
                handled: process.handled(),
                idle_s: idle.as_secs_f64(),
            }));
            if page.len() >= PAGE_ENTRIES {
                break;
            }
        }
        page
    }
}
