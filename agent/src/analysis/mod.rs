//! Report -> findings. Pure: a finding is a function of what the report says, so whoever has the report can check it.

mod bind_conflict;
mod blind_spot;
mod close_wait;
mod events_lost;
mod hard_close;
mod leaving;
mod poisoned_ports;
mod port_exhaustion;
mod port_forecast;
mod port_reuse;
mod ports;
mod shared_ports;
mod thresholds;
mod time_wait_buildup;

use std::cmp::Reverse;

use crate::{
    model::Netns,
    report::{Destination, Direction, Finding, NetnsTimeWait, ProcessInfo, Report},
};

/// The `id` of every kind of finding; docs/findings.md has a section for each.
pub const IDS: [&str; 17] = [
    time_wait_buildup::ID,
    time_wait_buildup::OVERFLOW_ID,
    leaving::ASSASSINATION_ID,
    bind_conflict::ID,
    bind_conflict::STOLEN_ID,
    port_exhaustion::ID,
    port_forecast::ID,
    poisoned_ports::ID,
    port_exhaustion::TUPLE_ID,
    port_reuse::ID,
    leaving::FIN_WAIT2_ID,
    close_wait::ID,
    hard_close::ID,
    shared_ports::SHARED_ID,
    shared_ports::SHADOWED_ID,
    events_lost::ID,
    blind_spot::ID,
];

/// Everything that is wrong, worst first.
#[must_use]
pub fn findings(report: &Report) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(port_exhaustion::findings(report));
    findings.extend(port_forecast::findings(report));
    findings.extend(poisoned_ports::findings(report));
    findings.extend(bind_conflict::findings(report));
    findings.extend(time_wait_buildup::findings(report));
    findings.extend(leaving::findings(report));
    findings.extend(port_reuse::findings(report));
    findings.extend(close_wait::findings(report));
    findings.extend(shared_ports::findings(report));
    findings.extend(hard_close::findings(report));
    findings.extend(events_lost::findings(report));
    findings.extend(blind_spot::findings(report));
    for finding in &mut findings {
        debug_assert!(IDS.contains(&finding.id.as_str()), "{} is not among the findings there are", finding.id);
        finding.documentation = format!("docs/findings.md#{}", finding.id.to_lowercase());
    }
    // Stable: within a severity the order above stands.
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

/// `comm[pid]`, and the unit or container if there is one.
fn who(process: &ProcessInfo) -> String {
    let mut text = format!("{}[{}]", process.comm, process.pid);
    if let Some(container) = &process.container {
        text.push_str(&format!(" in container {}", container.short_name()));
        // A uid says nothing to people; it is among the facts.
        if let Some(pod) = container.pod_name().filter(|_| container.pod.is_some()) {
            text.push_str(&format!(" (pod {pod})"));
        }
    } else if let Some(unit) = &process.unit {
        text.push_str(&format!(" of {unit}"));
    }
    if process.exited {
        text.push_str(" (exited)");
    }
    text
}

fn who_or_unknown(process: Option<&ProcessInfo>) -> String {
    process.map_or_else(|| "a process that is not known".to_owned(), who)
}

/// The local and the remote end that a finding about a destination is about: towards whom a client connects, or what is
/// served. Neither who the clients of a service are nor the port of one says the same tomorrow.
fn place_of(destination: Option<&Destination>) -> (Option<String>, Option<String>) {
    match destination {
        Some(Destination { direction: Some(Direction::Outbound), remote, .. }) => (None, Some(remote.clone())),
        Some(Destination { direction: Some(Direction::Inbound), local, .. }) => (local.clone(), None),
        _ => (None, None),
    }
}

fn namespace(report: &Report, netns: Netns) -> Option<&NetnsTimeWait> {
    report.time_wait.namespaces.iter().find(|namespace| namespace.netns == netns)
}

/// `1 time`, `2 times`.
fn times(count: u64) -> String {
    counted(count, "time", "times")
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Container;

    #[test]
    fn who_names_the_container_and_a_pod_that_has_a_name() {
        let id = "4f3b2a1c9d8e7766554433221100ffeeddccbbaa99887766554433221100ffee";
        let container = Container { id: id.into(), pod_uid: Some("0e2d".into()), ..Container::default() };
        let process = |container| ProcessInfo {
            pid: 812,
            comm: "nginx".into(),
            container: Some(container),
            ..ProcessInfo::default()
        };
        assert_eq!(who(&process(container.clone())), "nginx[812] in container 4f3b2a1c9d8e");
        let named = Container {
            name: Some("web".into()),
            pod: Some("web-7d4b9".into()),
            namespace: Some("shop".into()),
            ..container
        };
        assert_eq!(who(&process(named)), "nginx[812] in container web (pod shop/web-7d4b9)");
    }
}
