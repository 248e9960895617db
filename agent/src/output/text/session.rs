//! How far the report can be trusted: what was observed by which means, what was lost, what could not be seen.

use super::{
    Context,
    layout::{Marks, Page},
    time_wait::percent,
};
use crate::{
    output::words,
    report::{Events, Hook, Report},
};

/// Width of `attributed`, the longest label.
const LABEL: u16 = 10;

pub(super) fn render(page: &mut Page, report: &Report, context: Context) {
    let session = &report.session;
    page.section("Session", "");
    page.list("events", LABEL, &events(&session.events), Marks::Dashes);
    page.labelled("attributed", LABEL, &attributed(report));
    let shared = shared_reasons(&session.hooks);
    page.list("observed", LABEL, &observed(&session.hooks, &shared), Marks::Dashes);
    let shared: Vec<_> = shared.into_iter().map(str::to_owned).collect();
    page.list("rungs", LABEL, &shared, Marks::Dashes);
    let mut blind_spots: Vec<_> = session.blind_spots.iter().take(context.top).cloned().collect();
    blind_spots.extend(context.more(session.blind_spots.len(), 0));
    page.list("not seen", LABEL, &blind_spots, Marks::Dashes);
}

/// A reason joins what is to be said with this.
const BETWEEN_REASONS: &str = "; ";

/// Why rungs were not taken (`no fentry: ...`), as far as it is the same for several things: said once for all of them.
pub(in crate::output) fn shared_reasons(hooks: &[Hook]) -> Vec<&str> {
    let all: Vec<_> = hooks.iter().flat_map(|hook| hook.reason.split(BETWEEN_REASONS)).collect();
    let mut shared = Vec::new();
    for reason in &all {
        let is_repeated = all.iter().filter(|other| *other == reason).count() > 1;
        if reason.starts_with("no ") && is_repeated && !shared.contains(reason) {
            shared.push(*reason);
        }
    }
    shared
}

/// What was observed by which means; things of which the same is to be said stand together.
pub(in crate::output) fn observed(hooks: &[Hook], shared: &[&str]) -> Vec<String> {
    let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
    for hook in hooks {
        let own: Vec<_> =
            hook.reason.split(BETWEEN_REASONS).filter(|it| !it.is_empty() && !shared.contains(it)).collect();
        let own = if own.is_empty() { String::new() } else { format!(" ({})", own.join(BETWEEN_REASONS)) };
        let how = format!("{}{own}", hook.rung);
        match groups.iter_mut().find(|(_, other)| *other == how) {
            Some((things, _)) => things.push(&hook.observes),
            None => groups.push((vec![&hook.observes], how)),
        }
    }
    groups.into_iter().map(|(things, how)| format!("{}: {how}", things.join(", "))).collect()
}

/// Nothing was lost, and everything could be looked at.
pub(in crate::output) fn is_complete(report: &Report) -> bool {
    let session = &report.session;
    let events = &session.events;
    events.lost == 0
        && events.malformed == 0
        && events.sockets_not_followed == 0
        && events.evicted == 0
        && session.blind_spots.is_empty()
        && session.hooks.iter().all(|hook| hook.rung != "none")
}

pub(in crate::output) fn events(events: &Events) -> Vec<String> {
    let kinds = &events.lost_by_kind;
    let lost: Vec<_> = [
        (kinds.transitions, "of connections"),
        (kinds.refused_calls, "of refused calls"),
        (kinds.processes, "of processes"),
        (kinds.skipped_programs, "skipped by the kernel"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, kind)| format!("{count} {kind}"))
    .collect();
    let mut lines = vec![match events.lost {
        0 => format!("{} received, none lost", events.received),
        lost_total => format!("{} received, {lost_total} lost: {}", events.received, lost.join(", ")),
    }];
    for (count, what) in [
        (events.malformed, "received but not understood"),
        (events.sockets_not_followed, "sockets not followed: the kernel's table was full, see --max-sockets"),
        (events.evicted, "entries dropped: a table of the agent was full"),
    ] {
        lines.extend((count > 0).then(|| format!("{count} {what}")));
    }
    lines
}

pub(in crate::output) fn attributed(report: &Report) -> String {
    let all = &report.time_wait;
    let known = all.total.saturating_sub(all.unattributed);
    match (all.total, all.unattributed) {
        (0, _) => "no timewait socket to attribute".to_owned(),
        (1, 0) => "the one timewait socket".to_owned(),
        (total, 0) => format!("all {}", words::count(total, "timewait socket")),
        (total, _) => format!("{known} of {} ({})", words::count(total, "timewait socket"), percent(known, total)),
    }
}
