//! CloseWaitLeak: a process has forgotten connections that the other side has closed.

use std::cmp::Reverse;

use super::{counted, thresholds, who_or_unknown};
use crate::{
    model::Netns,
    report::{CloseWait, Finding, ProcessInfo, Report, Severity},
};

pub(super) const ID: &str = "CloseWaitLeak";

/// One for each process.
pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let mut by_process: Vec<(Option<&ProcessInfo>, Vec<&CloseWait>)> = Vec::new();
    for group in &report.close_wait {
        let process = group.process.as_ref();
        match by_process.iter_mut().find(|(known, _)| *known == process) {
            Some((_, groups)) => groups.push(group),
            None => by_process.push((process, vec![group])),
        }
    }
    let mut found: Vec<(u64, Finding)> = by_process
        .into_iter()
        .filter_map(|(process, groups)| {
            let sockets = groups.iter().map(|group| group.sockets).sum();
            (sockets >= thresholds::CLOSE_WAIT).then(|| (sockets, finding(process, &groups, sockets)))
        })
        .collect();
    found.sort_by_key(|(sockets, _)| Reverse(*sockets));
    found.into_iter().map(|(_, finding)| finding).collect()
}

/// The namespace of all of them, if it is one.
fn one_netns(groups: &[&CloseWait]) -> Option<Netns> {
    let (first, rest) = groups.split_first()?;
    rest.iter().all(|group| group.netns == first.netns).then_some(first.netns)
}

fn finding(process: Option<&ProcessInfo>, groups: &[&CloseWait], sockets: u64) -> Finding {
    let name = who_or_unknown(process);
    let longest = groups.iter().map(|group| group.longest_s).fold(0.0, f64::max);
    let evidence = groups.iter().take(3).map(|group| {
        let place = match &group.local {
            Some(local) => format!("from {} to {local}", group.remote),
            None => format!("to {}", group.remote),
        };
        let connections = counted(group.sockets, "connection", "connections");
        format!("{connections} {place} in CLOSE_WAIT; nothing has come on the oldest for {:.0} s", group.longest_s)
    });
    // Who the clients of a service are changes; the service does not.
    let (local, remote) = match groups.first() {
        Some(CloseWait { local: Some(local), .. }) => (Some(local.clone()), None),
        top => (None, top.map(|top| top.remote.clone())),
    };
    Finding {
        id: ID.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "{name} does not close {} that the other side has closed, for {longest:.0} s or longer",
            counted(sockets, "connection", "connections"),
        ),
        process: process.cloned(),
        netns: one_netns(groups),
        local,
        remote,
        cause: "the other side has sent its FIN, and the kernel waits for this process to close(): there is no limit to that. \
                Each takes a file descriptor, memory and, outbound, a port; the other side waits in FIN_WAIT2 meanwhile"
            .to_owned(),
        evidence: evidence.collect(),
        remedy: vec![
            "in the program: read until recv() returns 0 (or EPOLLRDHUP is reported) and then close(); look at the paths of \
             errors and timeouts, and at connections that a pool keeps and nobody reads"
                .to_owned(),
            "until then a restart of the process closes them".to_owned(),
        ],
        avoid: vec![
            "tcp_fin_timeout and the keep-alive settings: they end no connection in CLOSE_WAIT whose other side still answers"
                .to_owned(),
        ],
        ..Finding::default()
    }
}
