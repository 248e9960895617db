//! EphemeralPortExhaustion: no local port left for a connect(), a bind() to port 0, or a listen() without bind(); and
//! ConnectTupleInUse, which looks the same to the process (EADDRNOTAVAIL) and is not.

use super::{
    bind_conflict::asks_for_any_port,
    ports::{self, holders, is_mostly_poisoned, limits, users},
    times, who, who_or_unknown,
};
use crate::{
    model::{Call, ConnectFailure, errno},
    report::{BindFailure, ConnectFailures, Direction, Finding, NetnsPorts, PortUse, Report, Severity},
};

pub(super) const ID: &str = "EphemeralPortExhaustion";
pub(super) const TUPLE_ID: &str = "ConnectTupleInUse";
const NO_TUPLE_LEFT: &str = "connect() wants a port that no connection from the same address to the same address and port \
                             has, one in TIME_WAIT included";
const NO_PORT_TO_BIND: &str = "bind() to port 0 wants a port that no other socket has at this address, towards whom it may \
                               be; connect() could share one among destinations";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let connects = report.connect_failures.iter().filter_map(|failure| match failure.cause {
        ConnectFailure::NoFreePort => Some(no_free_port(report, failure)),
        ConnectFailure::TupleInUse => Some(tuple_in_use(failure)),
        _ => None,
    });
    let binds = report
        .bind_failures
        .iter()
        .filter(|failure| failure.errno == errno::EADDRINUSE && asks_for_any_port(failure))
        .map(|failure| no_port_to_bind(report, failure));
    connects.chain(binds).collect()
}

fn no_free_port(report: &Report, failure: &ConnectFailures) -> Finding {
    let place = report.ports.namespace(failure.netns);
    let used = report.ports.towards(failure.netns, &failure.remote);
    let is_poisoned = place.is_some_and(is_mostly_poisoned);
    let mut evidence =
        vec![format!("connect() to {} failed {} with {}", failure.remote, times(failure.count), failure.error)];
    evidence.extend(place.and_then(limits));
    evidence.extend(ports::search(report));
    evidence.extend(used.map(in_use));
    evidence.extend(place.into_iter().flat_map(holders));
    match used {
        Some(used) => evidence.extend(users(used)),
        // Not among the destinations listed, or nothing is left of it by now.
        None => evidence.extend(left_in_time_wait(report, failure)),
    }
    let name = who_or_unknown(failure.process.as_ref());
    let remote = &failure.remote;
    let (remedy, avoid) = if is_poisoned { poisoned_remedy() } else { connect_remedy(place, used, remote) };
    Finding {
        id: ID.to_owned(),
        severity: Severity::Critical,
        summary: if is_poisoned {
            format!(
                "{name} cannot connect to {remote}: bound sockets have taken the ephemeral ports out{}",
                ports::by(place)
            )
        } else {
            format!("{name} cannot connect to {remote}: no ephemeral port is free towards it")
        },
        process: failure.process.clone(),
        netns: Some(failure.netns),
        remote: Some(failure.remote.clone()),
        cause: if is_poisoned { ports::PASSED_OVER.to_owned() } else { NO_TUPLE_LEFT.to_owned() },
        evidence,
        remedy,
        avoid,
        ..Finding::default()
    }
}

fn in_use(used: &PortUse) -> String {
    let reusable = match used.reusable {
        0 => String::new(),
        reusable => format!(" ({reusable} more could be taken over)"),
    };
    let peak = if used.peak_used > used.used {
        format!("; {} were when it was at its worst", used.peak_used)
    } else {
        String::new()
    };
    format!(
        "in use towards it at the end of the session: {} of {}, {} of them by live connections, {} in TIME_WAIT{reusable}\
         {peak}",
        used.used,
        used.usable,
        used.live,
        used.time_wait - used.reusable
    )
}

/// Processes that hold ports towards the same destination in TIME_WAIT.
fn left_in_time_wait<'a>(report: &'a Report, failure: &'a ConnectFailures) -> impl Iterator<Item = String> + 'a {
    report.time_wait.by_process.iter().filter(|process| process.process.netns == Some(failure.netns)).filter_map(
        |process| {
            let held = process.destinations.iter().find(|destination| {
                destination.direction == Some(Direction::Outbound) && destination.remote == failure.remote
            })?;
            Some(format!("{} holds {} of them in TIME_WAIT", who(&process.process), held.sockets))
        },
    )
}

/// What helps is what the ports are used for, and what the settings of this namespace allow.
fn connect_remedy(place: Option<&NetnsPorts>, used: Option<&PortUse>, remote: &str) -> (Vec<String>, Vec<String>) {
    let is_live = used.is_some_and(|used| used.live > used.time_wait);
    let mut remedy = vec![if is_live {
        "fewer connections at once: share them (a pool, several requests on one connection), and look for connections \
         that are never closed"
            .to_owned()
    } else {
        "keep connections open and use them again (keep-alive, a connection pool): each close costs a port for 60 s"
            .to_owned()
    }];
    if !is_live {
        remedy.push("or let the other side close first: TIME_WAIT then stays there".to_owned());
    }
    remedy.extend(ports::wider_range(place));
    remedy.push(
        "or more addresses: ports are counted for each local and remote address and remote port, so a second address on \
         either side doubles them"
            .to_owned(),
    );
    if is_live {
        return (remedy, vec!["tcp_tw_reuse: it is not TIME_WAIT that takes these ports".to_owned()]);
    }
    let (reuse, avoid) = ports::against_time_wait(place, remote);
    remedy.extend(reuse);
    (remedy, avoid)
}

fn poisoned_remedy() -> (Vec<String>, Vec<String>) {
    let remedy = vec![
        "let the holders bind to ports outside the range, or not bind at all: a socket that binds only to choose its \
         address should set IP_BIND_ADDRESS_NO_PORT before bind()"
            .to_owned(),
        "close sockets that are bound and not used; until then: a range they have not bound in \
         (net.ipv4.ip_local_port_range)"
            .to_owned(),
    ];
    (remedy, vec!["tcp_tw_reuse or keep-alive: it is not TIME_WAIT that takes these ports".to_owned()])
}

/// bind() to port 0, which wants a port that nobody has at its address, be it towards whom it may; or listen() without
/// bind(), which wants the same.
fn no_port_to_bind(report: &Report, failure: &BindFailure) -> Finding {
    let local = failure.local.as_deref().unwrap_or("an unknown address");
    let place = report.ports.namespace(failure.netns);
    let (call, what, cause) = match failure.call {
        Call::Bind => ("bind()", format!("cannot bind {local}"), NO_PORT_TO_BIND.to_owned()),
        Call::Listen => (
            "listen()",
            "cannot listen without bind()".to_owned(),
            format!("listen() on a socket without a port chooses one as bind() to port 0 does. {NO_PORT_TO_BIND}"),
        ),
    };
    let mut evidence = vec![format!("{call} to {local} failed {} with {}", times(failure.count), failure.error)];
    evidence.extend(place.and_then(limits));
    if let Some(taken) = place.and_then(|place| place.taken) {
        evidence.push(format!("ports of it that some socket has at the end of the session: {taken}"));
    }
    evidence.extend(place.into_iter().flat_map(holders));
    let wider = ports::wider_range(place);
    let remedy = match failure.call {
        Call::Bind => [
            "if it binds only to choose its address: IP_BIND_ADDRESS_NO_PORT before bind(). connect() then chooses the \
             port, which can be one that is used towards other destinations"
                .to_owned(),
        ],
        Call::Listen => ["bind() to a port outside the ephemeral range before listen()".to_owned()],
    };
    Finding {
        id: ID.to_owned(),
        severity: Severity::Critical,
        summary: format!("{} {what}: no ephemeral port is free", who(&failure.process)),
        process: Some(failure.process.clone()),
        netns: Some(failure.netns),
        local: failure.local.clone(),
        cause,
        evidence,
        remedy: remedy.into_iter().chain(wider).collect(),
        avoid: vec![
            "SO_REUSEADDR to make it fit: where the port is shared, connect() can fail instead, with the 4-tuple in use"
                .to_owned(),
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
            who_or_unknown(failure.process.as_ref()),
            failure.remote
        ),
        process: failure.process.clone(),
        netns: Some(failure.netns),
        remote: Some(failure.remote.clone()),
        cause: "the port was chosen by bind() before connect() told where to, and from that port a connection to the same \
                address and port exists, or is in TIME_WAIT and cannot be taken over (that takes TCP timestamps on both \
                sides). It is not that ports have run out: any other one would do"
            .to_owned(),
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
