//! What the page says, in the order in which it says it: a report and the course of its session, in words.

use super::diagram;
use crate::{
    course::{ClosedBy, Closings, Sides},
    model::{Call, Leaving},
    output::{
        text::{self, Context, failures, ports, time_wait},
        words,
    },
    report::{
        BindFailure, ConnectFailures, DurationBucket, Finding, NetnsTimeWait, PortUse, ProcessTimeWait, Report, Resets,
    },
};

/// Entries of a list on the page, at most: what a reader can use. The JSON form has all.
const LISTED: usize = 500;
/// Entries of a list that show without being asked for.
const SHOWN: usize = 20;

/// A list of which the first part shows and the rest is folded.
#[derive(Debug)]
pub(super) struct Rows<T> {
    pub(super) shown: Vec<T>,
    pub(super) folded: Vec<T>,
    /// How many more there are
    pub(super) omitted: u64,
}

impl<T> Rows<T> {
    fn of<'a, S: 'a>(all: impl IntoIterator<Item = &'a S>, omitted: u64, view: impl Fn(&'a S) -> T) -> Self {
        let all: Vec<&S> = all.into_iter().collect();
        let beyond = all.len().saturating_sub(LISTED) as u64;
        let mut shown: Vec<T> = all.into_iter().take(LISTED).map(view).collect();
        let folded = shown.split_off(shown.len().min(SHOWN));
        Self { shown, folded, omitted: omitted + beyond }
    }
}

/// A finding.
#[derive(Debug)]
pub(super) struct FindingView<'a> {
    pub(super) number: usize,
    pub(super) severity: &'static str,
    pub(super) finding: &'a Finding,
}

/// The findings, worst first.
pub(super) fn findings(report: &Report) -> Vec<FindingView<'_>> {
    let all = report.findings.iter();
    let views = (1..).zip(all).map(|(number, finding)| FindingView {
        number,
        severity: words::severity(finding.severity),
        finding,
    });
    views.collect()
}

/// A process with timewait sockets.
#[derive(Debug)]
pub(super) struct ProcessView {
    pub(super) name: String,
    pub(super) below: Vec<String>,
    pub(super) numbers: [String; 7],
}

/// Processes with timewait sockets.
pub(super) fn processes(report: &Report) -> Rows<ProcessView> {
    let context = context(report);
    let all = &report.time_wait;
    Rows::of(&all.by_process, all.processes_omitted, |it: &ProcessTimeWait| {
        let place = words::place(&it.process, context.with_netns);
        let below = [Some(place), time_wait::destinations(it), time_wait::turnover(it)].into_iter().flatten();
        ProcessView {
            name: words::process(&it.process),
            below: below.filter(|line| !line.is_empty()).collect(),
            numbers: [
                grouped(it.sockets),
                grouped(it.fin_wait2),
                grouped(it.entered),
                format!("{:.1}", it.entered_per_s),
                grouped(it.closed_first),
                grouped(it.outbound),
                grouped(it.inbound),
            ],
        }
    })
}

/// Why timewait sockets have no owner.
pub(super) fn unattributed(report: &Report) -> Vec<String> {
    time_wait::reasons(&report.time_wait.unattributed_reasons)
}

/// What became of timewait sockets that left.
pub(super) fn left(report: &Report) -> Vec<String> {
    let left = report.time_wait.left.iter();
    left.map(|(why, count): (&Leaving, &u64)| format!("{} {}", grouped(*count), words::leaving(*why))).collect()
}

/// A network namespace and its limits.
#[derive(Debug)]
pub(super) struct NamespaceView {
    pub(super) netns: String,
    pub(super) sockets: String,
    pub(super) kernel: String,
    pub(super) buckets: String,
    pub(super) ports: String,
    pub(super) overflowed: String,
}

/// Network namespaces in which there is anything.
pub(super) fn namespaces(report: &Report) -> Rows<NamespaceView> {
    let unknown = || "unknown".to_owned();
    let is_busy = |it: &&NetnsTimeWait| it.total > 0 || it.kernel_total > 0 || it.overflowed > 0;
    let busy: Vec<_> = report.time_wait.namespaces.iter().filter(is_busy).collect();
    Rows::of(busy, 0, |it: &NetnsTimeWait| NamespaceView {
        netns: it.netns.to_string(),
        sockets: grouped(it.total),
        kernel: grouped(it.kernel_total),
        buckets: it
            .max_tw_buckets
            .map_or_else(unknown, |limit| format!("{} ({} used)", grouped(limit), time_wait::percent(it.total, limit))),
        ports: match (it.port_range, it.usable_ports) {
            (Some((low, high)), Some(usable)) => format!("{low}\u{2013}{high}, {} usable", grouped(usable.into())),
            (Some((low, high)), None) => format!("{low}\u{2013}{high}"),
            (None, _) => unknown(),
        },
        overflowed: grouped(it.overflowed),
    })
}

/// Ports towards a destination.
#[derive(Debug)]
pub(super) struct PortsView {
    pub(super) route: String,
    pub(super) below: Vec<String>,
    /// Share in use, in percent of the gauge's width
    pub(super) live: String,
    pub(super) time_wait: String,
    /// How pressing: a class of the style sheet
    pub(super) level: &'static str,
    pub(super) used: String,
    pub(super) share: String,
    pub(super) peak: String,
    pub(super) rate: String,
    pub(super) forecast: String,
}

/// Destinations by the share of ports in use.
pub(super) fn destinations(report: &Report) -> Rows<PortsView> {
    let with_netns = context(report).with_netns;
    let all = &report.ports;
    Rows::of(&all.destinations, all.destinations_omitted, |it: &PortUse| {
        let whole = it.usable.max(1) as f64;
        let percent = |ports: u64| format!("{:.1}", (ports as f64 * 100.0 / whole).min(100.0));
        let level = match it.used.saturating_mul(10).checked_div(it.usable) {
            Some(0..5) => "low",
            Some(5..8) => "high",
            _ => "full",
        };
        let users: Vec<_> = it.processes.iter().take(5).map(ports::user).collect();
        let hidden = it.processes.len().saturating_sub(5) as u64 + it.processes_omitted;
        let mut below = vec![users.join(", ")];
        below.extend((hidden > 0).then(|| format!("and {hidden} more processes")));
        below.extend(
            (it.reusable > 0)
                .then(|| format!("{} in TIME_WAIT could be taken over (tcp_tw_reuse)", grouped(it.reusable))),
        );
        below.extend(with_netns.then(|| format!("netns {}", it.netns)));
        below.retain(|line| !line.is_empty());
        PortsView {
            route: format!("{} \u{2192} {}", it.local, it.remote),
            below,
            live: percent(it.live),
            time_wait: percent(it.live + it.time_wait - it.reusable.min(it.time_wait)),
            level,
            used: format!("{} of {}", grouped(it.used), grouped(it.usable)),
            share: time_wait::percent(it.used, it.usable),
            peak: grouped(it.peak_used),
            rate: it.rate.map_or_else(
                || "too few to tell".to_owned(),
                |rate| format!("{:.1} ({:.1} to {:.1})", rate.time_wait_per_s, rate.lowest_per_s, rate.highest_per_s),
            ),
            forecast: it.forecast.map_or_else(|| "none without a rate".to_owned(), |it| ports::forecast(&it)),
        }
    })
}

/// Ports that bound sockets take from everybody.
pub(super) fn poisoned(report: &Report) -> Vec<String> {
    let short = report.ports.namespaces.iter().filter(|it| ports::is_poisoned(it));
    short
        .map(|it| {
            let poisoned = it.poisoned.unwrap_or_default();
            let all = poisoned + it.usable.unwrap_or_default();
            let holders: Vec<_> = it.poisoned_by.iter().take(SHOWN).map(ports::holder).collect();
            format!(
                "netns {}: {poisoned} of {all} ports are bound, and lost to every connect(): {}",
                it.netns,
                holders.join("; ")
            )
        })
        .collect()
}

/// A refused bind() or listen().
#[derive(Debug)]
pub(super) struct RefusedView {
    pub(super) what: String,
    pub(super) details: Vec<String>,
    pub(super) holders: Vec<String>,
}

/// Refused calls with the holders of their ports.
pub(super) fn refused(report: &Report) -> Rows<RefusedView> {
    let context = context(report);
    Rows::of(&report.bind_failures, 0, |it: &BindFailure| {
        let mut details = failures::below(Some(&it.process), it.netns, context);
        details.push(format!("options: {}", words::options(it.options)));
        let asked_for_any = matches!(it.call, Call::Bind) && it.holders.is_empty() && it.holders_unknown.is_none();
        let mut holders: Vec<_> = it.holders.iter().map(|holder| failures::holder(holder, context)).collect();
        holders.extend((it.holders_omitted > 0).then(|| format!("and {} more", it.holders_omitted)));
        holders.extend(it.holders_unknown.as_ref().map(|why| format!("not known: {why}")));
        if asked_for_any {
            holders.push("nobody: it was not refused because somebody has the port".to_owned());
        }
        RefusedView { what: failures::bind_failure(it), details, holders }
    })
}

/// A row of failed connect(), or of resets.
#[derive(Debug)]
pub(super) struct CountView {
    pub(super) count: String,
    pub(super) process: String,
    pub(super) below: Vec<String>,
    pub(super) remote: String,
    pub(super) how: String,
}

/// Failed connect() by cause.
pub(super) fn connects(report: &Report) -> Rows<CountView> {
    let context = context(report);
    Rows::of(&report.connect_failures, 0, |it: &ConnectFailures| CountView {
        count: grouped(it.count),
        process: words::process_or_unknown(it.process.as_ref()),
        below: failures::below(it.process.as_ref(), it.netns, context),
        remote: it.remote.clone(),
        how: words::connect_cause(it),
    })
}

/// Connections that were cut off.
pub(super) fn resets(report: &Report) -> Rows<CountView> {
    let context = context(report);
    Rows::of(&report.resets, 0, |it: &Resets| CountView {
        count: grouped(it.count),
        process: words::process_or_unknown(it.process.as_ref()),
        below: failures::below(it.process.as_ref(), it.netns, context),
        remote: words::ends(&it.remote, it.local.as_deref()),
        how: words::reset(it.kind).to_owned(),
    })
}

/// What took a certain time.
#[derive(Debug)]
pub(super) struct BucketView {
    pub(super) range: String,
    pub(super) count: String,
    /// Width of the bar, in percent
    pub(super) bar: String,
}

/// A histogram, from the shortest time that occurred to the longest.
pub(super) fn histogram(buckets: &[DurationBucket]) -> Vec<BucketView> {
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
    let views = buckets.iter().map(|bucket| BucketView {
        range: match bucket.below_us {
            Some(1) => "below 1 \u{b5}s".to_owned(),
            Some(end) => format!("{} to {}", microseconds(end / 2), microseconds(end)),
            None => "more than 4 s".to_owned(),
        },
        count: grouped(bucket.count),
        bar: format!("{:.1}", bucket.count as f64 * 100.0 / most as f64),
    });
    views.collect()
}

/// Why there is no histogram of connect().
pub(super) const fn no_latency(is_timed: bool) -> &'static str {
    if is_timed {
        "No connection was opened here and established during the session"
    } else {
        "It was not timed: report --html, demo --html and record do that"
    }
}

/// Why there is no histogram of the search for a port.
pub(super) fn no_searches(report: &Report, is_observed: bool) -> String {
    if is_observed {
        return "connect() was not seen to look for a port during the session".to_owned();
    }
    let hook = report.session.hooks.iter().find(|hook| hook.observes == "connect() without a free port");
    match hook {
        Some(hook) => {
            format!(
                "It was not observed, because it takes fentry programs or kprobes; here: {} ({})",
                hook.rung, hook.reason
            )
        }
        None => "It was not observed, and the session does not say why".to_owned(),
    }
}

fn microseconds(us: u64) -> String {
    match us {
        0..1_024 => format!("{us} \u{b5}s"),
        1_024..1_048_576 => format!("{} ms", us / 1_024),
        _ => format!("{} s", us / 1_048_576),
    }
}

/// Who closed first, of a process.
#[derive(Debug)]
pub(super) struct SidesView {
    pub(super) name: String,
    pub(super) total: String,
    /// Number, and its share of the row in percent
    pub(super) cells: Vec<(String, String)>,
}

/// Who closed first, by process, and of all at the end.
pub(super) fn sides(closings: &Closings) -> (Rows<SidesView>, SidesView) {
    let name = |it: &ClosedBy| match &it.process {
        Some((pid, comm)) if it.exited => format!("{comm}[{pid}] (exited)"),
        Some((pid, comm)) => format!("{comm}[{pid}]"),
        None => words::NO_PROCESS.to_owned(),
    };
    let is_recorded = diagram::has_passive_closes(closings);
    let row = |name: String, sides: &Sides| {
        let whole = sides.total().max(1) as f64;
        let cell = |count: u64| (grouped(count), format!("{:.0}", count as f64 * 100.0 / whole));
        let mut cells: Vec<_> =
            [sides.here, sides.there, sides.both, sides.reset_here, sides.reset_there, sides.gave_up].map(cell).into();
        if !is_recorded && let Some(there) = cells.get_mut(1) {
            *there = ("not recorded".to_owned(), "0".to_owned());
        }
        SidesView { name, total: grouped(sides.total()), cells }
    };
    let all = Rows::of(&closings.ranking, 0, |it| row(name(it), &it.sides));
    (all, row("all".to_owned(), &closings.total))
}

/// What the table of who closed first does not say.
pub(super) fn sides_notes(closings: &Closings) -> Vec<String> {
    let mut notes = Vec::new();
    if !diagram::has_passive_closes(closings) {
        notes.push(format!(
            "This session kept only what a report needs: of connections that the other side closed first it is known that \
             {} opened here ended so, not whose they were, and nothing of those accepted here. `record`, and `report` and \
             `demo` with --html, keep every end.",
            grouped(closings.closed_by_peer)
        ));
    } else if closings.total.there == 0 {
        notes.push(
            "No connection that the other side closed first was recorded. A recording made by `report --record` or `demo \
             --record` without --html does not hold those that were accepted here."
                .to_owned(),
        );
    }
    if closings.beyond > 0 {
        notes.push(format!(
            "{} connections of processes beyond the first 4,096 are in the sum alone.",
            grouped(closings.beyond)
        ));
    }
    notes
}

/// What every part needs to know.
fn context(report: &Report) -> Context {
    Context { top: LISTED, with_netns: text::has_many_namespaces(report) }
}

/// `1,234,567`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (28_490, "28,490"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_long_list_shows_its_beginning_and_says_what_it_lacks() {
        let numbers: Vec<u32> = (0..600).collect();
        let rows = Rows::of(&numbers, 7, |number| *number);
        assert_eq!((rows.shown.len(), rows.folded.len(), rows.omitted), (20, 480, 107));
        assert_eq!(rows.folded.first(), Some(&20));
    }
}
