//! The tables: processes, destinations, minutes, routes and failures.

use super::{
    super::{
        Context,
        layout::{Column, Page, Row},
    },
    Times,
};
use crate::{
    history::{
        Answer, FailureSum,
        rollup::{FailureKind, Identity},
    },
    model::{ConnectFailure, Netns, errno},
    output::words,
    report::{Direction, ProcessInfo},
};

/// As the words for processes want it.
fn info(process: &Identity, pid: u32) -> ProcessInfo {
    ProcessInfo {
        pid,
        comm: process.comm.clone(),
        exe: process.exe.clone(),
        unit: process.unit.clone(),
        container: process.container.clone(),
        ..ProcessInfo::default()
    }
}

fn place(process: &Identity) -> Option<String> {
    Some(words::place(&info(process, 0), false)).filter(|place| !place.is_empty())
}

fn more(page: &mut Page, omitted: u64) {
    if omitted > 0 {
        page.paragraph(&format!("and {omitted} more"));
    }
}

pub(super) fn processes(page: &mut Page, answer: &Answer, times: &Times<'_>) {
    if answer.processes.is_empty() {
        return;
    }
    page.section("Processes", " by the most TIME_WAIT they had");
    let columns = [
        Column::text("process"),
        Column::number("most"),
        Column::text("at"),
        Column::number("entered"),
        Column::number("closed first"),
        Column::number("minutes"),
    ];
    let rows = answer.processes.iter().map(|it| {
        let mut below = Vec::new();
        let mut about: Vec<_> = place(&it.process).into_iter().collect();
        if it.processes > 1 {
            about.push(format!("up to {} processes side by side", it.processes));
        }
        if it.overflowed > 0 {
            about.push(format!("{} got no timewait socket", it.overflowed));
        }
        if !about.is_empty() {
            below.push(about.join(", "));
        }
        Row {
            cells: vec![
                words::process(&info(&it.process, it.pid)),
                it.peak.to_string(),
                times.minute(it.peak_at),
                it.entered.to_string(),
                it.closed_first.to_string(),
                it.minutes.to_string(),
            ],
            below,
        }
    });
    page.table(&columns, rows.collect());
    more(page, answer.processes_omitted);
    if let Some(others) = &answer.other_processes {
        page.paragraph(&format!(
            "others, which are not kept by name: at most {} in a minute, {} entered",
            others.peak, others.entered
        ));
    }
}

pub(super) fn destinations(page: &mut Page, answer: &Answer, times: &Times<'_>) {
    if answer.destinations.is_empty() {
        return;
    }
    page.section("Destinations", " by the most TIME_WAIT towards them");
    let columns = [
        Column::text("destination"),
        Column::number("most"),
        Column::text("at"),
        Column::number("minutes"),
        Column::text("process"),
    ];
    let rows = answer.destinations.iter().map(|it| {
        let destination = match (it.direction, &it.local) {
            (Some(Direction::Inbound), Some(local)) => format!("from {} at {local}", it.remote),
            (Some(Direction::Outbound), _) => format!("to {}", it.remote),
            _ => it.remote.clone(),
        };
        Row::from(vec![
            destination,
            it.peak.to_string(),
            times.minute(it.peak_at),
            it.minutes.to_string(),
            it.process.comm.to_string(),
        ])
    });
    page.table(&columns, rows.collect());
    more(page, answer.destinations_omitted);
    if answer.other_destinations > 0 {
        page.paragraph(&format!(
            "others, which are not kept by name: at most {} in a minute",
            answer.other_destinations
        ));
    }
}

pub(super) fn minutes(page: &mut Page, answer: &Answer, times: &Times<'_>) {
    if answer.minutes.is_empty() {
        return;
    }
    page.section("Minutes", " with the most TIME_WAIT");
    let columns = [
        Column::text("minute"),
        Column::number("most"),
        Column::number("entered"),
        Column::text("largest process"),
        Column::number("its"),
    ];
    let rows = answer.minutes.iter().map(|it| {
        let largest = it.largest.as_ref().map_or_else(|| "-".to_owned(), |largest| largest.comm.to_string());
        Row::from(vec![
            times.minute(it.at),
            it.sockets.to_string(),
            it.entered.to_string(),
            largest,
            it.largest_sockets.to_string(),
        ])
    });
    page.table(&columns, rows.collect());
    more(page, answer.minutes_omitted);
}

pub(super) fn routes(page: &mut Page, answer: &Answer, times: &Times<'_>, context: Context) {
    if answer.routes.is_empty() {
        return;
    }
    page.section("Ephemeral ports", " in use towards a destination, at most");
    let columns = [
        Column::text("from"),
        Column::text("to"),
        Column::number("most"),
        Column::number("usable"),
        Column::text("at"),
    ];
    let rows = answer.routes.iter().map(|it| Row {
        cells: vec![
            it.local.clone(),
            it.remote.clone(),
            it.peak.to_string(),
            it.usable.to_string(),
            times.minute(it.peak_at),
        ],
        below: netns(it.netns, context).into_iter().collect(),
    });
    page.table(&columns, rows.collect());
    more(page, answer.routes_omitted);
}

fn netns(netns: Netns, context: Context) -> Option<String> {
    context.with_netns.then(|| format!("netns {netns}"))
}

pub(super) fn failures(page: &mut Page, answer: &Answer, times: &Times<'_>, context: Context) {
    if answer.failures.is_empty() {
        return;
    }
    page.section("Failures", "");
    let columns = [
        Column::number("count"),
        Column::text("process"),
        Column::text("what"),
        Column::text("address"),
        Column::text("first"),
        Column::text("last"),
    ];
    let rows = answer.failures.iter().map(|it| {
        let process = it.process.as_ref().map(|process| info(process, it.pid));
        let about: Vec<_> = it.process.as_ref().and_then(place).into_iter().chain(netns(it.netns, context)).collect();
        Row {
            cells: vec![
                it.count.to_string(),
                words::process_or_unknown(process.as_ref()),
                what(it),
                it.address.clone().unwrap_or_else(|| "not known".to_owned()),
                times.minute(it.first),
                times.minute(it.last),
            ],
            below: if about.is_empty() { Vec::new() } else { vec![about.join(", ")] },
        }
    });
    page.table(&columns, rows.collect());
    more(page, answer.failures_omitted);
    if answer.other_failures > 0 {
        page.paragraph(&format!("others, which are not kept by name: {} times", answer.other_failures));
    }
}

fn what(failure: &FailureSum) -> String {
    let error = match failure.errno {
        0 => String::new(),
        number => format!(" ({})", errno::name(number)),
    };
    match failure.kind {
        FailureKind::Bind => format!("bind(){error}"),
        FailureKind::Listen => format!("listen(){error}"),
        FailureKind::Connect(ConnectFailure::HandshakeBroken) => {
            words::connect_failure(ConnectFailure::HandshakeBroken).to_owned()
        }
        FailureKind::Connect(cause) => format!("connect(): {}{error}", words::connect_failure(cause)),
        FailureKind::Reset(kind) => words::reset(kind).to_owned(),
    }
}
