//! EphemeralPortExhaustion: no local port left for a connect() or a bind(); and ConnectTupleInUse, which looks the same
//! to the process (EADDRNOTAVAIL) and is not.

use super::{bind_conflict::asks_for_any_port, namespace, times, who};
use crate::{
    model::{ConnectFailure, Netns},
    report::{BindFailure, ConnectFailures, Direction, Finding, ProcessInfo, Report, Severity},
};

const ID: &str = "EphemeralPortExhaustion";
const TUPLE_ID: &str = "ConnectTupleInUse";
const EADDRINUSE: u32 = 98;

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let connects = report.connect_failures.iter().filter_map(|failure| match failure.cause {
        ConnectFailure::NoFreePort => Some(no_free_port(report, failure)),
        ConnectFailure::TupleInUse => Some(tuple_in_use(failure)),
        _ => None,
    });
    let binds = report
        .bind_failures
        .iter()
        .filter(|failure| failure.errno == EADDRINUSE && asks_for_any_port(failure))
        .map(|failure| no_port_to_bind(report, failure));
    connects.chain(binds).collect()
}

fn no_free_port(report: &Report, failure: &ConnectFailures) -> Finding {
    let mut evidence =
        vec![format!("connect() to {} failed {} with {}", failure.remote, times(failure.count), failure.error)];
    evidence.extend(range(report, failure.netns));
    evidence.extend(users(report, failure));
    Finding {
        id: ID.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "{} cannot connect to {}: no ephemeral port is free towards it",
            name(failure.process.as_ref()),
            failure.remote
        ),
        process: failure.process.clone(),
        evidence,
        remedy: vec![
            "keep connections open and use them again (keep-alive, a connection pool)".to_owned(),
            "more ports: widen net.ipv4.ip_local_port_range; ports are counted for each destination, so a second address \
             on either side doubles them"
                .to_owned(),
            "if TIME_WAIT holds them: net.ipv4.tcp_tw_reuse=1 (both sides need TCP timestamps), or let the other side \
             close first"
                .to_owned(),
            "if sockets bound to a port without IP_BIND_ADDRESS_NO_PORT hold them, set that option: a bound port is lost \
             to every destination"
                .to_owned(),
        ],
        ..Finding::default()
    }
}

fn name(process: Option<&ProcessInfo>) -> String {
    process.map_or_else(|| "a process that is not known".to_owned(), who)
}

fn range(report: &Report, netns: Netns) -> Option<String> {
    let place = namespace(report, netns)?;
    let (first, last) = place.port_range?;
    Some(format!(
        "ip_local_port_range is {first} to {last}, {} of them usable",
        place.usable_ports.map_or_else(|| "?".to_owned(), |usable| usable.to_string())
    ))
}

/// Processes that hold ports towards the same destination in TIME_WAIT.
fn users<'a>(report: &'a Report, failure: &'a ConnectFailures) -> impl Iterator<Item = String> + 'a {
    report.time_wait.by_process.iter().filter(|process| process.process.netns == Some(failure.netns)).filter_map(
        |process| {
            let held = process.destinations.iter().find(|destination| {
                destination.direction == Some(Direction::Outbound) && destination.remote == failure.remote
            })?;
            Some(format!("{} holds {} of them in TIME_WAIT", who(&process.process), held.sockets))
        },
    )
}

fn no_port_to_bind(report: &Report, failure: &BindFailure) -> Finding {
    let local = failure.local.as_deref().unwrap_or("an unknown address");
    let mut evidence = vec![format!("bind() to {local} failed {} with {}", times(failure.count), failure.error)];
    evidence.extend(range(report, failure.netns));
    Finding {
        id: ID.to_owned(),
        severity: Severity::Critical,
        summary: format!("{} cannot bind {local}: no ephemeral port is free", who(&failure.process)),
        process: Some(failure.process.clone()),
        evidence,
        remedy: vec![
            "a socket that binds only to choose its address should set IP_BIND_ADDRESS_NO_PORT: the port is then chosen \
             by connect(), which can share it among destinations"
                .to_owned(),
            "or widen net.ipv4.ip_local_port_range".to_owned(),
        ],
        ..Finding::default()
    }
}

fn tuple_in_use(failure: &ConnectFailures) -> Finding {
    Finding {
        id: TUPLE_ID.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "{} cannot connect to {} from the port it bound: that connection exists already, or is in TIME_WAIT",
            name(failure.process.as_ref()),
            failure.remote
        ),
        process: failure.process.clone(),
        evidence: vec![format!(
            "connect() failed {} with {} although a local port was bound",
            times(failure.count),
            failure.error
        )],
        remedy: vec![
            "do not bind a fixed local port for outgoing connections; let connect() choose it".to_owned(),
            "if it must be fixed, TCP timestamps on both sides let connect() take over its own TIME_WAIT".to_owned(),
        ],
        ..Finding::default()
    }
}
