//! Reports of windows, as the daemon would hand them to the history.

use firstfin::{
    model::Name,
    report::{Destination, Direction, ProcessInfo, ProcessTimeWait, Report},
};
use serde_json::json;

/// A window of ten seconds in which nothing happened.
pub(crate) fn quiet() -> Report {
    serde_json::from_value(json!({
        "schema": "firstfin.report/1",
        "host": {"name": "web-1", "kernel": "6.18.44", "version": "0.1.0"},
        "session": {
            "started_at": "", "duration_s": 10.0, "interrupted": false, "hooks": [], "blind_spots": [],
            "events": {
                "received": 7, "lost": 0, "malformed": 0, "sockets_not_followed": 0, "evicted": 0,
                "lost_by_kind": {"transitions": 0, "refused_calls": 0, "processes": 0, "skipped_programs": 0},
            },
        },
        "time_wait": {
            "total": 0, "fin_wait2": 0, "kernel_total": 0, "unattributed": 0, "entered": 0, "overflowed": 0,
            "unattributed_reasons": {
                "before_session": 0, "closing_before_session": 0, "kernel_thread": 0, "event_lost": 0, "not_seen": 0,
            },
            "namespaces": [], "by_process": [], "processes_omitted": 0,
        },
        "bind_failures": [], "connect_failures": [], "resets": [], "findings": [],
    }))
    .expect("a report")
}

/// A process of a unit.
pub(crate) fn process(comm: &str, pid: u32, unit: &str) -> ProcessInfo {
    ProcessInfo {
        pid,
        comm: Name::from(comm),
        exe: Some(Name::from(format!("/usr/bin/{comm}").as_str())),
        unit: Some(Name::from(unit)),
        ..ProcessInfo::default()
    }
}

/// Adds timewait sockets of a process towards a destination.
pub(crate) fn add(report: &mut Report, process: ProcessInfo, sockets: u64, entered: u64, to: &str) {
    let destination = Destination { remote: to.to_owned(), local: None, direction: Some(Direction::Outbound), sockets };
    report.time_wait.total += sockets;
    report.time_wait.kernel_total += sockets;
    report.time_wait.entered += entered;
    report.time_wait.by_process.push(ProcessTimeWait {
        process,
        sockets,
        fin_wait2: 0,
        entered,
        entered_per_s: 0.0,
        closed_first: entered,
        overflowed: 0,
        became_time_wait: 0,
        left: [].into(),
        outbound: sockets,
        inbound: 0,
        destinations: vec![destination],
        destinations_omitted: 0,
    });
}
