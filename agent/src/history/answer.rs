//! What the history answers; its JSON form is `firstfin.history/1`.
//!
//! Within a version fields are added, never renamed, removed or given another meaning. `docs/history.md` explains them.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::rollup::{FailureKind, Identity};
use crate::{
    model::{Name, Netns},
    report::{Direction, Finding, UnattributedReasons},
};

/// Version of the JSON form.
pub const SCHEMA: &str = "firstfin.history/1";

/// A moment on the wall clock, RFC 3339 in UTC, to the second: `2026-05-09T03:12:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub Timestamp);

impl At {
    /// Out of Unix seconds; a moment that no calendar has is the nearest one that it has.
    #[must_use]
    pub fn second(second: i64) -> Self {
        Self::millisecond(second.saturating_mul(1_000))
    }

    /// Out of Unix milliseconds.
    #[must_use]
    pub fn millisecond(millisecond: i64) -> Self {
        let nearest = if millisecond < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_millisecond(millisecond).unwrap_or(nearest))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for At {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "At".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

/// What the history knows of a period. Lists are cut to the length asked for; what was cut off is counted.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Answer {
    /// `firstfin.history/1`
    pub schema: String,
    /// The period, and how much of it was recorded
    pub period: Period,
    /// Which host it was, and which kernel: one entry for each boot and version of firstfin
    pub hosts: Vec<PastHost>,
    /// TIME_WAIT on the whole host, whatever was filtered for; null if nothing was recorded
    pub time_wait: Option<HostSum>,
    /// Findings that were seen in the period: the worst first
    pub findings: Vec<PastFinding>,
    /// Findings cut off
    pub findings_omitted: u64,
    /// Processes, those with the most TIME_WAIT first. Empty if a destination was asked for
    pub processes: Vec<ProcessSum>,
    /// Processes cut off
    pub processes_omitted: u64,
    /// Processes that are not kept by name; null if there were none
    pub other_processes: Option<OtherSum>,
    /// Processes and where their connections went to or came from, those with the most TIME_WAIT first
    pub destinations: Vec<DestinationSum>,
    /// Destinations cut off
    pub destinations_omitted: u64,
    /// The most sockets in a minute towards destinations that are not kept by name, at most
    pub other_destinations: u64,
    /// Ephemeral ports in use, the largest share of the usable ones first. Not those of one process
    pub routes: Vec<RouteSum>,
    /// Routes cut off
    pub routes_omitted: u64,
    /// Failures, the most frequent first
    pub failures: Vec<FailureSum>,
    /// Failures cut off: kinds of them, not how often they happened
    pub failures_omitted: u64,
    /// How often something failed that is not kept by name
    pub other_failures: u64,
    /// Minutes with the most TIME_WAIT, in the order of time; empty unless asked for by minute
    pub minutes: Vec<MinuteSum>,
    /// Minutes cut off
    pub minutes_omitted: u64,
}

/// A period, and how much of it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Period {
    /// Its beginning
    pub since: At,
    /// Its end
    pub until: At,
    /// Minutes recorded in it
    pub recorded: u64,
    /// Parts of it that were not: the agent did not run, or could not write
    pub gaps: Vec<Gap>,
    /// Gaps cut off
    pub gaps_omitted: u64,
    /// When the wall clock was set during it
    pub clock_jumps: Vec<ClockJump>,
    /// The oldest minute of the whole database; null if it is empty
    pub oldest: Option<At>,
    /// End of its newest minute
    pub newest: Option<At>,
}

/// A time of which nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Gap {
    /// From
    pub since: At,
    /// To
    pub until: At,
}

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ClockJump {
    /// To when, about
    pub to: At,
    /// By how many seconds; negative: back
    pub seconds: i64,
}

/// A boot of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PastHost {
    /// Host name
    pub host: Name,
    /// Kernel release
    pub kernel: Name,
    /// Version of firstfin
    pub version: String,
    /// First minute recorded in the period
    pub first: At,
    /// Beginning of the last one
    pub last: At,
}

/// TIME_WAIT on a host over a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HostSum {
    /// The most timewait sockets, FIN_WAIT2 minisockets among them
    pub peak: u64,
    /// In which minute
    pub peak_at: At,
    /// The most that the kernel itself counted
    pub kernel_peak: u64,
    /// Connections that entered
    pub entered: u64,
    /// Connections that got no timewait socket (`tcp_max_tw_buckets`)
    pub overflowed: u64,
    /// The most without an owner
    pub unattributed: u64,
    /// In which minute
    pub unattributed_at: At,
    /// Why they had none
    pub unattributed_reasons: UnattributedReasons,
    /// Events that were lost
    pub events_lost: u64,
    /// Events not understood, sockets not followed, entries evicted from full tables
    pub not_followed: u64,
}

/// If a finding is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EpisodeState {
    /// It was seen in the last three minutes
    Open,
    /// It was not seen any more
    Over,
    /// The recording ended while it was open
    CutOff,
}

/// A finding of the period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PastFinding {
    /// When it was first seen
    pub opened: At,
    /// When it was last seen
    pub last_seen: At,
    /// If it is over
    pub state: EpisodeState,
    /// Windows (reports of the daemon) that had it
    pub windows: u64,
    /// When it was worst
    pub worst_at: At,
    /// What it said then
    pub finding: Finding,
}

/// TIME_WAIT of a process over a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProcessSum {
    /// Which; whatever its pid was
    pub process: Identity,
    /// Its pid in the minute of the peak; of many processes the one with the most sockets
    pub pid: u32,
    /// How many processes of its kind there were side by side, at most
    pub processes: u64,
    /// The most sockets in TIME_WAIT
    pub peak: u64,
    /// In which minute
    pub peak_at: At,
    /// The most FIN_WAIT2 minisockets
    pub fin_wait2: u64,
    /// Connections that entered
    pub entered: u64,
    /// Connections for which it sent the first FIN
    pub closed_first: u64,
    /// Connections that got no timewait socket
    pub overflowed: u64,
    /// Minutes in which it is kept by name; in others it may be among [`Answer::other_processes`]
    pub minutes: u64,
}

/// Processes that are not kept by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OtherSum {
    /// Not more sockets in TIME_WAIT than this, all of them together
    pub peak: u64,
    /// Connections that entered
    pub entered: u64,
    /// Connections that got no timewait socket
    pub overflowed: u64,
}

/// TIME_WAIT of a process towards a destination over a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DestinationSum {
    /// Which process
    pub process: Identity,
    /// The other side; inbound without its port
    pub remote: String,
    /// Inbound: what was served here
    pub local: Option<String>,
    /// Which way; null if not known
    pub direction: Option<Direction>,
    /// The most timewait sockets
    pub peak: u64,
    /// In which minute
    pub peak_at: At,
    /// Minutes in which it is kept by name
    pub minutes: u64,
}

/// Ephemeral ports of a route over a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteSum {
    /// Network namespace
    pub netns: Netns,
    /// Local address
    pub local: String,
    /// Remote address and port
    pub remote: String,
    /// The most ports in use
    pub peak: u64,
    /// In which minute
    pub peak_at: At,
    /// Ports usable then
    pub usable: u64,
}

/// Failures of one kind over a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailureSum {
    /// Whose; null if not known
    pub process: Option<Identity>,
    /// A pid of it; 0 where none is known
    pub pid: u32,
    /// What failed
    pub kind: FailureKind,
    /// The address asked for (bind, listen) or the other side; null if not known
    pub address: Option<String>,
    /// Network namespace
    pub netns: Netns,
    /// errno; 0 if there is none
    pub errno: u32,
    /// How often
    pub count: u64,
    /// First minute
    pub first: At,
    /// Last minute
    pub last: At,
}

/// A minute. Of the processes asked for, else of the whole host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MinuteSum {
    /// Its beginning
    pub at: At,
    /// The most timewait sockets in it
    pub sockets: u64,
    /// Connections that entered
    pub entered: u64,
    /// The process with the most of them; null if there was none
    pub largest: Option<Identity>,
    /// How many it had
    pub largest_sockets: u64,
}
