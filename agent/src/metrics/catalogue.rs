//! Every metric of `firstfin serve`: the one table that the endpoint, `docs/generated/metrics.md` and the tests of the
//! shipped rules go by.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for counters, no label in a name. What a metric counts
//! is bounded: labels of a process are given to the `top` groups of `[metrics]` only, and everybody else is in the group
//! whose labels are all `other`. A metric that is not in this table cannot be exposed.

use std::fmt::Write as _;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What is so now
    Gauge,
    /// What happened since firstfin was started; never falls
    Counter,
}

impl Kind {
    /// The word of the exposition formats.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// A base unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds
    Seconds,
    /// Bytes
    Bytes,
    /// From 0 to 1
    Ratio,
}

impl Unit {
    /// The suffix it is in a name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As it is queried: with its unit, and with `_total` if it is a counter
    pub name: &'static str,
    /// What it is
    pub kind: Kind,
    /// What it is counted in, if not in things
    pub unit: Option<Unit>,
    /// One series a group of processes: it has the labels of `[metrics] labels`, before those of `labels`
    pub is_per_process: bool,
    /// Its own labels
    pub labels: &'static [&'static str],
    /// What it says. Begins with a capital and ends with a full stop
    pub help: &'static str,
}

impl Metric {
    /// The name of its family in OpenMetrics, which leaves `_total` to the samples.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }

    /// The same without the unit, which is what a library that appends it wants.
    #[must_use]
    pub fn stem(&self) -> &'static str {
        let family = self.family();
        let stem = self.unit.and_then(|unit| family.strip_suffix(unit.name())?.strip_suffix('_'));
        stem.unwrap_or(family)
    }
}

macro_rules! unit {
    () => {
        None
    };
    ($unit:ident) => {
        Some(Unit::$unit)
    };
}

macro_rules! catalogue {
    ($($id:ident: $kind:ident $(in $unit:ident)?, $name:literal, $is_per_process:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: unit!($($unit)?),
                is_per_process: $is_per_process,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All of them, in the order in which they are exposed.
        pub const ALL: &[&Metric] = &[$(&$id),*];
    };
}

// id: kind and unit, name, one series a group of processes, its own labels, help.
catalogue! {
    // TIME_WAIT
    TIME_WAIT_SOCKETS: Gauge, "firstfin_time_wait_sockets", true, [],
        "Timewait sockets in TIME_WAIT, by the process that closed the connection.";
    FIN_WAIT2_SOCKETS: Gauge, "firstfin_fin_wait2_sockets", true, [],
        "Timewait sockets in FIN_WAIT2, whose other side has still to send its FIN, by the process that closed the connection.";
    TIME_WAIT_ENTERED: Counter, "firstfin_time_wait_entered_total", true, [],
        "Connections that entered TIME_WAIT.";
    CLOSED_FIRST: Counter, "firstfin_closed_first_total", true, [],
        "Connections for which this process sent the first FIN.";
    TIME_WAIT_UNATTRIBUTED: Gauge, "firstfin_time_wait_unattributed_sockets", false, ["reason"],
        "Timewait sockets, FIN_WAIT2 among them, whose process is not known, by the reason why.";
    TIME_WAIT_LEFT: Counter, "firstfin_time_wait_left_total", false, ["reason"],
        "Timewait sockets that left, by the reason why.";
    KERNEL_TIME_WAIT: Gauge, "firstfin_kernel_time_wait_sockets", false, ["netns"],
        "Timewait sockets that the kernel itself counts, in the network namespace of firstfin (host) and in all others together (other).";
    TIME_WAIT_BUCKETS: Gauge, "firstfin_time_wait_buckets", false, ["netns"],
        "Timewait sockets that net.ipv4.tcp_max_tw_buckets allows in the network namespace of this kind that is nearest to it.";
    TIME_WAIT_BUCKETS_USED: Gauge in Ratio, "firstfin_time_wait_buckets_used_ratio", false, ["netns"],
        "Share of net.ipv4.tcp_max_tw_buckets that is used in the network namespace of this kind that is nearest to it.";
    TIME_WAIT_OVERFLOWS: Counter, "firstfin_time_wait_overflows_total", false, ["netns"],
        "Connections that got no timewait socket because net.ipv4.tcp_max_tw_buckets was reached.";

    // Failures
    BIND_FAILURES: Counter, "firstfin_bind_failures_total", true, ["call", "errno"],
        "Calls of bind and listen that were refused.";
    CONNECT_FAILURES: Counter, "firstfin_connect_failures_total", true, ["cause"],
        "Connections that were not established, by cause; no_free_port is the exhaustion of ephemeral ports.";
    RESETS: Counter, "firstfin_resets_total", true, ["kind"],
        "Connections that were cut off, by how; the process is the one on this side.";
    REJECTED_SYNS: Counter, "firstfin_rejected_syns_total", false, ["direction"],
        "SYNs that met an earlier connection of the same addresses and ports, in TIME_WAIT as a rule.";
    CLOSE_WAIT_SOCKETS: Gauge, "firstfin_close_wait_sockets", true, [],
        "Connections that the other side closed ten seconds ago or earlier and this process has not closed yet.";
    SHARED_PORTS: Gauge, "firstfin_shared_ports", false, [],
        "Ports that sockets of different programs have side by side.";

    // Ephemeral ports
    PORTS_USED: Gauge, "firstfin_ephemeral_ports_used", true, [],
        "Ephemeral ports that are taken towards the destination that is nearest to exhaustion, of those this process uses most.";
    PORTS_USABLE: Gauge, "firstfin_ephemeral_ports_usable", true, [],
        "Ephemeral ports there are towards the same destination.";
    PORTS_USED_RATIO: Gauge in Ratio, "firstfin_ephemeral_ports_used_ratio", true, [],
        "Share of the ephemeral ports that is taken towards the same destination.";
    PORTS_EXHAUSTION: Gauge in Seconds, "firstfin_ephemeral_ports_exhaustion_seconds", true, [],
        "Time until no ephemeral port is left towards the destination where that is soonest, at the present rate; 0 if none is left, no series if they last.";
    PORTS_WITHDRAWN: Gauge, "firstfin_ephemeral_ports_withdrawn", false, ["netns"],
        "Ephemeral ports that listeners and bound sockets take from everybody, in the network namespace of this kind that lacks most.";
    PORT_DESTINATIONS: Gauge, "firstfin_ephemeral_ports_destinations", false, [],
        "Destinations, each from one local address, towards which ephemeral ports are in use.";
    PORT_SEARCHES: Counter, "firstfin_port_searches_total", false, [],
        "Searches of connect for an ephemeral port, on the whole host; no series where that is not observed.";
    PORT_SEARCHES_SLOW: Counter, "firstfin_port_searches_slow_total", false, [],
        "Searches of connect for an ephemeral port that took a millisecond or longer.";

    // Findings
    FINDINGS: Gauge, "firstfin_findings", false, ["finding", "severity"],
        "Findings of the last round; 0 if there is none of this kind.";

    // How well firstfin sees
    EVENTS_RECEIVED: Counter, "firstfin_events_received_total", false, [],
        "Events received from the kernel and understood.";
    EVENTS_BYTES: Counter in Bytes, "firstfin_events_received_bytes_total", false, [],
        "Bytes of the events received from the kernel.";
    EVENTS_LOST: Counter, "firstfin_events_lost_total", false, ["reason"],
        "Events that did not arrive, by what they were about, or because the kernel skipped the program (skipped_programs), or because they were not understood (malformed).";
    SOCKETS_NOT_FOLLOWED: Counter, "firstfin_sockets_not_followed_total", false, [],
        "Sockets that were not followed because the table of sockets in the kernel was full.";
    STATE_ENTRIES: Gauge, "firstfin_state_entries", false, ["table"],
        "Entries of the tables of firstfin.";
    STATE_EVICTIONS: Counter, "firstfin_state_evictions_total", false, [],
        "Entries that firstfin dropped because one of its tables was full.";
    HOOK_ATTACHED: Gauge, "firstfin_hook_attached", false, ["hook", "rung"],
        "Whether a thing is observed (1) or not (0), and by which means.";
    BLIND_SPOTS: Gauge, "firstfin_blind_spots", false, [],
        "Things that could not be looked at in the last round; the report at /report names them.";
    GROUPS_OMITTED: Gauge, "firstfin_metrics_omitted_groups", false, [],
        "Groups of processes that had no room among the top ones in the last round and are counted in the group other.";

    // Rounds and outputs
    ROUNDS: Counter, "firstfin_rounds_total", false, [],
        "Rounds: windows that were closed and handed to the outputs.";
    ROUNDS_FAILED: Counter, "firstfin_rounds_failed_total", false, [],
        "Rounds that gave no report.";
    ROUND_DURATION: Gauge in Seconds, "firstfin_round_duration_seconds", false, [],
        "Time the last round took from the end of its window until its report was there.";
    ROUND_WINDOW: Gauge in Seconds, "firstfin_round_window_seconds", false, [],
        "Length of the window of the last round.";
    ROUND_TIMESTAMP: Gauge in Seconds, "firstfin_round_timestamp_seconds", false, [],
        "When the last round was done, in seconds since 1970.";
    SCRAPE_DURATION: Gauge in Seconds, "firstfin_scrape_duration_seconds", false, [],
        "Time it took to answer the scrape before this one.";
    ALERTS: Gauge, "firstfin_alerts", false, ["state"],
        "Alerts by state, where alerts are configured.";
    ALERT_DELIVERIES: Counter, "firstfin_alert_deliveries_total", false, ["receiver", "outcome"],
        "Deliveries of alerts to a receiver, by outcome.";
    ALERT_QUEUE: Gauge, "firstfin_alert_queue_entries", false, ["receiver"],
        "Alerts that wait for delivery to a receiver.";
    ALERTS_OVERFLOWED: Counter, "firstfin_alerts_overflowed_total", false, [],
        "Problems that were not followed in a round because too many are.";
    ALERT_SAVE_FAILURES: Counter, "firstfin_alert_save_failures_total", false, [],
        "Writes of the state of alerts that failed.";
    HISTORY_WRITTEN: Counter, "firstfin_history_rollups_written_total", false, [],
        "Roll-ups, one a minute, written to the history.";
    HISTORY_WAITING: Gauge, "firstfin_history_rollups_waiting", false, [],
        "Roll-ups that wait to be written to the history.";
    HISTORY_DROPPED: Counter, "firstfin_history_rollups_dropped_total", false, [],
        "Roll-ups lost to the history because too many waited.";
    HISTORY_FAILURES: Counter, "firstfin_history_failures_total", false, [],
        "Attempts to open, write or shorten the history that failed.";
    HISTORY_DATABASE: Gauge in Bytes, "firstfin_history_database_bytes", false, [],
        "Size of the history on disk.";
    HISTORY_DEGRADED: Gauge, "firstfin_history_degraded", false, [],
        "Whether something is wrong with the history now (1).";

    // The process, by the names that every exporter has
    CPU: Counter in Seconds, "process_cpu_seconds_total", false, [],
        "CPU time that firstfin used, in user and kernel mode.";
    MEMORY: Gauge in Bytes, "process_resident_memory_bytes", false, [],
        "Memory of firstfin that is resident.";
    OPEN_FDS: Gauge, "process_open_fds", false, [],
        "File descriptors that firstfin has open.";
    MAX_FDS: Gauge, "process_max_fds", false, [],
        "File descriptors that firstfin may have open.";
    START_TIME: Gauge in Seconds, "process_start_time_seconds", false, [],
        "When firstfin was started, in seconds since 1970.";
    BUILD_INFO: Gauge, "firstfin_build_info", false, ["version", "kernel"],
        "Always 1; what runs, and on which kernel.";
    CONFIG_RELOAD_SUCCESSFUL: Gauge, "firstfin_config_last_reload_successful", false, [],
        "Whether the configuration was taken over when it was read last (1); if not, the one before is in force.";
    CONFIG_RELOAD_TIMESTAMP: Gauge in Seconds, "firstfin_config_last_reload_success_timestamp_seconds", false, [],
        "When a configuration was taken over last, in seconds since 1970.";
}

/// The labels of a process that are exposed unless others are asked for.
pub const DEFAULT_PROCESS_LABELS: &[&str] = &["process", "unit", "container"];

/// `docs/generated/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\nMade by `cargo xtask docs` from the program's own table.\n\n\
         PROCESS stands for the labels that `[metrics] labels` asks for: `process` (its name), `unit` and `container` \
         unless it is set. One series stands for all processes that have these labels in common. The `[metrics] top` \
         busiest groups have series of their own; all others are one more, whose labels are all `other`. A group that was \
         not heard of for five minutes loses its series, and its counts are added to `other`: sums never fall. An empty \
         label means that it does not apply; `process=\"?\"` that the process is not known.\n\n\
         | metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let process = metric.is_per_process.then_some("PROCESS".to_owned());
        let labels: Vec<_> = process.into_iter().chain(metric.labels.iter().map(|it| format!("`{it}`"))).collect();
        let unit = metric.unit.map_or("", Unit::name);
        let (name, kind, labels) = (metric.name, metric.kind.name(), labels.join(", "));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{name}` | {kind} | {unit} | {labels} | {} |", metric.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = HashSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("firstfin_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            let suffixes = [Unit::Seconds, Unit::Bytes, Unit::Ratio];
            let unit = suffixes.into_iter().find(|unit| metric.family().ends_with(&format!("_{}", unit.name())));
            assert_eq!(unit, metric.unit, "{name}");
            for label in metric.labels.iter().chain(DEFAULT_PROCESS_LABELS) {
                assert!(
                    !["job", "instance", "type", "service", "env", "zone", "cluster", "le"].contains(label),
                    "{name}"
                );
                assert!(!name.contains(&format!("_by_{label}")), "{name}");
            }
            // What the linter of Prometheus takes for a unit that is not a base unit.
            for word in name.split('_') {
                assert!(
                    !["minutes", "hours", "days", "milliseconds", "percent", "kilobytes", "bits"].contains(&word),
                    "{name}"
                );
            }
            let help = metric.help;
            assert!(help.ends_with('.') && help.starts_with(|it: char| it.is_ascii_uppercase()), "{name}: {help}");
            assert!(!help.contains(['|', '\n', '\\', '"']), "{name}: {help}");
        }
    }

    #[test]
    fn the_library_gets_what_it_completes_itself() {
        assert_eq!((CPU.stem(), CPU.family()), ("process_cpu", "process_cpu_seconds"));
        assert_eq!((RESETS.stem(), RESETS.family()), ("firstfin_resets", "firstfin_resets"));
        assert_eq!(MEMORY.stem(), "process_resident_memory");
    }

    #[test]
    fn the_reference_has_a_row_for_each() {
        let text = reference();
        for metric in ALL {
            assert_eq!(text.matches(&format!("\n| `{}` | {} |", metric.name, metric.kind.name())).count(), 1);
        }
        assert!(
            text.contains("| `firstfin_bind_failures_total` | counter |  | PROCESS, `call`, `errno` | Calls of bind")
        );
    }
}
