//! Reports of windows, as the daemon would hand them to the history.

use firstfin::{
    model::Name,
    report::{Destination, Direction, ProcessInfo, ProcessTimeWait, Report},
};

/// A window of ten seconds in which nothing happened.
pub(crate) fn quiet() -> Report {
    serde_json::from_str(include_str!("quiet.json")).expect("a report")
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
