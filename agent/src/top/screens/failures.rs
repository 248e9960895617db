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
    model::ConnectFailure,
    output::{text, words},
    report::{BindFailure, ConnectFailures, Finding, Resets},
};

/// Lines for more about the selected one.
const DETAILS: u16 = 8;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let [title, list, details] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(DETAILS)]).areas(area);
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
    if let Some(failure) = failures.get(app.failure_at()) {
        let lines = about(failure, app).into_iter().map(|(label, text)| {
            Line::from(vec![Span::styled(format!("{label:<6}"), palette.label()), Span::raw(text)])
        });
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: true }), details);
    }
}

/// What there is no room for in the list: where it is, who holds the port and why that is in the way, what to do.
fn about(failure: &Failure<'_>, app: &App) -> Vec<(&'static str, String)> {
    let mut about = Vec::new();
    if let Some(process) = failure.process() {
        about.push(("who", format!("{} {}", words::process(process), words::place(process, true))));
    }
    if let Failure::Bind(it) = failure {
        about.extend(it.holders.first().map(|holder| ("held", text::holder(holder))));
        about.extend(it.holders_unknown.clone().map(|why| ("held", why)));
        about.extend(it.refusal.as_ref().map(|refusal| ("why", refusal.explain())));
    }
    let report = app.shown().report();
    let finding = report.and_then(|report| report.findings.iter().find(|finding| is_about(finding, failure)));
    about.extend(finding.and_then(|finding| finding.remedy.first()).map(|remedy| ("fix", remedy.clone())));
    about
}

/// Whether a finding says what to do about it.
fn is_about(finding: &Finding, failure: &Failure<'_>) -> bool {
    let is_same = finding.process.as_ref().map(|it| it.pid) == failure.process().map(|it| it.pid);
    is_same
        && match failure {
            Failure::Bind(it) => finding.netns == Some(it.netns) && finding.local == it.local,
            Failure::Connect(it) => finding.netns == Some(it.netns) && finding.remote.as_ref() == Some(&it.remote),
            Failure::Reset(it) => finding.netns == Some(it.netns) && finding.remote.as_ref() == Some(&it.remote),
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
    let call = words::call(it.call);
    let local = it.local.as_deref().unwrap_or("an address that could not be read");
    let who = words::process(&it.process);
    let holder = match (it.holders.first(), &it.holders_unknown) {
        (Some(holder), _) => {
            let more = it.holders.len() as u64 - 1 + it.holders_omitted;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("        held by {}{more}", text::holder(holder))
        }
        (None, Some(why)) => format!("        holder not known: {why}"),
        (None, None) => format!("        {}", words::place(&it.process, true)),
    };
    vec![format!("{:>6}x {who}: {call} to {local}: {}{}", it.count, it.error, words::bind_error(it.errno)), holder]
}

fn connect(it: &ConnectFailures) -> String {
    let who = words::process_or_unknown(it.process.as_ref());
    // A handshake that broke off was begun by the other side.
    let call = if it.cause == ConnectFailure::HandshakeBroken { "connection from" } else { "connect() to" };
    format!("{:>6}x {who}: {call} {}: {}", it.count, it.remote, words::connect_cause(it))
}

fn reset(it: &Resets) -> String {
    let who = words::process_or_unknown(it.process.as_ref());
    let ends = words::ends(&it.remote, it.local.as_deref());
    format!("{:>6}x {who}: cut off, {ends}: {}", it.count, words::reset(it.kind))
}
