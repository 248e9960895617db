//! `firstfin what-if` as text: today and what-if side by side, then what it rests on.

use owo_colors::Style;

use super::layout::{Column, Marks, Page, Row};
use crate::{
    output::words::count,
    what_if::{Answer, Check, Difference, Exhaustion, Figures, Pair, Remedy},
};

/// Width of `not known`, the longest label.
const LABEL: u16 = 9;

/// The answer, for people.
#[must_use]
pub fn what_if(answer: &Answer, width: Option<u16>, colour: bool) -> String {
    let mut page = Page::new(width, colour);
    let recording = &answer.recording;
    page.styled(
        "What if",
        Style::new().bold(),
        &format!(
            ", played from a recording of {:.1} s from {}: {}, {} without a port",
            recording.duration_s,
            recording.started_at,
            count(recording.connections, "connection"),
            count(recording.connect_failures, "connect() call"),
        ),
    );
    page.list("change", LABEL, &answer.changes, Marks::Dashes);
    page.gap();
    figures(&mut page, &answer.today, answer.what_if.as_ref());
    if !answer.destinations.is_empty() {
        destinations(&mut page, answer);
    }
    if !answer.remedies.is_empty() {
        remedies(&mut page, &answer.remedies, &answer.today);
    }
    page.section("How far to trust it", "");
    page.labelled("model", LABEL, &check(&answer.check, recording.time_wait_s));
    page.list("caution", LABEL, &answer.cautions, Marks::Dashes);
    page.list("not known", LABEL, &answer.gaps, Marks::Dashes);
    page.into_text()
}

fn figures(page: &mut Page, today: &Figures, what_if: Option<&Figures>) {
    let mut columns = vec![Column::text(""), Column::number("today")];
    columns.extend(what_if.map(|_| Column::number("what-if")));
    columns.extend(what_if.map(|_| Column::text("")));
    let row = |name: &str, figure: &dyn Fn(&Figures) -> String, note: &str| {
        let mut cells = vec![name.to_owned(), figure(today)];
        if let Some(what_if) = what_if {
            cells.extend([figure(what_if), note.to_owned()]);
        }
        Row::from(cells)
    };
    let has = |figure: &dyn Fn(&Figures) -> u64| figure(today) + what_if.map_or(0, figure) > 0;
    let avoided = what_if.map_or_else(String::new, |what_if| avoided(today.connect_failures, what_if.connect_failures));
    let mut rows = vec![
        row("peak TIME_WAIT", &|it| it.peak_time_wait.to_string(), ""),
        row("connect() without a port", &|it| it.connect_failures.to_string(), &avoided),
        row("peak of the ports in use", &|it| format!("{:.1} %", it.peak_ports_percent), ""),
        row("time to exhaustion", &|it| exhaustion(&it.exhaustion), ""),
        row("connections made", &|it| it.connections.to_string(), ""),
        row("most at once", &|it| it.most_at_once.to_string(), "of a process to a destination"),
    ];
    if has(&|it| it.time_wait_taken_over) {
        rows.push(row("TIME_WAITs taken over", &|it| it.time_wait_taken_over.to_string(), ""));
    }
    if has(&|it| it.time_wait_refused) {
        rows.push(row("TIME_WAITs refused", &|it| it.time_wait_refused.to_string(), "tcp_max_tw_buckets"));
    }
    if has(&|it| it.requests_waited + it.requests_unserved) {
        rows.push(row("requests that waited", &|it| (it.requests_waited + it.requests_unserved).to_string(), ""));
        rows.push(row("longest wait", &|it| format!("{:.3} s", it.longest_wait_s), ""));
    }
    page.table(&columns, rows);
}

/// `37 avoided`, `12 more`; nothing if as many fail.
fn avoided(today: u64, what_if: u64) -> String {
    match (today.saturating_sub(what_if), what_if.saturating_sub(today)) {
        (0, 0) => String::new(),
        (0, more) => format!("{more} more"),
        (avoided, _) => format!("{avoided} avoided"),
    }
}

fn exhaustion(it: &Exhaustion) -> String {
    match (it.after_s, it.is_past, it.level) {
        (Some(after), true, _) => format!("{after:.1} s"),
        (Some(after), false, _) => format!("{after:.0} s, forecast"),
        (None, _, Some(level)) => format!("never, {level} in use"),
        (None, ..) => "none seen".to_owned(),
    }
}

fn destinations(page: &mut Page, answer: &Answer) {
    page.section("Ports by destination", ": peak used of usable");
    let with_netns =
        answer.destinations.iter().any(|it| Some(it.netns) != answer.destinations.first().map(|it| it.netns));
    let mut columns = vec![
        Column::text("destination"),
        Column::number("today"),
        Column::number("no port"),
        Column::text("exhausted after"),
    ];
    if answer.what_if.is_some() {
        columns.extend([Column::number("what-if"), Column::number("no port"), Column::text("exhausted after")]);
    }
    let rows = answer.destinations.iter().map(|it| destination(it, with_netns)).collect();
    page.table(&columns, rows);
    if answer.destinations_omitted > 0 {
        page.paragraph(&format!("and {} more", answer.destinations_omitted));
    }
}

fn destination(it: &Difference, with_netns: bool) -> Row {
    let netns = if with_netns { format!(" (netns {})", it.netns) } else { String::new() };
    let mut cells = vec![format!("{} -> {}{netns}", it.local, it.remote)];
    for figures in [Some(&it.today), it.what_if.as_ref()].into_iter().flatten() {
        cells.extend([
            format!("{} of {}", figures.peak_used, figures.usable),
            figures.connect_failures.to_string(),
            exhaustion(&figures.exhaustion),
        ]);
    }
    cells.into()
}

fn remedies(page: &mut Page, remedies: &[Remedy], today: &Figures) {
    page.section("Remedies", ", the one with the largest effect first");
    let columns = [
        Column::text("option"),
        Column::number("peak TIME_WAIT"),
        Column::number("without a port"),
        Column::number("peak ports"),
        Column::text("time to exhaustion"),
        Column::text(""),
    ];
    let row = |name: String, it: &Figures, note: String| {
        Row::from(vec![
            name,
            it.peak_time_wait.to_string(),
            it.connect_failures.to_string(),
            format!("{:.1} %", it.peak_ports_percent),
            exhaustion(&it.exhaustion),
            note,
        ])
    };
    let mut rows = vec![row("(today)".to_owned(), today, String::new())];
    rows.extend(remedies.iter().map(|it| {
        let note = [
            avoided(today.connect_failures, it.what_if.connect_failures),
            if it.is_unsafe { "unsafe: data may be lost".to_owned() } else { String::new() },
        ];
        let note: Vec<_> = note.into_iter().filter(|note| !note.is_empty()).collect();
        row(it.option.clone(), &it.what_if, note.join("; "))
    }));
    page.table(&columns, rows);
    page.paragraph("what each costs: `firstfin what-if` with that option");
}

/// Two counts, and by how much the second is off.
fn pair(what: &str, it: &Pair) -> String {
    format!("{what} {} recorded, {} in the model ({:.1} % off)", it.recorded, it.modelled, it.percent_off())
}

fn check(check: &Check, time_wait_s: f64) -> String {
    if check.looks == 0 {
        return "the recording never looked at the sockets: nothing to compare it with".to_owned();
    }
    format!(
        "without a change, at the {} of the recording: {}; {}; {}. TIME_WAIT lasts {time_wait_s:.1} s here",
        count(check.looks, "look"),
        pair("peak TIME_WAIT", &check.peak_time_wait),
        pair("ports of the busiest destination", &check.peak_used),
        pair("connect() calls without a port", &check.connect_failures),
    )
}
