//! The first figure of each workload as bars, one panel each, as SVG and as PNG.

use std::path::Path;

use anyhow::{Result, anyhow};
use meter::Task;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::figures::{Figure, short};
use crate::rounds::Cell;
use crate::systems::System;

const COLUMNS: usize = 3;
const PANEL: (u32, u32) = (430, 260);
const FONT: &str = "sans-serif";
/// Share of a panel's width that the names take.
const NAMES: f64 = 0.27;

pub(crate) fn draw(out: &Path, results: &[Cell]) -> Result<()> {
    let font = epaint_default_fonts::UBUNTU_LIGHT;
    register_font(FONT, FontStyle::Normal, font).map_err(|_| anyhow!("the font is not one"))?;
    let mut tasks: Vec<Task> = results.iter().map(|cell| cell.task).collect();
    tasks.dedup();
    tasks.retain(|task| results.iter().any(|c| c.task == *task && c.reports().next().is_some()));
    if tasks.is_empty() {
        return Ok(());
    }
    let lines = u32::try_from(tasks.len().div_ceil(COLUMNS))?;
    let size = (PANEL.0 * u32::try_from(COLUMNS)?, PANEL.1 * lines);
    let svg = out.join("results.svg");
    panels(&SVGBackend::new(&svg, size).into_drawing_area(), &tasks, results)?;
    let png = out.join("results.png");
    panels(&BitMapBackend::new(&png, size).into_drawing_area(), &tasks, results)
}

fn panels<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    tasks: &[Task],
    results: &[Cell],
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let draw = || {
        area.fill(&WHITE)?;
        let places = area.split_evenly((tasks.len().div_ceil(COLUMNS), COLUMNS));
        for (task, place) in tasks.iter().zip(&places) {
            panel(place, *task, results)?;
        }
        area.present()
    };
    draw().map_err(|error| anyhow!("the plot: {error}"))
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn panel<B: DrawingBackend>(
    place: &DrawingArea<B, Shift>,
    task: Task,
    results: &[Cell],
) -> Drawn<B> {
    let cells: Vec<_> = results.iter().filter(|cell| cell.task == task).collect();
    let Some(first) = cells.iter().find_map(|cell| cell.reports().next()) else { return Ok(()) };
    let Some(metric) = first.metrics.first() else { return Ok(()) };
    let (width, height) = place.dim_in_pixel();
    let (width, height) = (f64::from(width), f64::from(height));
    let text = |size: i32| (FONT, size).into_font().color(&BLACK);
    // The font has no arrows.
    let title = format!("{}: {}, {}", task.title(), metric.name, metric.unit).replace('→', " to ");
    place.draw(&Text::new(title, (12, 10), text(15)))?;
    let figures: Vec<(System, Option<Figure>)> =
        cells.iter().map(|cell| (cell.system, cell.figure(&metric.name))).collect();
    let most = figures.iter().filter_map(|(_, f)| f.map(|f| f.most)).fold(0.0, f64::max).max(1e-9);
    let step = (height - 48.0) / figures.len() as f64;
    let (left, room) = (width * NAMES, width * (1.0 - NAMES) - 78.0);
    let across = |value: f64| (left + room * value / most) as i32;
    for (index, (system, figure)) in figures.into_iter().enumerate() {
        let top = 36.0 + step * index as f64;
        let (top, bottom) = (top as i32, (top + step * 0.72) as i32);
        place.draw(&Text::new(system.name(), (12, top), text(14)))?;
        let Some(figure) = figure else {
            place.draw(&Text::new("–", (left as i32, top), text(14)))?;
            continue;
        };
        let bar = [(left as i32, top), (across(figure.median).max(left as i32 + 1), bottom)];
        place.draw(&Rectangle::new(bar, color(system).filled()))?;
        let middle = i32::midpoint(top, bottom);
        let spread = vec![(across(figure.least), middle), (across(figure.most), middle)];
        place.draw(&PathElement::new(spread, BLACK.stroke_width(1)))?;
        let end = across(figure.most) + 5;
        place.draw(&Text::new(short(figure.median), (end, top), text(13)))?;
    }
    Ok(())
}

fn color(system: System) -> RGBColor {
    match system {
        System::Purlin => RGBColor(214, 69, 38),
        System::Bare | System::BareDefaults => RGBColor(150, 150, 150),
        System::OtpTcp | System::OtpTls => RGBColor(163, 51, 108),
        System::Ractor | System::Kameo | System::Zestors | System::Coerce => RGBColor(70, 130, 180),
    }
}
