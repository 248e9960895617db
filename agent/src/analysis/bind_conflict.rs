//! BindConflict: bind() or listen() refused because somebody has the port; and PortStolen, where connect() was given the
//! port of a service as its own.

use super::{counted, namespace, times, who, who_or_unknown};
use crate::{
    model::{Asker, Call, errno},
    report::{BindFailure, Finding, Holder, HolderKind, Report, Severity},
    rules::Remedy,
};

pub(super) const ID: &str = "BindConflict";
pub(super) const STOLEN_ID: &str = "PortStolen";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    report
        .bind_failures
        .iter()
        .filter(|failure| failure.errno == errno::EADDRINUSE && !asks_for_any_port(failure))
        .map(|failure| finding(report, failure))
        .collect()
}

/// bind() to port 0, and listen() without bind(), ask for any port: being refused one is exhaustion.
pub(super) fn asks_for_any_port(failure: &BindFailure) -> bool {
    failure.local.as_ref().is_some_and(|local| local.ends_with(":0"))
}

fn finding(report: &Report, failure: &BindFailure) -> Finding {
    let call = match failure.call {
        Call::Bind => "bind()",
        Call::Listen => "listen()",
    };
    let local = failure.local.as_deref().unwrap_or("an address that could not be read");
    let asker = &failure.asker;
    let mut evidence = vec![format!(
        "refused {}{} with {}, to {} of this name; SO_REUSEADDR {}, SO_REUSEPORT {}{}{}",
        times(failure.count),
        how_fast(failure),
        failure.error,
        counted(failure.processes, "process", "processes"),
        on_off(failure.options.reuse_address),
        on_off(failure.options.reuse_port),
        asker.uid.map_or_else(String::new, |uid| format!(", user {uid}")),
        others_set(asker),
    )];
    if failure.processes >= CRASH_LOOP {
        evidence.push("each time by another process: it is started again and again, and fails".to_owned());
    }
    evidence.extend(failure.holders.iter().map(describe));
    evidence.extend(failure.holders_unknown.clone());
    Finding {
        id: if is_stolen(report, failure) { STOLEN_ID } else { ID }.to_owned(),
        severity: Severity::Critical,
        summary: format!("{} cannot {call} {local}: {}", who(&failure.process), holder_summary(failure)),
        process: Some(failure.process.clone()),
        netns: Some(failure.netns),
        local: failure.local.clone(),
        cause: cause(failure),
        evidence,
        remedy: remedy(failure),
        avoid: avoid(failure),
        ..Finding::default()
    }
}

/// As many processes of one name that fail alike are one that is started again and again.
const CRASH_LOOP: u64 = 3;

/// Within which time, and how many that is a minute; nothing for a single one.
fn how_fast(failure: &BindFailure) -> String {
    if failure.count < 2 || failure.over_s <= 0.0 {
        return String::new();
    }
    let per_minute = (failure.count - 1) as f64 / failure.over_s * 60.0;
    format!(" within {:.1} s ({per_minute:.0} a minute)", failure.over_s)
}

/// What else is set of what decides about a port.
fn others_set(asker: &Asker) -> String {
    let mut text = String::new();
    for (is_set, name) in [(asker.free_bind, "IP_FREEBIND"), (asker.bind_address_no_port, "IP_BIND_ADDRESS_NO_PORT")] {
        if is_set == Some(true) {
            text.push_str(&format!(", {name} on"));
        }
    }
    if let Some(device) = asker.device.filter(|&device| device != 0) {
        text.push_str(&format!(", bound to interface {device}"));
    }
    text
}

/// The holder is a connection, at a port that connect() gives away. A dump does not tell who began a connection: what the
/// service's own listener has accepted is told by the listener, or by the name of its process where the listener is gone.
fn is_stolen(report: &Report, failure: &BindFailure) -> bool {
    let port = |endpoint: &str| endpoint.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let range = namespace(report, failure.netns).and_then(|namespace| namespace.port_range);
    let Some((holder, (low, high))) = failure.holders.first().zip(range) else { return false };
    holder.kind == HolderKind::Connection
        && port(&holder.local).is_some_and(|port| (low..=high).contains(&port))
        && holder.process.as_ref().is_some_and(|process| process.comm != failure.process.comm)
        && !failure.holders.iter().any(|holder| holder.kind == HolderKind::Listener)
}

/// The kernel's rule, as far as it is known.
fn cause(failure: &BindFailure) -> String {
    match &failure.refusal {
        Some(refusal) => refusal.explain(),
        None if failure.holders.is_empty() => String::new(),
        None => "none of the sockets that have the port now is in the way: the one that was is gone".to_owned(),
    }
}

const fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn holder_summary(failure: &BindFailure) -> String {
    let Some(holder) = failure.holders.first() else {
        return "who holds it is not known".to_owned();
    };
    let owner = who_or_unknown(holder.process.as_ref());
    match holder.kind {
        HolderKind::Listener => format!("{owner} listens on {}", holder.local),
        HolderKind::Bound => format!("{owner} is bound to {}", holder.local),
        HolderKind::Connection => format!("{owner} uses {} for a connection", holder.local),
        HolderKind::TimeWait | HolderKind::FinWait2 => format!(
            "{owner} left it in {} for {} s more",
            if holder.kind == HolderKind::TimeWait { "TIME_WAIT" } else { "FIN_WAIT2" },
            holder.seconds_left.unwrap_or_default()
        ),
    }
}

fn describe(holder: &Holder) -> String {
    let owner = holder.process.as_ref().map_or_else(|| "owner unknown".to_owned(), who);
    let kind = match holder.kind {
        HolderKind::Listener => "listener",
        HolderKind::Bound => "bound socket",
        HolderKind::Connection => "connection",
        HolderKind::TimeWait => "TIME_WAIT",
        HolderKind::FinWait2 => "FIN_WAIT2 minisocket",
    };
    let mut text = format!("held by {owner}: {kind} {}", holder.local);
    if let Some(remote) = &holder.remote {
        text.push_str(&format!(" -> {remote}"));
    }
    if holder.sockets > 1 {
        text.push_str(&format!(" and {} more", holder.sockets - 1));
    }
    if let Some(seconds) = holder.seconds_left {
        text.push_str(&format!(", {seconds} s left"));
    }
    let options = [(holder.options.reuse_address, "SO_REUSEADDR"), (holder.options.reuse_port, "SO_REUSEPORT")];
    for (is_set, name) in options {
        text.push_str(&is_set.map_or_else(String::new, |is_set| format!(", {name} {}", on_off(is_set))));
    }
    if !holder.also_open_in.is_empty() {
        let others: Vec<_> = holder.also_open_in.iter().map(who).collect();
        text.push_str(&format!("; also open in {}", others.join(", ")));
    }
    text
}

fn remedy(failure: &BindFailure) -> Vec<String> {
    let port = failure.local.as_ref().and_then(|local| local.rsplit(':').next()).unwrap_or("?");
    let Some(holder) = failure.holders.first() else {
        return vec![format!("look for it in every network namespace: firstfin why {port}")];
    };
    let is_client = holder.kind == HolderKind::Connection;
    let mut steps: Vec<String> =
        failure.remedies.iter().filter_map(|remedy| step(*remedy, failure, holder, port)).collect();
    match holder.kind {
        HolderKind::Listener | HolderKind::Bound => {
            let owner = holder.process.as_ref().map_or_else(|| "the holder".to_owned(), who);
            steps.insert(0, format!("stop {owner}, if it is not meant to have the port"));
            if !holder.also_open_in.is_empty() {
                steps.insert(1, "and the others that have the same socket open: each of them keeps the port".to_owned());
            }
        }
        HolderKind::Connection => steps.insert(
            0,
            format!(
                "keep port {port} out of the ephemeral range, so that no client is given it: sysctl \
                 net.ipv4.ip_local_reserved_ports={port} (added to what is there); the connection itself has to end first"
            ),
        ),
        HolderKind::TimeWait | HolderKind::FinWait2 => {}
    }
    if steps.is_empty() && !is_client {
        steps.push("give one of the two another port".to_owned());
    }
    steps
}

/// A change after which the kernel's rule lets the call through.
fn step(remedy: Remedy, failure: &BindFailure, holder: &Holder, port: &str) -> Option<String> {
    let is_timewait = matches!(holder.kind, HolderKind::TimeWait | HolderKind::FinWait2);
    Some(match remedy {
        Remedy::ReuseAddress => "set SO_REUSEADDR before bind(): the holder has it already, so this is enough".to_owned(),
        Remedy::ReuseAddressOnBoth if is_timewait => {
            "set SO_REUSEADDR before bind(), and let every process that serves this port do so: TIME_WAIT keeps the option \
             of the socket it came from, so it helps from the next restart on"
                .to_owned()
        }
        Remedy::ReuseAddressOnBoth => "set SO_REUSEADDR on both sockets before bind()".to_owned(),
        Remedy::ReusePort => "set SO_REUSEPORT before bind(): the holder has it, for the same user".to_owned(),
        // For one that is gone it comes too late, and SO_REUSEADDR is the lesser change.
        Remedy::ReusePortOnBoth if is_timewait => return None,
        Remedy::ReusePortOnBoth => {
            "if both are meant to serve it: SO_REUSEPORT on both sockets before bind(), under the same user; the kernel \
             then deals connections out among them"
                .to_owned()
        }
        Remedy::TimeWaitEnds => {
            let left = holder.seconds_left.map_or_else(String::new, |left| format!(" ({left} s from the first refusal on)"));
            format!("or wait until the last of them is over{left}")
        }
        Remedy::OtherPort if failure.call == Call::Listen => return None,
        Remedy::OtherPort => format!("or give one of the two another port than {port}"),
    })
}

/// What looks like a way out and is none.
fn avoid(failure: &BindFailure) -> Vec<String> {
    match failure.holders.first().map(|holder| holder.kind) {
        Some(HolderKind::TimeWait | HolderKind::FinWait2) => vec![
            "SO_LINGER 0 on the server to get rid of TIME_WAIT: it cuts connections off and loses what was not sent yet"
                .to_owned(),
            "tcp_fin_timeout: TIME_WAIT lasts 60 s whatever it says".to_owned(),
        ],
        Some(HolderKind::Listener) if !failure.options.reuse_address => {
            vec!["SO_REUSEADDR: it does not let two sockets listen at one address and port".to_owned()]
        }
        _ => Vec::new(),
    }
}
