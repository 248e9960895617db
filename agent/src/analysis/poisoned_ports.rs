//! PoisonedPorts: bound sockets take ephemeral ports out for everybody, without a single connection.

use super::{
    ports::{self, holders, limits, poisoned_share},
    thresholds,
};
use crate::report::{Finding, NetnsPorts, Report, Severity};

pub(super) const ID: &str = "PoisonedPorts";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    report.ports.namespaces.iter().filter_map(of_namespace).collect()
}

fn of_namespace(place: &NetnsPorts) -> Option<Finding> {
    let share = poisoned_share(place);
    let severity = if share >= thresholds::POISONED_CRITICAL {
        Severity::Critical
    } else if share >= thresholds::POISONED_WARNING {
        Severity::Warning
    } else {
        return None;
    };
    let (poisoned, usable) = (place.poisoned?, place.usable?);
    let mut evidence: Vec<String> = limits(place).into_iter().collect();
    evidence.extend(holders(place));
    let process = place.poisoned_by.first().and_then(|holder| holder.process.clone());
    Some(Finding {
        id: ID.to_owned(),
        severity,
        summary: format!(
            "network namespace {}: {poisoned} of {} ephemeral ports are lost to every connect(), because a socket is bound \
             to them{}",
            place.netns,
            poisoned + usable,
            ports::by(Some(place))
        ),
        process,
        netns: Some(place.netns),
        cause: ports::PASSED_OVER.to_owned(),
        evidence,
        remedy: vec![
            "a socket that binds only to choose its address should set IP_BIND_ADDRESS_NO_PORT before bind()".to_owned(),
            "close sockets that are bound and not used; let listeners have ports outside the range".to_owned(),
            "ports of services within the range belong into net.ipv4.ip_local_reserved_ports: nothing is gained by it for \
             connect(), but nobody else is given one"
                .to_owned(),
        ],
        avoid: vec!["another local address: a bound port is passed over whatever its address".to_owned()],
        ..Finding::default()
    })
}
