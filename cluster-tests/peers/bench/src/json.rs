//! Everything that was found, for other programs.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;

use crate::rounds::Cell;

pub(crate) fn write(path: &Path, results: &[Cell], settings: &[String]) -> Result<()> {
    let cells: Vec<_> = results
        .iter()
        .map(|cell| {
            json!({
                "workload": cell.task.to_string(),
                "system": cell.system,
                "lost": cell.lost(),
                "rounds": cell.outcomes,
            })
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let all = json!({ "unix_time": now, "settings": settings, "results": cells });
    Ok(std::fs::write(path, serde_json::to_string_pretty(&all)?)?)
}
