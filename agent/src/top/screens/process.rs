//! One process: where its connections go, who closes first, how old its TIME_WAITs are, what is wrong and what to do.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{
    super::{
        app::App,
        model::Row,
        snapshot::{AGE_STEP_S, AGES},
    },
    Palette, nothing, rate,
};
use crate::{
    model::Leaving,
    output::words,
    report::{Finding, ProcessTimeWait},
};

/// Columns of the longest bar.
const BAR: usize = 40;
/// Destinations listed.
const DESTINATIONS: usize = 6;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let Some(row) = app.chosen() else {
        return nothing(frame, area, app, "no connection has entered TIME_WAIT yet");
    };
    let reported = app.shown().reported(row);
    let mut lines = summary(row, reported, palette);
    lines.extend(ages(row, palette));
    lines.extend(destinations(reported, palette));
    let report = app.shown().report();
    let all = report.iter().flat_map(|report| &report.findings);
    let theirs: Vec<&Finding> = all.filter(|it| is_about(it, row)).collect();
    lines.push(Line::styled(format!("Findings about it: {}", theirs.len()), palette.title()));
    lines.extend(theirs.into_iter().flat_map(|it| finding(it, palette)));
    super::page(frame, area, app, lines);
}

fn is_about(finding: &Finding, row: &Row) -> bool {
    finding.process.as_ref().is_some_and(|it| it.pid == row.key.tgid && it.comm == row.process.comm)
}

fn summary(row: &Row, reported: Option<&ProcessTimeWait>, palette: Palette) -> Vec<Line<'static>> {
    let place = words::place(&row.process, true);
    let flow = row.flow;
    let mut lines = vec![
        Line::from(vec![
            Span::styled(words::process(&row.process), palette.title()),
            Span::raw(if place.is_empty() { place } else { format!("  {place}") }),
        ]),
        Line::from(format!("{} in TIME_WAIT now; {} entered, {} now", row.sockets, flow.entered, rate(row.per_second))),
        Line::from(format!(
            "sent the first FIN of {} connections: who closes first has the TIME_WAIT",
            flow.closed_first
        )),
    ];
    if let Some(it) = reported {
        let way = format!("of those at the last look: {} by connect() here, {} accepted here", it.outbound, it.inbound);
        let left = it.left.iter().map(|(why, count): (&Leaving, &u64)| format!("{count} {}", words::leaving(*why)));
        let left: Vec<_> = left.collect();
        lines.push(Line::from(way));
        if !left.is_empty() {
            lines.push(Line::from(format!("left: {}", left.join(", "))));
        }
        if it.overflowed > 0 {
            lines.push(Line::from(format!("{} got no timewait socket: tcp_max_tw_buckets was reached", it.overflowed)));
        }
    }
    lines
}

fn ages(row: &Row, palette: Palette) -> Vec<Line<'static>> {
    let held = row.held;
    let highest = held.ages.iter().copied().max().unwrap_or_default().max(1);
    let mut lines = vec![Line::styled("Age of its TIME_WAITs at the last look", palette.title())];
    for (step, count) in (0..AGES as u64).zip(held.ages) {
        let length = usize::try_from(count.saturating_mul(BAR as u64).div_ceil(highest)).unwrap_or(BAR);
        lines.push(Line::from(vec![
            Span::raw(format!("{:>3} to {:>2} s {count:>7} ", step * AGE_STEP_S, (step + 1) * AGE_STEP_S)),
            Span::styled("█".repeat(length), palette.chart()),
        ]));
    }
    if held.fin_wait2 > 0 {
        lines.push(Line::from(format!(" FIN_WAIT2 {:>8}, of an age that is not known", held.fin_wait2)));
    }
    lines
}

fn destinations(reported: Option<&ProcessTimeWait>, palette: Palette) -> Vec<Line<'static>> {
    let Some(it) = reported else { return Vec::new() };
    let mut lines = vec![Line::styled("Its connections", palette.title())];
    if it.destinations.is_empty() {
        lines.push(Line::from("  none in TIME_WAIT at the last look"));
    }
    lines.extend(
        it.destinations
            .iter()
            .take(DESTINATIONS)
            .map(|it| Line::from(format!("{:>7} {}", it.sockets, words::destination(it)))),
    );
    let more = it.destinations.len().saturating_sub(DESTINATIONS) as u64 + it.destinations_omitted;
    if more > 0 {
        lines.push(Line::from(format!("        and {more} more")));
    }
    lines
}

fn finding(it: &Finding, palette: Palette) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(vec![
        Span::styled(words::severity(it.severity).to_uppercase(), palette.severity(it.severity)),
        Span::raw(format!(" {}: {}", it.id, it.summary)),
    ])];
    let remedies = it.remedy.iter().zip(1..).map(|(remedy, number)| Line::from(format!("  {number}. {remedy}")));
    lines.extend(remedies);
    lines.extend(it.avoid.iter().map(|avoid| Line::from(format!("  not: {avoid}"))));
    lines
}
