//! Ephemeral ports that run short: towards whom, who uses them, until when they last. Nothing where there are plenty.

use super::{
    Context,
    layout::{Column, Page, Row},
    time_wait::percent,
};
use crate::{
    output::words,
    report::{HolderKind, NetnsPorts, PoisonedBy, PortForecast, PortOutcome, PortUse, PortUser, Report},
};

/// Below a tenth of the ports in use there is nothing to say.
const ONE_IN: u64 = 10;
/// Three processes say who it is; the JSON form has more.
const PROCESSES: usize = 3;

pub(super) fn render(page: &mut Page, report: &Report, context: Context) {
    let busy: Vec<_> = report.ports.destinations.iter().filter(|it| is_worth_a_line(it)).collect();
    let short: Vec<_> = report.ports.namespaces.iter().filter(|it| is_poisoned(it)).collect();
    if busy.is_empty() && short.is_empty() {
        return;
    }
    page.section("Ephemeral ports", "");
    if !busy.is_empty() {
        let columns = [
            Column::text("destination"),
            Column::number("used"),
            Column::number("usable"),
            Column::number("live"),
            Column::number("TIME_WAIT"),
            Column::number("per s"),
            Column::text("forecast"),
        ];
        page.table(&columns, busy.iter().take(context.top).map(|it| row(it, context)).collect());
        if let Some(more) = context.more(busy.len(), 0) {
            page.paragraph(&more);
        }
    }
    for it in short.iter().take(context.top) {
        poisoned(page, it, context);
    }
}

fn is_worth_a_line(it: &PortUse) -> bool {
    let lasts = it.forecast.is_none_or(|forecast| forecast.outcome == PortOutcome::LevelsOff);
    it.peak_used > 0 && it.peak_used.saturating_mul(ONE_IN) >= it.usable || !lasts
}

pub(in crate::output) fn is_poisoned(it: &NetnsPorts) -> bool {
    let poisoned = it.poisoned.unwrap_or_default();
    poisoned > 0 && poisoned.saturating_mul(ONE_IN) >= poisoned + it.usable.unwrap_or_default()
}

fn row(it: &PortUse, context: Context) -> Row {
    let cells = vec![
        format!("{} -> {}", it.local, it.remote),
        it.used.to_string(),
        it.usable.to_string(),
        it.live.to_string(),
        it.time_wait.to_string(),
        it.rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1}", rate.time_wait_per_s)),
        it.forecast.map_or_else(|| "-".to_owned(), |it| forecast(&it)),
    ];
    let mut below: Vec<_> = it.processes.iter().take(PROCESSES).map(user).collect();
    let hidden = it.processes.len().saturating_sub(PROCESSES) as u64 + it.processes_omitted;
    if hidden > 0 {
        below.push(format!("and {hidden} more"));
    }
    let mut below = vec![below.join(", ")];
    let mut notes = Vec::new();
    if it.reusable > 0 {
        notes.push(format!("{} in TIME_WAIT could be taken over (tcp_tw_reuse)", it.reusable));
    }
    if it.peak_used > it.used {
        notes.push(format!("{} in use at the worst", it.peak_used));
    }
    if it.second_choice > 0 {
        let all = it.live + it.time_wait;
        notes.push(format!("{} of the half tried second ({})", it.second_choice, percent(it.second_choice, all)));
    }
    if context.with_netns {
        notes.push(format!("netns {}", it.netns));
    }
    below.push(notes.join(", "));
    below.retain(|line| !line.is_empty());
    Row { cells, below }
}

pub(in crate::output) fn user(it: &PortUser) -> String {
    let name = words::process_or_unknown(it.process.as_ref());
    match (it.live, it.time_wait) {
        (live, 0) => format!("{name} ({live} live)"),
        (0, time_wait) => format!("{name} ({time_wait} TIME_WAIT)"),
        (live, time_wait) => format!("{name} ({live} live, {time_wait} TIME_WAIT)"),
    }
}

pub(in crate::output) fn forecast(it: &PortForecast) -> String {
    let range = match (it.seconds_soonest, it.seconds_latest) {
        (Some(soonest), Some(latest)) => format!(" ({soonest:.0} to {latest:.0} s)"),
        (Some(soonest), None) => format!(" ({soonest:.0} s or never)"),
        _ => String::new(),
    };
    match (it.outcome, it.seconds, it.level) {
        (PortOutcome::Exhausted, ..) => "none left".to_owned(),
        (_, Some(seconds), _) => format!("none left in {seconds:.0} s{range}"),
        (.., Some(level)) => format!("levels off at {level}"),
        _ => "-".to_owned(),
    }
}

fn poisoned(page: &mut Page, it: &NetnsPorts, context: Context) {
    let poisoned = it.poisoned.unwrap_or_default();
    let all = poisoned + it.usable.unwrap_or_default();
    let netns = if context.with_netns { format!("netns {}: ", it.netns) } else { String::new() };
    page.paragraph(&format!("{netns}{poisoned} of {all} ports are bound, and lost to every connect():"));
    for holder in it.poisoned_by.iter().take(context.top) {
        page.below(&self::holder(holder));
    }
}

pub(in crate::output) fn holder(it: &PoisonedBy) -> String {
    let kind = match it.kind {
        HolderKind::Listener => "listener",
        _ => "bound socket",
    };
    let name = words::process_or_unknown(it.process.as_ref());
    format!("{name}: {} of a {kind}, for example {}", words::count(it.ports, "port"), it.example)
}
