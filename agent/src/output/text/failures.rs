//! Refused bind() and listen() with the holder of the port, failed connect() by cause, and resets.

use super::{
    Context,
    layout::{Column, Page, Row},
};
use crate::{
    model::Netns,
    output::words,
    report::{BindFailure, ConnectFailures, Holder, HolderKind, ProcessInfo, Report, Resets},
};

pub(super) fn render(page: &mut Page, report: &Report, context: Context) {
    bind_failures(page, &report.bind_failures, context);
    connect_failures(page, &report.connect_failures, context);
    resets(page, &report.resets, context);
    let absent: Vec<_> = [
        (report.bind_failures.is_empty(), "refused bind() or listen()"),
        (report.connect_failures.is_empty(), "failed connect()"),
        (report.resets.is_empty(), "resets"),
    ]
    .into_iter()
    .filter_map(|(is_absent, name)| is_absent.then_some(name))
    .collect();
    if !absent.is_empty() {
        page.section("None seen", &format!(": {}", absent.join(", ")));
    }
}

fn bind_failures(page: &mut Page, all: &[BindFailure], context: Context) {
    if all.is_empty() {
        return;
    }
    page.section("Refused bind() and listen()", "");
    for it in all.iter().take(context.top) {
        page.paragraph(&bind_failure(it));
        let mut details = below(Some(&it.process), it.netns, context);
        details.push(format!("options: {}", words::options(it.options)));
        page.below(&details.join(", "));
        for holder in it.holders.iter().take(context.top) {
            page.below(&format!("held by {}", self::holder(holder, context)));
        }
        if let Some(more) = context.more(it.holders.len(), it.holders_omitted) {
            page.below(&more);
        }
        if let Some(reason) = &it.holders_unknown {
            page.below(&format!("holder not known: {reason}"));
        }
    }
    if let Some(more) = context.more(all.len(), 0) {
        page.paragraph(&more);
    }
}

pub(in crate::output) fn bind_failure(it: &BindFailure) -> String {
    let local = it.local.as_deref().unwrap_or("an address that could not be read");
    let times = if it.count == 1 { "once".to_owned() } else { format!("{} times", it.count) };
    let process = words::process(&it.process);
    let by = if it.processes > 1 { format!(" by {} processes", it.processes) } else { String::new() };
    format!("{process}: {} to {local}: {}{}, {times}{by}", words::call(it.call), it.error, words::bind_error(it.errno))
}

pub(in crate::output) fn holder(it: &Holder, context: Context) -> String {
    let kind = words::holder(it.kind);
    let what = match &it.remote {
        Some(remote) => format!("{kind} {} -> {remote}", it.local),
        None => format!("{kind} {}", it.local),
    };
    let many = if it.sockets > 1 { format!(" and {} like it", it.sockets - 1) } else { String::new() };
    let is_timewait = matches!(it.kind, HolderKind::TimeWait | HolderKind::FinWait2);
    let owner = match &it.process {
        None => "owner unknown".to_owned(),
        Some(process) => {
            let place = words::place(process, context.with_netns);
            let place = if place.is_empty() { place } else { format!(" ({place})") };
            let left_by = if is_timewait { "left by " } else { "" };
            format!("{left_by}{}{place}", words::process(process))
        }
    };
    let left = it.seconds_left.map(|seconds| format!(", {seconds} s to go")).unwrap_or_default();
    format!("{what}{many}, {owner}{left}")
}

/// Where the process belongs, and in which namespace its socket is.
pub(in crate::output) fn below(process: Option<&ProcessInfo>, netns: Netns, context: Context) -> Vec<String> {
    // The namespace of the process and that of its socket may differ; the socket's is the one that counts.
    let place = process.map(|it| words::place(it, false)).filter(|place| !place.is_empty());
    let netns = context.with_netns.then(|| format!("netns {netns}"));
    let parts: Vec<_> = place.into_iter().chain(netns).collect();
    if parts.is_empty() { Vec::new() } else { vec![parts.join(", ")] }
}

fn connect_failures(page: &mut Page, all: &[ConnectFailures], context: Context) {
    if all.is_empty() {
        return;
    }
    page.section("Failed connect()", "");
    let columns = [Column::number("count"), Column::text("process"), Column::text("remote"), Column::text("cause")];
    let rows = all.iter().take(context.top).map(|it| Row {
        cells: vec![
            it.count.to_string(),
            words::process_or_unknown(it.process.as_ref()),
            it.remote.clone(),
            words::connect_cause(it),
        ],
        below: below(it.process.as_ref(), it.netns, context),
    });
    page.table(&columns, rows.collect());
    if let Some(more) = context.more(all.len(), 0) {
        page.paragraph(&more);
    }
}

fn resets(page: &mut Page, all: &[Resets], context: Context) {
    if all.is_empty() {
        return;
    }
    page.section("Resets", "");
    let columns = [Column::number("count"), Column::text("process"), Column::text("remote"), Column::text("how")];
    let rows = all.iter().take(context.top).map(|it| Row {
        cells: vec![
            it.count.to_string(),
            words::process_or_unknown(it.process.as_ref()),
            words::ends(&it.remote, it.local.as_deref()),
            words::reset(it.kind).to_owned(),
        ],
        below: below(it.process.as_ref(), it.netns, context),
    });
    page.table(&columns, rows.collect());
    if let Some(more) = context.more(all.len(), 0) {
        page.paragraph(&more);
    }
}
