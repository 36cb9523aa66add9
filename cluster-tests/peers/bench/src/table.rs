//! One table: a row for each figure, a column for each system; below it, what is missing and why.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};
use meter::Task;

use crate::figures::{Figure, Goal, short};
use crate::rounds::Cell;
use crate::systems::Ready;
use crate::verdict;

pub(crate) fn show(results: &[Cell], ready: &[Ready]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.remove_style(TableComponent::HorizontalLines);
    table.remove_style(TableComponent::MiddleIntersections);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let mut head = ["workload", "unit", "goal", "ahead of\nevery peer"].map(str::to_owned).to_vec();
    head.extend(ready.iter().map(|one| one.system.heading().to_owned()));
    table.set_header(head);
    for task in tasks(results) {
        let cells: Vec<_> = results.iter().filter(|cell| cell.task == task).collect();
        for row in rows(task, &cells) {
            table.add_row(row);
        }
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}\n{}", verdict::EXCUSED, legend(results))
}

fn tasks(results: &[Cell]) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for cell in results {
        if !tasks.contains(&cell.task) {
            tasks.push(cell.task);
        }
    }
    tasks
}

/// The figures of one workload, then its CPU time, then its losses if there are any.
fn rows(task: Task, cells: &[&Cell]) -> Vec<Vec<String>> {
    let Some(metrics) = cells.iter().find_map(|cell| cell.reports().next()) else {
        let mut row = vec![task.title(), String::new(), String::new(), String::new()];
        row.extend(cells.iter().map(|cell| trouble(cell)));
        return vec![row];
    };
    let mut rows = Vec::new();
    for (index, metric) in metrics.metrics.iter().enumerate() {
        let title = match index {
            0 => format!("{}: {}", task.title(), metric.name),
            _ => format!("  {}", metric.name),
        };
        let goal = Goal::of(task, &metric.name);
        let reached = goal.as_ref().and_then(|goal| goal.reached(cells, &metric.name));
        let goal = goal.map_or_else(String::new, |goal| match reached {
            Some(true) => format!("{goal} ✓"),
            Some(false) => format!("{goal} ✗"),
            None => goal.to_string(),
        });
        let ahead = verdict::of(cells, &metric.unit, verdict::metric(&metric.name));
        let mut row = vec![title, metric.unit.clone(), goal, ahead.unwrap_or_default()];
        row.extend(cells.iter().map(|cell| match cell.figure(&metric.name) {
            Some(figure) => spread(figure),
            None if index == 0 => trouble(cell),
            None => String::new(),
        }));
        rows.push(row);
    }
    if cells.iter().any(|cell| cell.cpu().is_some()) {
        let ahead = verdict::cpu(cells).unwrap_or_default();
        let title = "  CPU of sender + receiver".to_owned();
        let mut row = vec![title, "ns/msg".into(), String::new(), ahead];
        row.extend(cells.iter().map(|cell| {
            cell.cpu().map_or_else(String::new, |(client, server)| {
                format!("{} + {}", short(client.median), short(server.median))
            })
        }));
        rows.push(row);
    }
    if cells.iter().any(|cell| cell.lost() > 0.0) {
        let mut row = vec!["  lost".to_owned(), "%".into(), String::new(), String::new()];
        row.extend(cells.iter().map(|cell| match cell.reports().next() {
            Some(_) => short(cell.lost() * 100.0),
            None => String::new(),
        }));
        rows.push(row);
    }
    rows
}

fn trouble(cell: &Cell) -> String {
    cell.trouble().map_or("", |(short, _)| short).to_owned()
}

fn spread(figure: Figure) -> String {
    let half = (figure.most - figure.least) / 2.0 / figure.median * 100.0;
    if half < 0.5 || !half.is_finite() {
        return short(figure.median);
    }
    format!("{} ±{half:.0}%", short(figure.median))
}

/// Why there are dashes: each reason once, for all workloads and systems that share it.
fn legend(results: &[Cell]) -> String {
    let mut reasons: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for cell in results {
        if let Some((_, why)) = cell.trouble() {
            reasons.entry((why, cell.system.name())).or_default().insert(family(cell.task));
        }
    }
    let mut lines: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for ((why, system), tasks) in reasons {
        let of_system = results.iter().filter(|cell| cell.system.name() == system);
        let all: BTreeSet<_> = of_system.map(|cell| family(cell.task)).collect();
        let tasks = if tasks == all {
            String::new()
        } else {
            format!(" ({})", tasks.into_iter().collect::<Vec<_>>().join(", "))
        };
        lines.entry((why, tasks)).or_default().push(system);
    }
    let line = |((why, tasks), systems): ((&str, String), Vec<&str>)| {
        format!("{}{tasks}: {why}\n", systems.join(", "))
    };
    lines.into_iter().map(line).collect()
}

/// All over a bad network are one.
fn family(task: Task) -> String {
    if task.loss.is_some() { "loss-…".to_owned() } else { task.to_string() }
}
