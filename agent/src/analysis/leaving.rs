//! What the ways in which timewait sockets leave say: FinWait2Leak (the peer does not close its end) and
//! TimeWaitAssassination (a RST ends TIME_WAIT before its time, RFC 1337).

use super::{counted, place_of, thresholds, who};
use crate::{
    model::Leaving,
    report::{Direction, Finding, ProcessTimeWait, Report, Severity},
};

pub(super) const FIN_WAIT2_ID: &str = "FinWait2Leak";
pub(super) const ASSASSINATION_ID: &str = "TimeWaitAssassination";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let processes = &report.time_wait.by_process;
    processes.iter().flat_map(|process| [fin_wait2_leak(process), assassination(report, process)]).flatten().collect()
}

/// Connections this side closed and the other side did not.
fn fin_wait2_leak(process: &ProcessTimeWait) -> Option<Finding> {
    let expired = process.left.get(&Leaving::FinNeverCame).copied().unwrap_or_default();
    let waiting = process.fin_wait2;
    if expired + waiting < thresholds::FIN_WAIT2 {
        return None;
    }
    // Of the destinations the one with the most sockets: FIN_WAIT2 is counted with TIME_WAIT there.
    let peer = process.destinations.first().map_or_else(String::new, |top| format!(", most towards {}", top.remote));
    let (local, remote) = place_of(process.destinations.first());
    Some(Finding {
        id: FIN_WAIT2_ID.to_owned(),
        severity: if expired >= thresholds::FIN_WAIT2 { Severity::Warning } else { Severity::Info },
        summary: format!(
            "the peers of {} do not close their end: {} in FIN_WAIT2 now, {} given up by the kernel{peer}",
            who(&process.process),
            counted(waiting, "connection is", "connections are"),
            counted(expired, "was", "were"),
        ),
        process: Some(process.process.clone()),
        netns: process.process.netns,
        local,
        remote,
        cause: "this side has sent its FIN and let go of the socket; the other side has acknowledged it and sends no FIN of \
                its own. The kernel waits for tcp_fin_timeout, then forgets the connection, while the peer keeps it in \
                CLOSE_WAIT"
            .to_owned(),
        evidence: vec![format!("{waiting} in FIN_WAIT2 now, {expired} expired without the peer's FIN during the session")],
        remedy: vec![
            "look at the peer: a process there holds these connections in CLOSE_WAIT and has forgotten to close them \
             (ss -tnp state close-wait, on that host)"
                .to_owned(),
            "if the peer is meant to send more after our close(): use shutdown(SHUT_WR) and read on, so that its answer has \
             somebody to go to"
                .to_owned(),
        ],
        avoid: vec![
            "a shorter tcp_fin_timeout: the connections go sooner here, and stay at the peer all the same".to_owned(),
        ],
        ..Finding::default()
    })
}

/// TIME_WAIT ended by a RST: segments of the old connection may reach a new one. Those RSTs that a SYN brought about are
/// `ResetByPortReuse`.
fn assassination(report: &Report, process: &ProcessTimeWait) -> Option<Finding> {
    let by_syn = report.rejected_syns.iter().filter(|syns| {
        syns.direction == Direction::Inbound && syns.process.as_ref().is_some_and(|it| it.pid == process.process.pid)
    });
    let killed = process.left.get(&Leaving::Reset).copied().unwrap_or_default();
    let killed = killed.saturating_sub(by_syn.map(|syns| syns.count).sum());
    if killed < thresholds::ASSASSINATIONS {
        return None;
    }
    Some(Finding {
        id: ASSASSINATION_ID.to_owned(),
        severity: Severity::Info,
        summary: format!(
            "{} of {} in TIME_WAIT {} ended by a RST before the 60 s were over",
            counted(killed, "socket", "sockets"),
            who(&process.process),
            if killed == 1 { "was" } else { "were" },
        ),
        process: Some(process.process.clone()),
        netns: process.process.netns,
        cause: "an old segment that comes late makes TIME_WAIT answer with an ACK; the other side, which has forgotten the \
                connection, answers that with a RST, and the RST ends TIME_WAIT (RFC 1337)"
            .to_owned(),
        evidence: vec![format!("{killed} left because a RST arrived, of {} that entered", process.entered)],
        remedy: vec![
            "with one of a thousand there is nothing to do: it takes delayed segments and a peer that is gone".to_owned(),
            "if it is many, have the RSTs ignored: net.ipv4.tcp_rfc1337=1; and look for a middlebox or a peer that answers \
             every late segment with a RST, or uses its ports again within 60 s"
                .to_owned(),
        ],
        ..Finding::default()
    })
}
