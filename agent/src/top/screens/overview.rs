//! TIME_WAIT by process, the kernel's limit, what is wrong.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Cell, Paragraph, RenderDirection, Row as TableRow, Sparkline, Table, TableState, Wrap},
};

use super::{
    super::{
        app::App,
        model::{Model, Row},
        series::SAMPLE,
        sort::ProcessColumn,
    },
    Palette, cut, nothing, rate,
};
use crate::{
    output::words,
    report::{NetnsTimeWait, Report, Severity},
};

/// Lines of the summary, of the worst finding, and of the chart below.
const SUMMARY: u16 = 5;
const WORST: u16 = 2;
const CHART: u16 = 2;
/// Columns of the labels.
const LABEL: u16 = 12;
/// Processes named as those who close first.
const NAMED: usize = 2;
/// Columns of a process's name, and of a number.
const NAME: u16 = 23;
const NUMBER: u16 = 11;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let heights = [SUMMARY, WORST, 1, CHART].map(Constraint::Length);
    let [summary, worst, title, chart, list] =
        Layout::vertical(heights.into_iter().chain([Constraint::Fill(1)])).areas(area);
    let model = app.shown();
    let label =
        |text: &'static str| Span::styled(format!("{text:<width$}", width = usize::from(LABEL)), palette.label());
    let lines: Vec<_> = [
        ("TIME_WAIT", vec![Span::raw(time_wait(model))]),
        ("limit", vec![limit(model.report(), palette)]),
        ("close first", vec![Span::raw(closers(model))]),
        ("seen", vec![seen(model, palette)]),
        ("findings", verdict(model.report(), palette)),
    ]
    .into_iter()
    .map(|(name, text)| Line::from([vec![label(name)], text].concat()))
    .collect();
    frame.render_widget(Paragraph::new(lines), summary);
    let [name, text] = Layout::horizontal([Constraint::Length(LABEL), Constraint::Fill(1)]).areas(worst);
    frame.render_widget(label("worst"), name);
    frame.render_widget(Paragraph::new(self::worst(model.report())).wrap(Wrap { trim: true }), text);
    // Now is at the right edge.
    let trend = model.trend(usize::from(chart.width));
    let highest = trend.iter().copied().max().unwrap_or_default();
    let span = u64::from(chart.width) * SAMPLE.as_secs();
    let text = format!("TIME_WAIT over the last {}:{:02}, {highest} at the highest", span / 60, span % 60);
    frame.render_widget(Span::styled(text, palette.label()), title);
    let bars = Sparkline::default().data(trend.into_iter().rev()).direction(RenderDirection::RightToLeft);
    frame.render_widget(bars.style(palette.chart()), chart);
    processes(frame, list, app, palette);
}

fn time_wait(model: &Model) -> String {
    let (entered, left) = model.per_second();
    let mut text = format!("{} now; {} enter, {} leave", model.time_wait(), rate(entered), rate(left));
    if let Some(report) = model.report() {
        let all = &report.time_wait;
        if all.fin_wait2 > 0 {
            text.push_str(&format!("; {} FIN_WAIT2", all.fin_wait2));
        }
        if all.unattributed > 0 {
            text.push_str(&format!("; {} without an owner", all.unattributed));
        }
    }
    text
}

/// The namespace that is closest to the limit.
fn limit(report: Option<&Report>, palette: Palette) -> Span<'static> {
    let Some(report) = report else { return Span::raw("not known yet") };
    let share = |it: &NetnsTimeWait| {
        let limit = it.max_tw_buckets?;
        Some(if limit == 0 { 1.0 } else { it.kernel_total as f64 / limit as f64 })
    };
    let all = report.time_wait.namespaces.iter().filter_map(|it| Some((it, share(it)?)));
    let Some((it, share)) = all.max_by(|(_, a), (_, b)| a.total_cmp(b)) else {
        return Span::raw("tcp_max_tw_buckets could not be read");
    };
    let overflowed = match report.time_wait.overflowed {
        0 => String::new(),
        count => format!("; {count} closed without TIME_WAIT because of it"),
    };
    let buckets = it.max_tw_buckets.unwrap_or_default();
    Span::styled(
        format!(
            "{} of {buckets} tcp_max_tw_buckets ({:.1}%) in netns {}{overflowed}",
            it.kernel_total,
            share * 100.0,
            it.netns
        ),
        palette.share(share),
    )
}

fn closers(model: &Model) -> String {
    let all = model.all().closed_first;
    let mut rows: Vec<&Row> = model.rows().iter().filter(|row| row.flow.closed_first > 0).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.flow.closed_first), row.key));
    if rows.is_empty() {
        return "no process has closed a connection first yet".to_owned();
    }
    let names: Vec<_> = rows
        .iter()
        .take(NAMED)
        .map(|row| {
            let share = row.flow.closed_first as f64 / all.max(1) as f64 * 100.0;
            format!("{} {} ({share:.0}%)", words::process(&row.process), row.flow.closed_first)
        })
        .collect();
    let more = rows.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// How far all of this can be trusted.
fn seen(model: &Model, palette: Palette) -> Span<'static> {
    let age = model.age().map_or_else(
        || "sockets not looked at yet".to_owned(),
        |age| format!("sockets looked at {:.1} s ago", age.as_secs_f64()),
    );
    let events = words::count(model.events(), "event");
    let Some(report) = model.report() else { return Span::raw(format!("{events}; {age}")) };
    let it = &report.session.events;
    let lost: Vec<_> = [
        (it.lost, "lost"),
        (it.malformed, "not understood"),
        (it.sockets_not_followed, "sockets not followed"),
        (it.evicted, "dropped: a table is full"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let blind = match report.session.blind_spots.len() {
        0 => String::new(),
        count => format!("; {}", words::count(count as u64, "blind spot")),
    };
    if lost.is_empty() {
        Span::raw(format!("{events}, none lost{blind}; {age}"))
    } else {
        Span::styled(format!("INCOMPLETE: {events}, {}{blind}; {age}", lost.join(", ")), palette.warning())
    }
}

fn verdict(report: Option<&Report>, palette: Palette) -> Vec<Span<'static>> {
    let Some(report) = report else { return vec![Span::raw("not known yet")] };
    let mut spans = Vec::new();
    for severity in [Severity::Critical, Severity::Warning, Severity::Info] {
        let count = report.findings.iter().filter(|it| it.severity == severity).count();
        if count > 0 {
            spans.push(Span::styled(format!("{count} {}  ", words::severity(severity)), palette.severity(severity)));
        }
    }
    if spans.is_empty() { vec![Span::raw("none")] } else { spans }
}

fn worst(report: Option<&Report>) -> String {
    let worst = report.and_then(|report| report.findings.first());
    worst.map_or_else(|| "-".to_owned(), |it| format!("{}: {}", it.id, it.summary))
}

fn processes(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let rows = app.processes();
    if rows.is_empty() {
        return nothing(frame, area, app, "no connection has entered TIME_WAIT yet");
    }
    // What the other columns and the gaps between them leave, a third of it for the trend.
    let left = usize::from(area.width.saturating_sub(NAME + 3 * NUMBER + 5));
    let (place, trend) = (left - left / 3, left / 3);
    let sort = app.processes_by();
    let title = |column, name: &str| {
        if sort.by == column { format!("{name} {}", sort.mark()) } else { name.to_owned() }
    };
    let header = TableRow::new([
        Cell::from(title(ProcessColumn::Name, "process")),
        right(title(ProcessColumn::TimeWait, "TIME_WAIT"), NUMBER),
        right(title(ProcessColumn::Rate, "enter"), NUMBER),
        right(title(ProcessColumn::ClosedFirst, "1st FIN"), NUMBER),
        Cell::from("where"),
        Cell::from("trend"),
    ])
    .style(palette.header());
    let body = rows.iter().map(|row| {
        TableRow::new([
            Cell::from(words::process(&row.process)),
            right(row.sockets.to_string(), NUMBER),
            right(rate(row.per_second), NUMBER),
            right(row.flow.closed_first.to_string(), NUMBER),
            Cell::from(cut(&words::place(&row.process, false), place)),
            Cell::from(Span::styled(
                format!("{:>trend$}", sparks(&app.shown().trend_of(row.key, trend))),
                palette.chart(),
            )),
        ])
    });
    let widths = [NAME, NUMBER, NUMBER, NUMBER].map(Constraint::Length);
    let widths =
        widths.into_iter().chain([Constraint::Fill(1), Constraint::Length(u16::try_from(trend).unwrap_or(NUMBER))]);
    let table = Table::new(body, widths).header(header).row_highlight_style(palette.selected());
    let mut state = TableState::new().with_selected(app.process_at());
    frame.render_stateful_widget(table, area, &mut state);
}

/// A number at the right edge of its column.
fn right(text: impl std::fmt::Display, width: u16) -> Cell<'static> {
    Cell::from(format!("{text:>width$}", width = usize::from(width)))
}

/// The samples as characters, the highest of them full.
fn sparks(samples: &[u64]) -> String {
    let highest = samples.iter().copied().max().unwrap_or_default().max(1);
    let spark = |&sample: &u64| {
        if sample == 0 {
            return ' ';
        }
        let step = u128::from(sample) * (SPARKS.len() as u128 - 1) / u128::from(highest);
        usize::try_from(step).ok().and_then(|step| SPARKS.get(step)).copied().unwrap_or('█')
    };
    samples.iter().map(spark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparks_rise_to_the_highest() {
        assert_eq!(sparks(&[0, 1, 50, 100]), " ▁▄█");
        assert_eq!(sparks(&[]), "");
        assert_eq!(sparks(&[0, 0]), "  ");
        assert_eq!(sparks(&[u64::MAX, 1]), "█▁");
    }
}
