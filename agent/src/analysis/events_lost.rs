//! EventsLost: what the report may not know.

use crate::report::{Finding, Report, Severity};

pub(super) const ID: &str = "EventsLost";

pub(super) fn findings(report: &Report) -> Option<Finding> {
    let events = &report.session.events;
    let unheard = events.lost + events.malformed + events.sockets_not_followed + events.evicted;
    if unheard == 0 {
        return None;
    }
    let lost = &events.lost_by_kind;
    let unattributed = report.time_wait.unattributed_reasons.event_lost;
    Some(Finding {
        id: ID.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "the report is incomplete: {} of {} events were lost; counts of sockets are exact all the same, rates and \
             failures are too low",
            events.lost,
            events.lost + events.received
        ),
        process: None,
        evidence: vec![
            format!(
                "lost: {} transitions, {} refused calls, {} announcements of processes, {} skipped by the kernel",
                lost.transitions, lost.refused_calls, lost.processes, lost.skipped_programs
            ),
            format!(
                "{} records not understood, {} sockets not followed, {} entries dropped from full tables",
                events.malformed, events.sockets_not_followed, events.evicted
            ),
            format!("{unattributed} sockets in TIME_WAIT have no owner for this reason"),
        ],
        remedy: vec![
            "give the ring buffer more room: --ring-size".to_owned(),
            "if sockets were not followed: --max-sockets".to_owned(),
        ],
        ..Finding::default()
    })
}
