//! Printing: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use comfy_table::{Cell, ContentArrangement, Table, presets};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::Failure;

/// Prints text; a closed pipe ends the program quietly, as `head` expects.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::No(format!("cannot write: {error}")),
    })
}

/// Says something to the user beside the output. Nobody may read that either.
pub(super) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Whether the reader of a pipe has gone, also while there is nothing to print.
pub(super) fn reader_is_gone() -> bool {
    let stdout = std::io::stdout();
    let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let polled = poll(&mut asked, PollTimeout::ZERO);
    polled.is_ok_and(|ready| ready > 0)
        && asked[0].revents().is_some_and(|found| found.contains(PollFlags::POLLERR))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::No(format!("cannot print: {error}")))?;
    print(&format!("{text}\n"))
}

/// A table with these headings; the headings are bold on a terminal.
pub(super) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    let heading = |text: &&str| {
        let cell = Cell::new(text);
        if colour { cell.add_attribute(comfy_table::Attribute::Bold) } else { cell }
    };
    if headings.iter().any(|text| !text.is_empty()) {
        table.set_header(headings.iter().map(heading));
    }
    for row in rows {
        table.add_row(row.iter().map(|text| coloured(text, colour)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    print(&(lines.join("\n") + "\n"))
}

fn coloured(text: &str, colour: bool) -> Cell {
    let cell = Cell::new(text);
    match text {
        "up" if colour => cell.fg(comfy_table::Color::Green),
        "suspect" if colour => cell.fg(comfy_table::Color::Yellow),
        "down" if colour => cell.fg(comfy_table::Color::Red),
        _ => cell,
    }
}

/// Seconds as people say them.
pub(super) fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time span")]
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A time that may be a small part of a second.
pub(super) fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}ms"))
}

/// A share of the whole.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", 100.0 * share))
}

/// The time of day, UTC.
pub(super) fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}Z", seconds % 60, at_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_two_units() {
        assert_eq!(span(59.9), "59s");
        assert_eq!(span(61.0), "1m01s");
        assert_eq!(span(7_260.0), "2h01m");
        assert_eq!(span(90_000.0), "1d01h");
    }
}
