//! SharedPort and WildcardShadowed: different programs have the same port, at the same address or at one that covers it.

use std::net::SocketAddr;

use super::who_or_unknown;
use crate::report::{Finding, HolderKind, PortSharer, Report, Severity, SharedPort};

pub(super) const SHARED_ID: &str = "SharedPort";
pub(super) const SHADOWED_ID: &str = "WildcardShadowed";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    report.shared_ports.iter().flat_map(|shared| [same_address(shared), shadowed(shared)]).flatten().collect()
}

fn name(sharer: &PortSharer) -> String {
    who_or_unknown(sharer.process.as_ref())
}

fn is_another_program(a: &PortSharer, b: &PortSharer) -> bool {
    match (a.program(), b.program()) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    }
}

/// The first two that fit.
fn pair(shared: &SharedPort, fits: impl Fn(&PortSharer, &PortSharer) -> bool) -> Option<(&PortSharer, &PortSharer)> {
    let sharers = &shared.sharers;
    let pairs = sharers.iter().flat_map(|a| sharers.iter().map(move |b| (a, b)));
    pairs.into_iter().find(|(a, b)| is_another_program(a, b) && fits(a, b))
}

fn evidence(shared: &SharedPort) -> Vec<String> {
    let listed = shared.sharers.iter().map(|sharer| {
        let what = match sharer.kind {
            HolderKind::Listener => "listens at",
            _ => "is bound to",
        };
        let many = if sharer.sockets > 1 { format!(" with {} sockets", sharer.sockets) } else { String::new() };
        format!("{} {what} {}{many}", name(sharer), sharer.local)
    });
    listed.collect()
}

fn same_address(shared: &SharedPort) -> Option<Finding> {
    let (first, second) = pair(shared, |a, b| a.local == b.local)?;
    let both_listen = [first, second].iter().all(|sharer| sharer.kind == HolderKind::Listener);
    let (severity, cause) = if both_listen {
        (
            Severity::Warning,
            "both have set SO_REUSEPORT, which is meant for workers of one service: the kernel deals new connections out \
             among all listeners, so each program gets a part of them",
        )
    } else {
        (
            Severity::Info,
            "SO_REUSEADDR or SO_REUSEPORT on both lets them be bound side by side; with SO_REUSEADDR alone the first one \
             to listen wins, and listen() of the other one fails with EADDRINUSE",
        )
    };
    Some(Finding {
        id: SHARED_ID.to_owned(),
        severity,
        summary: format!("{} and {} share {}", name(first), name(second), first.local),
        process: first.process.clone(),
        netns: Some(shared.netns),
        local: Some(first.local.clone()),
        cause: cause.to_owned(),
        evidence: evidence(shared),
        remedy: vec![
            "if it is not meant: stop the one that should not be there, or give it another port".to_owned(),
            "leave out SO_REUSEPORT where only one process is to serve: the second one then fails to start, and says so"
                .to_owned(),
        ],
        ..Finding::default()
    })
}

fn shadowed(shared: &SharedPort) -> Option<Finding> {
    let is_wildcard =
        |sharer: &PortSharer| sharer.local.parse::<SocketAddr>().is_ok_and(|local| local.ip().is_unspecified());
    let listens = |sharer: &PortSharer| sharer.kind == HolderKind::Listener;
    let (wide, certain) =
        pair(shared, |wide, certain| listens(wide) && listens(certain) && is_wildcard(wide) && !is_wildcard(certain))?;
    Some(Finding {
        id: SHADOWED_ID.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "connections to {} reach {}, not {}, which listens at {}",
            certain.local,
            name(certain),
            name(wide),
            wide.local
        ),
        process: wide.process.clone(),
        netns: Some(shared.netns),
        local: Some(certain.local.clone()),
        cause: "a listener at the address itself comes before one at the wildcard (inet_lookup_listener()); SO_REUSEPORT on \
                both allows the two"
            .to_owned(),
        evidence: evidence(shared),
        remedy: vec![
            "if it is not meant: stop the listener at the address, or give it another port".to_owned(),
            "let services that are to be reached at certain addresses only listen at those".to_owned(),
        ],
        ..Finding::default()
    })
}
