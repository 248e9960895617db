//! TIME_WAIT by process, and by network namespace against the kernel's limits.

use super::{
    Context,
    layout::{Column, Page, Row},
};
use crate::{
    model::Leaving,
    output::words,
    report::{Destination, NetnsTimeWait, ProcessTimeWait, Report, TimeWait, UnattributedReasons},
};

pub(super) fn render(page: &mut Page, report: &Report, context: Context) {
    let all = &report.time_wait;
    page.section("TIME_WAIT", &format!(": {}", summary(all, report.session.duration_s)));
    if all.overflowed > 0 {
        page.paragraph(&format!(
            "{} closed without a timewait socket, because tcp_max_tw_buckets was reached (TCPTimeWaitOverflow).",
            words::count(all.overflowed, "connection"),
        ));
    }
    if !all.by_process.is_empty() || all.unattributed > 0 {
        page.gap();
        page.table(&COLUMNS, rows(all, context));
        if let Some(more) = context.more(all.by_process.len(), all.processes_omitted) {
            page.paragraph(&more);
        }
    }
    namespaces(page, &all.namespaces, context);
}

pub(in crate::output) fn summary(all: &TimeWait, duration_s: f64) -> String {
    let now = match (all.total, all.fin_wait2) {
        (0, _) => "no timewait sockets now".to_owned(),
        (total, 0) => format!("{} now", words::count(total, "timewait socket")),
        (total, fin_wait2) => format!("{} now, {fin_wait2} of them FIN_WAIT2", words::count(total, "timewait socket")),
    };
    let kernel = match all.kernel_total.cmp(&all.total) {
        std::cmp::Ordering::Equal => format!("the kernel counts {} too", all.kernel_total),
        std::cmp::Ordering::Greater => {
            format!("the kernel counts {}, which is {} more", all.kernel_total, all.kernel_total - all.total)
        }
        std::cmp::Ordering::Less => {
            format!("the kernel counts {}, which is {} fewer", all.kernel_total, all.total - all.kernel_total)
        }
    };
    format!("{now}; {kernel}; {} entered in {duration_s:.1} s", words::count(all.entered, "connection"))
}

const COLUMNS: [Column; 8] = [
    Column::text("process"),
    Column::number("now"),
    Column::number("FIN_WAIT2"),
    Column::number("entered"),
    Column::number("per s"),
    Column::number("closed first"),
    Column::number("out"),
    Column::number("in"),
];

fn rows(all: &TimeWait, context: Context) -> Vec<Row> {
    let mut rows: Vec<_> = all.by_process.iter().take(context.top).map(|it| row(it, context)).collect();
    if all.unattributed > 0 {
        let cells = vec!["no owner known".to_owned(), all.unattributed.to_string()];
        rows.push(Row { cells, below: reasons(&all.unattributed_reasons) });
    }
    rows
}

fn row(it: &ProcessTimeWait, context: Context) -> Row {
    let cells = vec![
        words::process(&it.process),
        it.sockets.to_string(),
        it.fin_wait2.to_string(),
        it.entered.to_string(),
        format!("{:.1}", it.entered_per_s),
        it.closed_first.to_string(),
        it.outbound.to_string(),
        it.inbound.to_string(),
    ];
    let place = words::place(&it.process, context.with_netns);
    let mut below: Vec<_> = Some(place).filter(|place| !place.is_empty()).into_iter().collect();
    below.extend(destinations(it));
    below.extend(turnover(it));
    Row { cells, below }
}

/// What became of those that entered and are not there now. Only reasons: that sockets are gone shows in the numbers.
pub(in crate::output) fn turnover(it: &ProcessTimeWait) -> Option<String> {
    let mut parts: Vec<String> =
        (it.overflowed > 0).then(|| format!("{} refused by tcp_max_tw_buckets", it.overflowed)).into_iter().collect();
    let seen = it.left.iter().filter(|(why, _)| **why != Leaving::Unseen);
    parts.extend(seen.map(|(why, count)| format!("{count} {}", words::leaving(*why))));
    (!parts.is_empty()).then(|| format!("left: {}", parts.join(", ")))
}

/// Three say where the mass goes; the JSON form has more.
const DESTINATIONS: usize = 3;

pub(in crate::output) fn destinations(it: &ProcessTimeWait) -> Option<String> {
    let shown: Vec<_> = it.destinations.iter().take(DESTINATIONS).map(destination).collect();
    if shown.is_empty() {
        return None;
    }
    let hidden = u64::try_from(it.destinations.len().saturating_sub(DESTINATIONS)).unwrap_or(u64::MAX);
    let hidden = hidden.saturating_add(it.destinations_omitted);
    let rest = if hidden > 0 { format!(", and {hidden} more") } else { String::new() };
    Some(format!("{}{rest}", shown.join(", ")))
}

fn destination(it: &Destination) -> String {
    format!("{} ({})", words::destination(it), it.sockets)
}

pub(in crate::output) fn reasons(reasons: &UnattributedReasons) -> Vec<String> {
    [
        (reasons.before_session, "there before the session began: the kernel keeps no owner"),
        (reasons.closing_before_session, "began to close before the session began"),
        (reasons.kernel_thread, "closed by a kernel thread"),
        (reasons.closed_under_observation, "closed while firstfin looked at the open files of their process"),
        (reasons.event_lost, "event lost, or socket not followed"),
        (reasons.not_seen, "no event seen, although none is known to be lost"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, reason)| format!("{count} {reason}"))
    .collect()
}

fn namespaces(page: &mut Page, all: &[NetnsTimeWait], context: Context) {
    let busy: Vec<_> = all.iter().filter(|it| it.total > 0 || it.kernel_total > 0 || it.overflowed > 0).collect();
    if busy.is_empty() {
        return;
    }
    let has_overflow = busy.iter().any(|it| it.overflowed > 0);
    let columns = [
        Column::number("netns"),
        Column::number("sockets"),
        Column::number("kernel"),
        Column::number("tcp_max_tw_buckets"),
        Column::text("ephemeral ports"),
        Column::number(if has_overflow { "overflowed" } else { "" }),
    ];
    let rows = busy.iter().take(context.top).map(|it| namespace(it, has_overflow)).collect();
    page.gap();
    page.table(&columns, rows);
    if let Some(more) = context.more(busy.len(), 0) {
        page.paragraph(&more);
    }
}

const UNKNOWN: &str = "unknown";

fn namespace(it: &NetnsTimeWait, has_overflow: bool) -> Row {
    let ports = match (it.port_range, it.usable_ports) {
        (Some((first, last)), Some(usable)) => format!("{first}-{last}, {usable} usable"),
        (Some((first, last)), None) => format!("{first}-{last}"),
        (None, _) => UNKNOWN.to_owned(),
    };
    Row::from(vec![
        it.netns.to_string(),
        it.total.to_string(),
        it.kernel_total.to_string(),
        it.max_tw_buckets
            .map_or_else(|| UNKNOWN.to_owned(), |limit| format!("{limit} ({} used)", percent(it.total, limit))),
        ports,
        if has_overflow { it.overflowed.to_string() } else { String::new() },
    ])
}

/// `12.5%`, rounded down, so that only all of it is 100%; `-` where there is no whole to be a part of.
pub(in crate::output) fn percent(part: u64, whole: u64) -> String {
    match part.saturating_mul(1000).checked_div(whole) {
        Some(permille) => format!("{}.{}%", permille / 10, permille % 10),
        None => "-".to_owned(),
    }
}
