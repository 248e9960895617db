//! Ephemeral ports by destination: a gauge, how long they last, who uses them.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span, Text},
    widgets::{Paragraph, Row, Table, TableState},
};

use super::{
    super::{app::App, sort::share},
    Palette, nothing, rate,
};
use crate::{
    output::words,
    report::{PortForecast, PortOutcome, PortUse, Report},
};

/// Columns of a gauge.
const GAUGE: usize = 20;
/// Users named.
const USERS: usize = 3;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let [summary, list] = Layout::vertical([Constraint::Length(3), Constraint::Fill(1)]).areas(area);
    let sort = app.ports_by();
    let (name, mark) = (sort.by.name(), sort.mark());
    let age = app.shown().age().map_or_else(String::new, |age| format!(", as of {:.1} s ago", age.as_secs_f64()));
    let lines = vec![
        Line::from(vec![
            Span::styled("Ephemeral ports by destination", palette.title()),
            Span::raw(format!("{age}; sorted by {name} {mark}")),
        ]),
        Line::from(app.shown().report().map_or_else(String::new, bound)),
    ];
    frame.render_widget(Paragraph::new(lines), summary);
    let ports = app.ports();
    if ports.is_empty() {
        return nothing(frame, list, app, "no ephemeral port is in use");
    }
    let rows = ports.iter().map(|it| Row::new([text(it, palette)]).height(3));
    let table = Table::new(rows, [Constraint::Fill(1)]).row_highlight_style(palette.selected());
    let mut state = TableState::new().with_selected(app.port_at());
    frame.render_stateful_widget(table, list, &mut state);
}

/// What is lost to every connect().
fn bound(report: &Report) -> String {
    let most = report.ports.namespaces.iter().max_by_key(|it| it.poisoned);
    match most.and_then(|it| Some((it, it.poisoned.filter(|count| *count > 0)?))) {
        Some((it, count)) => format!("{count} ports of netns {} are bound, and lost to every connect()", it.netns),
        None => String::new(),
    }
}

fn text(it: &PortUse, palette: Palette) -> Text<'static> {
    let share = share(it);
    let filled = ((share * GAUGE as f64).ceil() as usize).min(GAUGE);
    let gauge = format!("{}{}", "█".repeat(filled), "░".repeat(GAUGE - filled));
    let lasts = it.forecast.map_or_else(|| "rate not known".to_owned(), |it| forecast(&it));
    Text::from(vec![
        Line::from(vec![
            Span::styled(format!("{} -> {}", it.local, it.remote), palette.title()),
            Span::raw(format!("  netns {}", it.netns)),
        ]),
        Line::from(vec![
            Span::raw("  "),
            Span::styled(gauge, palette.share(share)),
            Span::raw(format!(
                " {} of {} ({:.1}%), {}, {lasts}",
                it.used,
                it.usable,
                share * 100.0,
                rate(it.rate.map(|rate| rate.time_wait_per_s)),
            )),
        ]),
        Line::from(format!("  {}", users(it))),
    ])
}

/// When there is no port any more.
fn forecast(it: &PortForecast) -> String {
    match (it.outcome, it.seconds, it.level) {
        (PortOutcome::Exhausted, ..) => "NONE LEFT".to_owned(),
        (_, Some(seconds), _) => format!("NONE LEFT in {seconds:.0} s"),
        (.., Some(level)) => format!("levels off at {level}"),
        _ => "lasts".to_owned(),
    }
}

fn users(it: &PortUse) -> String {
    let mut names: Vec<_> = it
        .processes
        .iter()
        .take(USERS)
        .map(|user| {
            let name = words::process_or_unknown(user.process.as_ref());
            format!("{name} {} live {} TIME_WAIT", user.live, user.time_wait)
        })
        .collect();
    let more = it.processes.len().saturating_sub(USERS) as u64 + it.processes_omitted;
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}
