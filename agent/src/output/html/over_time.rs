//! The charts over time, each with the table of its numbers.

use serde::Serialize;

use super::{
    chart::{Chart, time_label},
    model::grouped,
};
use crate::{
    course::{Column, Point, Timeline},
    output::words,
};

/// Processes with a colour of their own.
const COLOURS: usize = 8;
/// Rows of a table next to a chart, at most: it says what the chart shows, not every point.
const ROWS: usize = 30;

/// A chart, what its colours mean, and the same as a table.
#[derive(Debug)]
pub(super) struct OverTime {
    /// SVG
    pub(super) drawing: String,
    /// Class and name of each series
    pub(super) legend: Vec<(String, String)>,
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// The numbers of the charts, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Data {
    /// Seconds since the session began
    seconds: Vec<f64>,
    /// Timewait sockets by series
    time_wait: Vec<(String, Vec<f64>)>,
    /// Per second, since the point before
    per_second: Vec<(String, Vec<f64>)>,
    /// Timewait sockets that sock_diag listed: seconds since the session began, and how many
    counted: Vec<(f64, f64)>,
}

/// Seconds since the session began, of each point.
pub(super) fn times(timeline: &Timeline, started: u64) -> Vec<f64> {
    timeline.points().iter().map(|point| seconds(point.at.0, started)).collect()
}

fn seconds(at: u64, started: u64) -> f64 {
    (at.saturating_sub(started) / 1_000_000) as f64 / 1_000.0
}

/// TIME_WAIT by process.
pub(super) fn time_wait(timeline: &Timeline, times: &[f64], started: u64) -> OverTime {
    let points = timeline.points();
    let mut columns: Vec<&Column> = timeline.columns().iter().filter(|column| column.peak > 0).collect();
    // Stable: who came first stays first.
    columns.sort_by_key(|column| std::cmp::Reverse(column.sum()));
    let (own, rest) = columns.split_at(columns.len().min(COLOURS));
    let values = |of: &dyn Fn(usize) -> u64| (0..points.len()).map(|point| of(point) as f64).collect::<Vec<f64>>();
    let mut series: Vec<(String, String, Vec<f64>)> = Vec::new();
    for (number, column) in own.iter().enumerate() {
        let name =
            column.key.map_or_else(|| words::NO_PROCESS.to_owned(), |key| format!("{}[{}]", column.comm, key.tgid));
        series.push((format!("s{number}"), name, values(&|point| column.at(point))));
    }
    let others = |point: usize| rest.iter().map(|column| column.at(point)).sum::<u64>() + timeline.others().at(point);
    if !rest.is_empty() || timeline.others().peak > 0 {
        series.push(("other".to_owned(), "other processes".to_owned(), values(&others)));
    }
    if points.iter().any(|point| point.unattributed > 0) {
        let values = points.iter().map(|point| point.unattributed as f64).collect();
        series.push(("unowned".to_owned(), "no owner known".to_owned(), values));
    }
    let dots: Vec<_> = timeline.counted().iter().map(|(at, count)| (seconds(at.0, started), *count as f64)).collect();
    let most = (0..points.len()).map(|point| series.iter().filter_map(|(.., values)| values.get(point)).sum::<f64>());
    let most = most.fold(0.0, f64::max);
    let label = format!(
        "Stacked areas: timewait sockets by process over {:.1} seconds, at most {}. A table with the numbers follows.",
        times.last().copied().unwrap_or_default(),
        grouped(most as u64)
    );
    over_time(Plan { label, height: 280.0, times, is_stacked: true, series, dots, decimals: 0 })
}

/// How much happened, per second.
pub(super) fn rates(timeline: &Timeline, times: &[f64]) -> Vec<(&'static str, OverTime)> {
    /// Class of the style sheet, name, and what is counted
    type Line = (&'static str, &'static str, fn(&Point) -> u64);
    let groups: [(&'static str, &[Line]); 3] = [
        (
            "Connections per second",
            &[("s0", "ended", |point| point.ended), ("s2", "entered TIME_WAIT", |point| point.entered)],
        ),
        (
            "Failures per second",
            &[("s1", "refused or failed calls", |point| point.failed), ("s6", "cut off by RST", |point| point.reset)],
        ),
        ("Events per second", &[("s4", "records of the kernel", |point| point.received)]),
    ];
    groups
        .into_iter()
        .map(|(title, counts)| {
            let series: Vec<_> = counts
                .iter()
                .map(|(class, name, of)| ((*class).to_owned(), (*name).to_owned(), per_second(timeline, times, of)))
                .collect();
            let names: Vec<_> = counts.iter().map(|(_, name, _)| *name).collect();
            let label = format!("Lines: {title}, {}. A table with the numbers follows.", names.join(" and "));
            let plan = Plan { label, height: 130.0, times, is_stacked: false, series, dots: Vec::new(), decimals: 1 };
            (title, over_time(plan))
        })
        .collect()
}

/// The numbers of the charts.
pub(super) fn data(timeline: &Timeline, times: &[f64], started: u64) -> Data {
    let of = |name: &str, count: fn(&Point) -> u64| (name.to_owned(), per_second(timeline, times, &count));
    let points = timeline.points().len();
    let mut columns: Vec<&Column> = timeline.columns().iter().filter(|column| column.peak > 0).collect();
    columns.sort_by_key(|column| std::cmp::Reverse(column.sum()));
    let name = |column: &Column| column.key.map_or_else(String::new, |key| format!("{}[{}]", column.comm, key.tgid));
    let column = |it: &&Column| (name(it), (0..points).map(|point| it.at(point) as f64).collect());
    Data {
        seconds: times.to_vec(),
        time_wait: columns.iter().take(COLOURS).map(column).collect(),
        per_second: vec![
            of("ended", |point| point.ended),
            of("entered TIME_WAIT", |point| point.entered),
            of("refused or failed calls", |point| point.failed),
            of("cut off by RST", |point| point.reset),
            of("records of the kernel", |point| point.received),
        ],
        counted: timeline.counted().iter().map(|(at, count)| (seconds(at.0, started), *count as f64)).collect(),
    }
}

fn per_second(timeline: &Timeline, times: &[f64], of: &dyn Fn(&Point) -> u64) -> Vec<f64> {
    let mut before = (0.0, 0);
    let points = timeline.points().iter().zip(times);
    points
        .map(|(point, time)| {
            let now = of(point);
            let passed = time - before.0;
            let more = now.saturating_sub(before.1) as f64;
            before = (*time, now);
            // To a tenth: what a count over a second is good for.
            if passed > 0.0 { (more * 10.0 / passed).round() / 10.0 } else { 0.0 }
        })
        .collect()
}

/// What is to be drawn.
struct Plan<'a> {
    label: String,
    height: f64,
    times: &'a [f64],
    is_stacked: bool,
    /// Class, name, values
    series: Vec<(String, String, Vec<f64>)>,
    dots: Vec<(f64, f64)>,
    decimals: usize,
}

fn over_time(plan: Plan<'_>) -> OverTime {
    let Plan { label, height, times, is_stacked, series, dots, decimals } = plan;
    let number = |value: f64| if decimals == 0 { grouped(value as u64) } else { format!("{value:.decimals$}") };
    let every = times.len().div_ceil(ROWS).max(1);
    let last = times.len().saturating_sub(1);
    let is_shown = |point: &usize| point.is_multiple_of(every) && point + every / 2 < last || *point == last;
    let end = times.last().copied().unwrap_or_default();
    let step = if end < 10.0 { 0.1 } else { 1.0 };
    let rows = (0..times.len()).filter(is_shown).map(|point| {
        let time = times.get(point).copied().unwrap_or_default();
        let values = series.iter().map(|(.., values)| number(values.get(point).copied().unwrap_or_default()));
        let total: f64 = series.iter().filter_map(|(.., values)| values.get(point)).sum();
        let total = is_stacked.then(|| number(total));
        std::iter::once(time_label(time, step)).chain(values).chain(total).collect()
    });
    let rows = rows.collect();
    let names = series.iter().map(|(_, name, _)| name.clone());
    let headings =
        std::iter::once("time".to_owned()).chain(names).chain(is_stacked.then(|| "all".to_owned())).collect();
    let legend = series.iter().map(|(class, name, _)| (class.clone(), name.clone())).collect();
    let series = series.into_iter().map(|(class, _, values)| (class, values)).collect();
    let drawing = Chart { label, height, times, is_stacked, series, dots }.draw();
    OverTime { drawing, legend, headings, rows }
}
