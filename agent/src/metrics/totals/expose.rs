//! What was counted -> what is exposed.

use serde::Serialize;

use super::{
    Member, Round, SelfStats, Totals,
    counts::{Counted, PortLevel},
};
use crate::{
    analysis::IDS,
    metrics::{catalogue as metric, families::Families, labels::Group, outputs::OutputStats},
    model::{Leaving, errno},
    report::{Direction, Report, Severity},
};

impl Totals {
    /// What is exposed until the next round: of the report that was taken in last.
    #[must_use]
    pub fn families(&self, report: Option<&Report>, round: &Round, outputs: &OutputStats) -> Families {
        let mut families = Families::default();
        for (group, member) in self.ranked() {
            expose_group(&mut families, group, member);
        }
        expose_group(&mut families, &Group::other(&self.settings.labels), &self.other);
        self.expose_host(&mut families);
        families.add(&metric::ROUNDS, &[], self.rounds);
        families.add(&metric::ROUNDS_FAILED, &[], self.rounds_failed);
        if let Some(report) = report {
            families.add(&metric::GROUPS_OMITTED, &[], self.omitted);
            families.add(&metric::ROUND_DURATION, &[], round.took.as_secs_f64());
            families.add(&metric::ROUND_TIMESTAMP, &[], round.done_at.as_secs_f64());
            families.add(&metric::ROUND_WINDOW, &[], report.session.duration_s);
            expose_report(&mut families, report);
        }
        for (table, entries) in &round.tables {
            families.add(&metric::STATE_ENTRIES, &[table], *entries);
        }
        expose_outputs(&mut families, outputs);
        families
    }

    fn expose_host(&self, families: &mut Families) {
        let host = &self.host;
        for reason in Leaving::ALL {
            let count = host.left.get(&reason).copied().unwrap_or_default();
            families.add(&metric::TIME_WAIT_LEFT, &[&word(&reason)], count);
        }
        for (kind, level) in &host.namespaces {
            let kind = [kind.name()];
            families.add(&metric::KERNEL_TIME_WAIT, &kind, level.time_wait);
            if let Some(fullest) = level.fullest {
                families.add(&metric::TIME_WAIT_BUCKETS, &kind, fullest.usable);
                families.add(&metric::TIME_WAIT_BUCKETS_USED, &kind, fullest.ratio());
            }
            if let Some(withdrawn) = level.withdrawn {
                families.add(&metric::PORTS_WITHDRAWN, &kind, withdrawn);
            }
        }
        for (kind, &count) in &host.overflowed {
            families.add(&metric::TIME_WAIT_OVERFLOWS, &[kind.name()], count);
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            let count = host.rejected_syns.get(&direction).copied().unwrap_or_default();
            families.add(&metric::REJECTED_SYNS, &[&word(&direction)], count);
        }
        if let Some((all, slow)) = host.searches {
            families.add(&metric::PORT_SEARCHES, &[], all);
            families.add(&metric::PORT_SEARCHES_SLOW, &[], slow);
        }
        families.add(&metric::EVENTS_RECEIVED, &[], host.received);
        families.add(&metric::EVENTS_BYTES, &[], host.bytes);
        for (reason, &count) in &host.lost {
            families.add(&metric::EVENTS_LOST, &[reason], count);
        }
        families.add(&metric::SOCKETS_NOT_FOLLOWED, &[], host.not_followed);
        families.add(&metric::STATE_EVICTIONS, &[], host.evicted);
    }
}

fn expose_group(families: &mut Families, group: &Group, member: &Member) {
    let now = &member.now;
    families.add_of(group, &metric::TIME_WAIT_SOCKETS, &[], now.time_wait);
    families.add_of(group, &metric::FIN_WAIT2_SOCKETS, &[], now.fin_wait2);
    families.add_of(group, &metric::TIME_WAIT_ENTERED, &[], member.counts.of(Counted::Entered));
    families.add_of(group, &metric::CLOSED_FIRST, &[], member.counts.of(Counted::ClosedFirst));
    if now.close_wait > 0 {
        families.add_of(group, &metric::CLOSE_WAIT_SOCKETS, &[], now.close_wait);
    }
    if let Some(ports @ PortLevel { used, usable }) = now.ports {
        families.add_of(group, &metric::PORTS_USED, &[], used);
        families.add_of(group, &metric::PORTS_USABLE, &[], usable);
        families.add_of(group, &metric::PORTS_USED_RATIO, &[], ports.ratio());
    }
    if let Some(seconds) = now.exhaustion {
        families.add_of(group, &metric::PORTS_EXHAUSTION, &[], seconds);
    }
    for (&what, &count) in &member.counts.0 {
        match what {
            Counted::Entered | Counted::ClosedFirst => {}
            Counted::Refused(call, number) => {
                families.add_of(group, &metric::BIND_FAILURES, &[&word(&call), &errno::name(number)], count);
            }
            Counted::NotConnected(cause) => {
                families.add_of(group, &metric::CONNECT_FAILURES, &[&word(&cause)], count);
            }
            Counted::CutOff(kind) => families.add_of(group, &metric::RESETS, &[&word(&kind)], count),
        }
    }
}

/// What is of the last window alone.
fn expose_report(families: &mut Families, report: &Report) {
    let reasons = &report.time_wait.unattributed_reasons;
    for (reason, count) in [
        ("before_session", reasons.before_session),
        ("closing_before_session", reasons.closing_before_session),
        ("kernel_thread", reasons.kernel_thread),
        ("closed_under_observation", reasons.closed_under_observation),
        ("event_lost", reasons.event_lost),
        ("not_seen", reasons.not_seen),
    ] {
        families.add(&metric::TIME_WAIT_UNATTRIBUTED, &[reason], count);
    }
    for id in IDS {
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            let is_it = |finding: &&crate::report::Finding| finding.id == id && finding.severity == severity;
            let count = report.findings.iter().filter(is_it).count() as u64;
            families.add(&metric::FINDINGS, &[id, &word(&severity)], count);
        }
    }
    families.add(&metric::SHARED_PORTS, &[], report.shared_ports.len() as u64);
    let destinations = report.ports.destinations.len() as u64 + report.ports.destinations_omitted;
    families.add(&metric::PORT_DESTINATIONS, &[], destinations);
    for hook in &report.session.hooks {
        families.add(&metric::HOOK_ATTACHED, &[&slug(&hook.observes), &hook.rung], hook.rung != "none");
    }
    families.add(&metric::BLIND_SPOTS, &[], report.session.blind_spots.len() as u64);
}

fn expose_outputs(families: &mut Families, outputs: &OutputStats) {
    if let Some(alerts) = &outputs.alerts {
        for (state, count) in &alerts.by_state {
            families.add(&metric::ALERTS, &[state], *count);
        }
        families.add(&metric::ALERTS_OVERFLOWED, &[], alerts.overflowed);
        families.add(&metric::ALERT_SAVE_FAILURES, &[], alerts.failed_saves);
        for receiver in &alerts.receivers {
            for (outcome, count) in &receiver.deliveries {
                families.add(&metric::ALERT_DELIVERIES, &[&receiver.name, outcome], *count);
            }
            families.add(&metric::ALERT_QUEUE, &[&receiver.name], receiver.queued);
        }
    }
    if let Some(history) = &outputs.history {
        families.add(&metric::HISTORY_WRITTEN, &[], history.minutes_written);
        families.add(&metric::HISTORY_WAITING, &[], history.minutes_waiting);
        families.add(&metric::HISTORY_DROPPED, &[], history.minutes_dropped);
        families.add(&metric::HISTORY_FAILURES, &[], history.failures);
        families.add(&metric::HISTORY_DATABASE, &[], history.database_bytes);
        families.add(&metric::HISTORY_DEGRADED, &[], history.is_degraded);
    }
}

impl SelfStats {
    /// What is exposed of them.
    #[must_use]
    pub fn families(&self) -> Families {
        let mut families = Families::default();
        families.add(&metric::CPU, &[], self.cpu.as_secs_f64());
        families.add(&metric::MEMORY, &[], self.resident_bytes);
        families.add(&metric::OPEN_FDS, &[], self.open_fds);
        families.add(&metric::MAX_FDS, &[], self.max_fds);
        families.add(&metric::START_TIME, &[], self.started_at.as_secs_f64());
        families.add(&metric::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), &self.kernel], 1_u64);
        families.add(&metric::CONFIG_RELOAD_SUCCESSFUL, &[], self.is_config_current);
        families.add(&metric::CONFIG_RELOAD_TIMESTAMP, &[], self.config_read_at.as_secs_f64());
        if let Some(last) = self.last_scrape {
            families.add(&metric::SCRAPE_DURATION, &[], last.as_secs_f64());
        }
        families
    }
}

/// A word of the report, as its JSON form has it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        // Not a word: none of the report's is.
        _ => String::new(),
    }
}

/// `bind() and listen() conflicts` -> `bind_and_listen_conflicts`
fn slug(text: &str) -> String {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}
