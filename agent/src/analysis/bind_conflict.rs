//! BindConflict: bind() or listen() refused because somebody has the port.

use super::{counted, times, who};
use crate::{
    model::Call,
    report::{BindFailure, Finding, Holder, HolderKind, Report, Severity},
};

const ID: &str = "BindConflict";
const EADDRINUSE: u32 = 98;

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    report
        .bind_failures
        .iter()
        .filter(|failure| failure.errno == EADDRINUSE && !asks_for_any_port(failure))
        .map(finding)
        .collect()
}

/// bind() to port 0, and listen() without bind(), ask for any port: being refused one is exhaustion.
pub(super) fn asks_for_any_port(failure: &BindFailure) -> bool {
    failure.local.as_ref().is_some_and(|local| local.ends_with(":0"))
}

fn finding(failure: &BindFailure) -> Finding {
    let call = match failure.call {
        Call::Bind => "bind()",
        Call::Listen => "listen()",
    };
    let local = failure.local.as_deref().unwrap_or("an address that could not be read");
    let mut evidence = vec![format!(
        "refused {} with {}, to {} of this name; SO_REUSEADDR {}, SO_REUSEPORT {}",
        times(failure.count),
        failure.error,
        counted(failure.processes, "process", "processes"),
        on_off(failure.options.reuse_address),
        on_off(failure.options.reuse_port),
    )];
    evidence.extend(failure.holders.iter().map(describe));
    evidence.extend(failure.holders_unknown.clone());
    Finding {
        id: ID.to_owned(),
        severity: Severity::Critical,
        summary: format!("{} cannot {call} {local}: {}", who(&failure.process), holder_summary(failure)),
        process: Some(failure.process.clone()),
        evidence,
        remedy: remedy(failure),
    }
}

const fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn holder_summary(failure: &BindFailure) -> String {
    let Some(holder) = failure.holders.first() else {
        return "who holds it is not known".to_owned();
    };
    let owner = holder.process.as_ref().map_or_else(|| "a process that is not known".to_owned(), who);
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
    text
}

fn remedy(failure: &BindFailure) -> Vec<String> {
    let port = failure.local.as_ref().and_then(|local| local.rsplit(':').next()).unwrap_or("?");
    match failure.holders.first().map(|holder| holder.kind) {
        Some(HolderKind::Listener | HolderKind::Bound) => vec![
            "stop the holder, or give one of the two another port".to_owned(),
            "if both are meant to share it: SO_REUSEPORT on both sockets before bind(), under the same user".to_owned(),
        ],
        Some(HolderKind::Connection) => vec![
            format!("keep port {port} out of the ephemeral range: net.ipv4.ip_local_reserved_ports={port}"),
            "the connection has to end first; it was given this port as its local one".to_owned(),
        ],
        Some(HolderKind::TimeWait | HolderKind::FinWait2) => vec![
            "set SO_REUSEADDR before bind(), here and in the process that had the port before: TIME_WAIT keeps the option \
             of the socket it came from"
                .to_owned(),
            "or wait until it expires".to_owned(),
        ],
        None => vec![format!("look for it in every network namespace: ss -Htanp 'sport = :{port}' and ss -HB")],
    }
}
