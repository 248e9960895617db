//! TimeWaitBuildup: a process that holds many ports, or much of the kernel's table, in TIME_WAIT; and
//! TimeWaitBucketOverflow, when that table was full.

use super::{counted, namespace, place_of, ports, thresholds, who};
use crate::report::{Destination, Direction, Finding, NetnsTimeWait, ProcessTimeWait, Report, Severity};

pub(super) const ID: &str = "TimeWaitBuildup";
pub(super) const OVERFLOW_ID: &str = "TimeWaitBucketOverflow";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        report.time_wait.by_process.iter().filter_map(|process| of_process(report, process)).collect();
    findings.extend(report.time_wait.namespaces.iter().filter_map(overflow));
    findings
}

fn of_process(report: &Report, process: &ProcessTimeWait) -> Option<Finding> {
    let held = process.sockets + process.fin_wait2;
    let place = process.process.netns.and_then(|netns| namespace(report, netns));
    let (ports, worst) = port_share(process, place);
    let buckets = place
        .and_then(|place| place.max_tw_buckets)
        .filter(|&limit| limit > 0)
        .map_or(0.0, |limit| held as f64 / limit as f64);
    let severity = if ports >= thresholds::PORTS_CRITICAL || buckets >= thresholds::BUCKETS_CRITICAL {
        Severity::Critical
    } else if ports >= thresholds::PORTS_WARNING || buckets >= thresholds::BUCKETS_WARNING {
        Severity::Warning
    } else if held >= thresholds::SOCKETS_INFO {
        Severity::Info
    } else {
        return None;
    };
    let is_client = process.outbound >= process.inbound;
    let top = worst.or_else(|| process.destinations.first());
    let mut evidence = vec![format!(
        "{} entered during the session ({}/s), {} closed by this process first; {} outbound, {} inbound",
        process.entered, process.entered_per_s, process.closed_first, process.outbound, process.inbound
    )];
    if let (Some(destination), Some(usable)) = (worst, place.and_then(|place| place.usable_ports)) {
        evidence.push(if ports > 1.0 {
            format!(
                "{} towards {}, more than the {usable} ephemeral ports usable now",
                destination.sockets, destination.remote
            )
        } else {
            format!(
                "{} of {usable} usable ephemeral ports towards {} ({:.0} %)",
                destination.sockets,
                destination.remote,
                ports * 100.0
            )
        });
    }
    if let Some(limit) = place.and_then(|place| place.max_tw_buckets) {
        evidence.push(format!("{held} of tcp_max_tw_buckets = {limit} ({:.1} %)", buckets * 100.0));
    }
    let (remedy, avoid) = if is_client { client_remedy(report, process) } else { (server_remedy(), Vec::new()) };
    let (local, remote) = place_of(top);
    Some(Finding {
        id: ID.to_owned(),
        severity,
        summary: format!(
            "{} holds {} in TIME_WAIT{}{}",
            who(&process.process),
            counted(held, "socket", "sockets"),
            top.map_or_else(String::new, |top| format!(", {}", towards(top))),
            if process.closed_first > 0 { ": it closes first" } else { "" },
        ),
        process: Some(process.process.clone()),
        netns: process.process.netns,
        local,
        remote,
        evidence,
        remedy,
        avoid,
        ..Finding::default()
    })
}

/// The largest share of usable ports that one outbound destination takes.
fn port_share<'a>(process: &'a ProcessTimeWait, place: Option<&NetnsTimeWait>) -> (f64, Option<&'a Destination>) {
    let Some(usable) = place.and_then(|place| place.usable_ports).filter(|&usable| usable > 0) else {
        return (0.0, None);
    };
    // Sorted by number, so the first outbound one is the largest.
    let worst = process.destinations.iter().find(|destination| destination.direction == Some(Direction::Outbound));
    worst.map_or((0.0, None), |worst| (worst.sockets as f64 / f64::from(usable), Some(worst)))
}

fn towards(destination: &Destination) -> String {
    match (destination.direction, &destination.local) {
        (Some(Direction::Inbound), Some(local)) => {
            format!("{} of them from {} to {local}", destination.sockets, destination.remote)
        }
        _ => format!("{} of them towards {}", destination.sockets, destination.remote),
    }
}

fn client_remedy(report: &Report, process: &ProcessTimeWait) -> (Vec<String>, Vec<String>) {
    let place = process.process.netns.and_then(|netns| report.ports.namespace(netns));
    let outbound = process.destinations.iter().find(|it| it.direction == Some(Direction::Outbound));
    let (reuse, avoid) = ports::against_time_wait(place, outbound.map_or("", |it| it.remote.as_str()));
    let mut steps = vec![
        "keep connections open and use them again (keep-alive, a connection pool): each close costs a port for 60 s"
            .to_owned(),
        "or let the other side close first: TIME_WAIT then stays there".to_owned(),
    ];
    steps.extend(ports::wider_range(place));
    steps.extend(reuse);
    (steps, avoid)
}

fn server_remedy() -> Vec<String> {
    vec![
        "inbound TIME_WAIT takes memory, not ephemeral ports: it is a problem only near tcp_max_tw_buckets".to_owned(),
        "to have less of it, let clients close first: allow keep-alive, and a longer idle time here than theirs"
            .to_owned(),
        "the listener needs SO_REUSEADDR, before and after a restart, to be started again while these last".to_owned(),
    ]
}

fn overflow(place: &NetnsTimeWait) -> Option<Finding> {
    if place.overflowed == 0 {
        return None;
    }
    let limit = place.max_tw_buckets.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
    Some(Finding {
        id: OVERFLOW_ID.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "network namespace {}: {} closed without TIME_WAIT because tcp_max_tw_buckets = {limit} was reached",
            place.netns,
            counted(place.overflowed, "connection was", "connections were")
        ),
        netns: Some(place.netns),
        evidence: vec![format!("TCPTimeWaitOverflow rose by {} during the session", place.overflowed)],
        remedy: vec![
            "raise net.ipv4.tcp_max_tw_buckets: a timewait socket takes less than 0.3 kB, a missing one its protection"
                .to_owned(),
            "then look at the processes with the most sockets in TIME_WAIT".to_owned(),
        ],
        ..Finding::default()
    })
}
