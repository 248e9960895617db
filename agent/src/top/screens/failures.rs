//! What was refused: bind() and listen() with the holder of the port, connect() by cause; and what was cut off.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span, Text},
    widgets::{Paragraph, Row, Table, TableState, Wrap},
};

use super::{
    super::app::{App, Failure},
    Palette, nothing,
};
use crate::{
    model::Call,
    output::{text, words},
    report::{BindFailure, ConnectFailures, Refusal, Resets},
};

/// Lines for the reason of the selected one.
const REASON: u16 = 5;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let [title, list, reason] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(REASON)]).areas(area);
    let age = app.shown().age().map_or_else(String::new, |age| format!(", as of {:.1} s ago", age.as_secs_f64()));
    let failures = app.failures();
    let line = Line::from(vec![
        Span::styled("Refused and cut off", palette.title()),
        Span::raw(format!(" since the session began{age}: {}", words::count(failures.len() as u64, "kind"))),
    ]);
    frame.render_widget(Paragraph::new(line), title);
    if failures.is_empty() {
        return nothing(frame, list, app, "nothing was refused or cut off");
    }
    let rows = failures.iter().map(|failure| {
        let lines: Vec<Line<'_>> = lines(failure).into_iter().map(Line::from).collect();
        let height = u16::try_from(lines.len()).unwrap_or(1);
        Row::new([Text::from(lines)]).height(height)
    });
    let table = Table::new(rows, [Constraint::Fill(1)]).row_highlight_style(palette.selected());
    let mut state = TableState::new().with_selected(app.failure_at());
    frame.render_stateful_widget(table, list, &mut state);
    if let Some(Failure::Bind(it)) = failures.get(app.failure_at()) {
        let why = Paragraph::new(Line::from(vec![Span::styled("why  ", palette.label()), Span::raw(why(it))]));
        frame.render_widget(why.wrap(Wrap { trim: true }), reason);
    }
}

fn lines(failure: &Failure<'_>) -> Vec<String> {
    match failure {
        Failure::Bind(it) => bind(it),
        Failure::Connect(it) => vec![connect(it)],
        Failure::Reset(it) => vec![reset(it)],
    }
}

fn bind(it: &BindFailure) -> Vec<String> {
    let call = match it.call {
        Call::Bind => "bind()",
        Call::Listen => "listen()",
    };
    let local = it.local.as_deref().unwrap_or("an address that could not be read");
    let who = words::process(&it.process);
    let holder = match (it.holders.first(), &it.holders_unknown) {
        (Some(holder), _) => {
            let more = it.holders.len() as u64 - 1 + it.holders_omitted;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("    held by {}{more}", text::holder(holder))
        }
        (None, Some(why)) => format!("    holder not known: {why}"),
        (None, None) => format!("    {}", words::place(&it.process, true)),
    };
    vec![format!("{:>6}x {who}: {call} to {local}: {}{}", it.count, it.error, words::bind_error(it.errno)), holder]
}

/// The kernel's rule, and what would have let the call through.
fn why(it: &BindFailure) -> String {
    match &it.refusal {
        Some(Refusal { rule: Some(rule), .. }) => rule.explain().to_owned(),
        Some(Refusal { rule: None, unknown }) => {
            let unknown: Vec<_> = unknown.iter().map(|fact| fact.name()).collect();
            format!("not certain: of the holder it is not known: {}", unknown.join(", "))
        }
        None => "nobody that was found is in the way".to_owned(),
    }
}

fn connect(it: &ConnectFailures) -> String {
    let who = words::process_or_unknown(it.process.as_ref());
    let error = if it.error.is_empty() { String::new() } else { format!(" ({})", it.error) };
    format!("{:>6}x {who}: connect() to {}: {}{error}", it.count, it.remote, words::connect_failure(it.cause))
}

fn reset(it: &Resets) -> String {
    let who = words::process_or_unknown(it.process.as_ref());
    let at = it.local.as_ref().map_or_else(String::new, |local| format!(" at {local}"));
    format!("{:>6}x {who}: cut off, {}{at}: {}", it.count, it.remote, words::reset(it.kind))
}
