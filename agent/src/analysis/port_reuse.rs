//! ResetByPortReuse: a source port is used again while the other side, which closed first, has the earlier connection in
//! TIME_WAIT.

use std::net::SocketAddr;

use super::{counted, times, who, who_or_unknown};
use crate::report::{Direction, Finding, RejectedSyns, Report, Severity};

pub(super) const ID: &str = "ResetByPortReuse";

/// One for each side that is seen; where both are on this host, one for both.
pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let sent = report.rejected_syns.iter().filter(|syns| syns.direction == Direction::Outbound);
    let received = report.rejected_syns.iter().filter(|syns| syns.direction == Direction::Inbound);
    let alone = received.filter(|theirs| !report.rejected_syns.iter().any(|ours| is_of(ours, theirs)));
    sent.map(|syns| at_the_client(report, syns)).chain(alone.map(|syns| at_the_server(report, syns))).collect()
}

/// Whether SYNs that were sent are the ones that came.
fn is_of(sent: &RejectedSyns, received: &RejectedSyns) -> bool {
    sent.direction == Direction::Outbound && received.local.as_ref() == Some(&sent.remote)
}

fn name(syns: &RejectedSyns) -> String {
    who_or_unknown(syns.process.as_ref())
}

fn at_the_client(report: &Report, syns: &RejectedSyns) -> Finding {
    let RejectedSyns { remote, count, .. } = syns;
    let mut evidence = vec![format!(
        "connect() to {remote}: {} of {} answered for an earlier connection, reset, and sent again",
        counted(*count, "SYN", "SYNs"),
        name(syns),
    )];
    let seen_there = report.rejected_syns.iter().filter(|received| is_of(syns, received));
    evidence.extend(seen_there.map(|received| {
        format!(
            "the other side is on this host: {}, which closes first, got {} of them in TIME_WAIT",
            name(received),
            received.count
        )
    }));
    evidence.extend(waiting_there(report, remote));
    let summary = format!(
        "{} connects to {remote} from ports whose earlier connection the other side still has: {}",
        name(syns),
        times(*count)
    );
    finding(report, syns, summary, evidence)
}

fn at_the_server(report: &Report, syns: &RejectedSyns) -> Finding {
    let RejectedSyns { remote, count, .. } = syns;
    let local = syns.local.as_deref().unwrap_or("a port of this host");
    let evidence = vec![format!(
        "{} from {remote} to {local} came for connections that are in TIME_WAIT here and cannot make way for them",
        counted(*count, "SYN", "SYNs")
    )];
    let summary = format!(
        "{remote} connects to {local} from ports that {}, which closed first, still has in TIME_WAIT: {}",
        name(syns),
        times(*count)
    );
    finding(report, syns, summary, evidence)
}

fn finding(report: &Report, syns: &RejectedSyns, summary: String, mut evidence: Vec<String>) -> Finding {
    let timestamps = report.ports.namespace(syns.netns).and_then(|place| place.timestamps);
    evidence.extend(
        timestamps
            .map(|timestamps| format!("net.ipv4.tcp_timestamps is {timestamps} in network namespace {}", syns.netns)),
    );
    Finding {
        id: ID.to_owned(),
        severity: Severity::Warning,
        summary,
        process: syns.process.clone(),
        netns: Some(syns.netns),
        local: syns.local.clone(),
        remote: Some(remote(syns)),
        cause: CAUSE.to_owned(),
        evidence,
        remedy: remedy(timestamps == Some(0)),
        avoid: avoid(),
        ..Finding::default()
    }
}

/// The other side, without the port of a SYN that came: it is another one each time.
fn remote(syns: &RejectedSyns) -> String {
    match (syns.direction, syns.remote.parse::<SocketAddr>()) {
        (Direction::Inbound, Ok(from)) => from.ip().to_string(),
        _ => syns.remote.clone(),
    }
}

const CAUSE: &str = "as a rule the side that accepts closes first and has the TIME_WAIT; the side that connects has none, and may use \
                     the port again at once. A SYN whose sequence number is not beyond the old connection's and that has \
                     no newer timestamp could be an old one: it is answered for the old connection, the answer is reset, \
                     and the SYN is sent again: connect() takes longer, by a second on kernels that wait for their timer, and a \
                     proxy with a short timeout gives up (RFC 9293 3.10.7.3, RFC 6191)";

/// Whose the TIME_WAITs of the other side are, if it is on this host.
fn waiting_there<'a>(report: &'a Report, remote: &'a str) -> impl Iterator<Item = String> + 'a {
    report.time_wait.by_process.iter().filter_map(move |process| {
        let served = process.destinations.iter().filter(|it| it.local.as_deref() == Some(remote));
        let total: u64 = served.map(|destination| destination.sockets).sum();
        let sockets = counted(total, "socket", "sockets");
        (total > 0).then(|| format!("{} has {sockets} in TIME_WAIT at {remote}", who(&process.process)))
    })
}

fn remedy(without_timestamps: bool) -> Vec<String> {
    let on = "with TCP timestamps on both sides a SYN with a newer one takes the TIME_WAIT over at once";
    let timestamps = if without_timestamps {
        format!("net.ipv4.tcp_timestamps=1 here (0 now), and on the other node: {on}")
    } else {
        format!("net.ipv4.tcp_timestamps=1 on the other node, and nothing between that removes the option: {on}")
    };
    vec![
        "on the node that connects: close first (TIME_WAIT then stays there and the port is not chosen again), or keep the \
         connections open and use them again"
            .to_owned(),
        "on the node that accepts: let the other side close first (answer, then wait for its FIN)".to_owned(),
        timestamps,
        "on the node that connects: more source ports or addresses, so that one comes back after 60 s only; do not bind \
         source ports in a fixed order"
            .to_owned(),
    ]
}

fn avoid() -> Vec<String> {
    vec![
        "net.ipv4.tcp_rfc1337=1 on the node that accepts, because of this: the RST would not end the TIME_WAIT, and \
         connect() would fail for up to 60 s"
            .to_owned(),
        "SO_LINGER 0 or a small tcp_max_tw_buckets on the node that accepts, to have no TIME_WAIT: late segments of the old \
         connection then reach the new one"
            .to_owned(),
    ]
}
