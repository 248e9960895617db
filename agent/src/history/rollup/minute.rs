//! A minute, as it is written and read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Episode;
use crate::{
    model::{ConnectFailure, Container, Name, Netns, Reset},
    report::{Direction, ProcessInfo, UnattributedReasons},
};

/// What a process is, whichever its pid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// Name of the thread group leader
    pub comm: Name,
    /// Path of the executable
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Name>,
    /// systemd unit
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Name>,
    /// Container, with the uid of its pod
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

impl From<&ProcessInfo> for Identity {
    fn from(process: &ProcessInfo) -> Self {
        Self {
            comm: process.comm.clone(),
            exe: process.exe.clone(),
            unit: process.unit.clone(),
            container: process.container.clone(),
        }
    }
}

/// Whose a row is.
#[expect(clippy::large_enum_variant, reason = "nearly all are known")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Of this process
    Known(Identity),
    /// Of a process that is not known
    Unknown,
    /// The sum of the rows that found no room
    Others,
}

impl Who {
    /// Of a process, if there is one.
    #[must_use]
    pub fn of(process: Option<&ProcessInfo>) -> Self {
        process.map_or(Self::Unknown, |process| Self::Known(process.into()))
    }
}

/// A minute, or what was observed of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Minute {
    /// Its beginning, Unix seconds by the wall clock; a multiple of 60
    pub start: i64,
    /// `CLOCK_BOOTTIME` at the end of its last window, milliseconds
    pub boottime_ms: i64,
    /// The wall clock at the same moment, Unix milliseconds
    pub wall_ms: i64,
    /// Windows in it
    pub windows: u32,
    /// Milliseconds that they cover
    pub observed_ms: i64,
    /// The whole host
    pub host: HostMinute,
    /// By process, the largest first; the last may be [`Who::Others`]
    pub processes: Vec<ProcessMinute>,
    /// By process and destination, the largest first; the last may be [`Who::Others`]
    pub destinations: Vec<DestinationMinute>,
    /// Ephemeral ports by route, those first that used the largest share
    pub routes: Vec<RouteMinute>,
    /// Routes left out
    pub routes_omitted: u64,
    /// Failures, the most frequent first; the last may be of [`Who::Others`], one for each kind
    pub failures: Vec<FailureMinute>,
    /// Findings that were seen or closed in it, as they stood at its end
    pub findings: Vec<Episode>,
    /// Findings that found no room
    pub findings_omitted: u64,
}

/// The host in a minute. The first group are the most at the end of a window, the others sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMinute {
    /// Timewait sockets, FIN_WAIT2 minisockets among them
    pub time_wait: u64,
    /// FIN_WAIT2 minisockets
    pub fin_wait2: u64,
    /// What the kernel itself counted
    pub kernel_total: u64,
    /// Timewait sockets without an owner
    pub unattributed: u64,
    /// Why they had none, when they were most
    pub unattributed_reasons: UnattributedReasons,
    /// Processes that the reports left out
    pub processes_omitted: u64,
    /// Connections that entered TIME_WAIT
    pub entered: u64,
    /// Connections that got no timewait socket (`tcp_max_tw_buckets`)
    pub overflowed: u64,
    /// Events received
    pub events_received: u64,
    /// Events lost
    pub events_lost: u64,
    /// Events not understood, sockets not followed and entries evicted from full tables
    pub not_followed: u64,
}

/// TIME_WAIT of a process in a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessMinute {
    /// Whose; never [`Who::Unknown`]
    pub who: Who,
    /// Of the last window: the pid with the most sockets. Of the others: 0
    pub pid: u32,
    /// Processes of this kind side by side, at most; of [`Who::Others`]: how many rows were summed up
    pub processes: u64,
    /// Its figures
    pub figures: Figures,
}

/// TIME_WAIT figures of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The most sockets in TIME_WAIT at the end of a window. Of [`Who::Others`]: not more than this
    pub sockets: u64,
    /// The most FIN_WAIT2 minisockets
    pub fin_wait2: u64,
    /// Connections that entered
    pub entered: u64,
    /// Connections for which it sent the first FIN
    pub closed_first: u64,
    /// Connections that got no timewait socket
    pub overflowed: u64,
}

/// Where connections go to or come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The other side; inbound without its port
    pub remote: String,
    /// Inbound: what was served here
    pub local: Option<String>,
    /// Which way
    pub direction: Option<Direction>,
}

/// TIME_WAIT of a process towards a destination in a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationMinute {
    /// Whose; never [`Who::Unknown`]
    pub who: Who,
    /// Where to; none of [`Who::Others`]
    pub place: Option<Place>,
    /// The most timewait sockets at the end of a window. Of [`Who::Others`]: not more than this
    pub sockets: u64,
}

/// Ephemeral ports from a local address towards a destination in a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMinute {
    /// Network namespace
    pub netns: Netns,
    /// Local address
    pub local: String,
    /// Remote address and port
    pub remote: String,
    /// The most in use
    pub used: u64,
    /// Usable when most were in use
    pub usable: u64,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// bind() was refused
    Bind,
    /// listen() was refused
    Listen,
    /// connect() failed
    Connect(ConnectFailure),
    /// A connection was cut off
    Reset(Reset),
}

/// Failures of a process in a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureMinute {
    /// Whose
    pub who: Who,
    /// A pid of it; 0 where none is known
    pub pid: u32,
    /// What
    pub kind: FailureKind,
    /// The address asked for (bind, listen) or the other side; none if not known, and of [`Who::Others`]
    pub address: Option<String>,
    /// Network namespace; of [`Who::Others`]: 0
    pub netns: Netns,
    /// errno; 0 if there is none
    pub errno: u32,
    /// How often
    pub count: u64,
}
