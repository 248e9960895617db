//! The report of a session: what is printed, and the contract for scripts.
//!
//! The JSON form of [`Report`] is `firstfin.report/1`. Within a version fields are added, never renamed, removed or
//! given another meaning; a reader has to ignore what it does not know. `docs/report.md` explains the fields for its
//! readers, and the JSON Schema under `docs/generated/` is made from these types.

mod build;
mod close_wait;
mod conflicts;
mod durations;
mod failures;
mod ports;
mod relevant;
mod sharing;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use build::{SessionFacts, build};
pub(crate) use conflicts::{Judgement, group_holders, judge};
pub use durations::{ConnectLatency, DurationBucket, PortSearch};
pub use ports::{NetnsPorts, PoisonedBy, PortForecast, PortOutcome, PortRate, PortUse, PortUser, Ports};
pub use relevant::{retain_relevant, sockets_to_name};

use crate::{
    model::{
        Asker, Call, ConnectFailure, Container, HeldOptions, Leaving, Name, Netns, OpenKind, Process, Reset,
        SocketOptions,
    },
    rules::{Fact, Remedy, Rule},
};

/// Version of the JSON form.
pub const SCHEMA: &str = "firstfin.report/1";

/// What a session saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// `firstfin.report/1`
    pub schema: String,
    /// Where and by what it was made
    pub host: Host,
    /// How it was made, and how far it can be trusted
    pub session: Session,
    /// TIME_WAIT at the end of the session, and who it belongs to
    pub time_wait: TimeWait,
    /// Ephemeral ports at the end of the session, and how long they last
    #[serde(default)]
    pub ports: Ports,
    /// Refused bind() and listen(), most frequent first
    pub bind_failures: Vec<BindFailure>,
    /// Failed connect(), most frequent first
    pub connect_failures: Vec<ConnectFailures>,
    /// How long connect() took, on the whole host during the session; null where that was not timed, or no connection was
    /// established. Timed by `report --html`, `demo --html` and `record`
    #[serde(default)]
    pub connect_latency: Option<ConnectLatency>,
    /// Connections that were cut off, most frequent first
    pub resets: Vec<Resets>,
    /// SYNs that met an earlier connection of the same addresses and ports, most frequent first
    #[serde(default)]
    pub rejected_syns: Vec<RejectedSyns>,
    /// Connections the other side has closed and this side has not for ten seconds or more, most sockets first
    #[serde(default)]
    pub close_wait: Vec<CloseWait>,
    /// Ports that sockets of different programs have side by side
    #[serde(default)]
    pub shared_ports: Vec<SharedPort>,
    /// What is wrong, worst first
    pub findings: Vec<Finding>,
}

/// Where and by what a report was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Host name
    pub name: Name,
    /// Kernel release (`uname -r`)
    pub kernel: Name,
    /// Version of firstfin
    pub version: String,
}

/// How the report was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Wall clock at the start, RFC 3339 in UTC
    pub started_at: String,
    /// Seconds
    pub duration_s: f64,
    /// It was ended before its time, by a signal
    pub interrupted: bool,
    /// What was observed, and by what means
    pub hooks: Vec<Hook>,
    /// The event stream
    pub events: Events,
    /// What could not be looked at, in words: namespaces that could not be entered, processes that could not be read
    pub blind_spots: Vec<String>,
}

/// A thing observed, and the rung of its ladder that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hook {
    /// The thing, for example `state transitions`
    pub observes: String,
    /// `fentry`, `kprobe`, `tracepoint`, `sock_diag` or `none`
    pub rung: String,
    /// Why not a higher one, and what is lost by that
    pub reason: String,
}

/// The event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// Records received and understood
    pub received: u64,
    /// Bytes of the records received
    #[serde(default)]
    pub bytes: u64,
    /// Records the kernel could not deliver, and calls of our programs it skipped: the sum of `lost_by_kind`
    pub lost: u64,
    /// The same by kind
    pub lost_by_kind: Lost,
    /// Records received and not understood
    pub malformed: u64,
    /// Sockets that were not followed because the kernel's table of sockets was full
    pub sockets_not_followed: u64,
    /// Entries the agent dropped because one of its own tables was full
    pub evicted: u64,
}

/// Lost records by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// Ends of connections and changes of listeners
    pub transitions: u64,
    /// Refused bind() and listen()
    pub refused_calls: u64,
    /// Announcements of processes: costs their path and unit, never an attribution
    pub processes: u64,
    /// Changes of timewait sockets: costs the reason why one left, found out about at the next dump
    #[serde(default)]
    pub timewait: u64,
    /// Calls of a program the kernel skipped, because it was interrupted by the same program on the same CPU
    pub skipped_programs: u64,
}

impl Lost {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.transitions + self.refused_calls + self.processes + self.timewait + self.skipped_programs
    }
}

/// TIME_WAIT at the end of the session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWait {
    /// Timewait sockets found by sock_diag, FIN_WAIT2 minisockets among them
    pub total: u64,
    /// FIN_WAIT2 minisockets among them: the peer's FIN is still to come
    pub fin_wait2: u64,
    /// What the kernel itself counts (`tw` in `/proc/net/sockstat`), over the same namespaces
    pub kernel_total: u64,
    /// Those without an owner
    pub unattributed: u64,
    /// Why they have none
    pub unattributed_reasons: UnattributedReasons,
    /// Connections that entered during the session
    pub entered: u64,
    /// Connections that got no timewait socket because `tcp_max_tw_buckets` was reached (`TCPTimeWaitOverflow`), during
    /// the session; they are counted in `entered` where only tracepoints can be used
    pub overflowed: u64,
    /// FIN_WAIT2 minisockets of the session that became TIME_WAIT; 0 where that is not observed (see `session.hooks`)
    #[serde(default)]
    pub became_time_wait: u64,
    /// Timewait sockets that left during the session, by reason, whoever's and however old they were. Where leaving is
    /// not observed there is one reason, `unseen`
    #[serde(default)]
    pub left: BTreeMap<Leaving, u64>,
    /// By network namespace
    pub namespaces: Vec<NetnsTimeWait>,
    /// By process, most sockets first
    pub by_process: Vec<ProcessTimeWait>,
    /// Processes left out at the end of `by_process`
    pub processes_omitted: u64,
}

/// Why timewait sockets have no owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnattributedReasons {
    /// They were there when the session began, and the kernel keeps no owner
    pub before_session: u64,
    /// The connection ended during the session, but began to close before it
    pub closing_before_session: u64,
    /// A kernel thread closed them, on nobody's visible behalf
    pub kernel_thread: u64,
    /// Their process closed them in the moment firstfin looked at its open files, and nobody was seen to connect or accept
    #[serde(default)]
    pub closed_under_observation: u64,
    /// Their event was lost, or their socket not followed
    pub event_lost: u64,
    /// No event was seen for them although none is known to be lost
    pub not_seen: u64,
}

/// Timewait sockets of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetnsTimeWait {
    /// Inode number of the namespace
    pub netns: Netns,
    /// Timewait sockets found by sock_diag
    pub total: u64,
    /// What the kernel itself counts
    pub kernel_total: u64,
    /// `net.ipv4.tcp_max_tw_buckets`
    pub max_tw_buckets: Option<u64>,
    /// `net.ipv4.ip_local_port_range`, both ends inclusive
    pub port_range: Option<(u16, u16)>,
    /// Ports of that range that `net.ipv4.ip_local_reserved_ports` leaves
    pub usable_ports: Option<u32>,
    /// `TCPTimeWaitOverflow` during the session
    pub overflowed: u64,
}

/// Timewait sockets of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessTimeWait {
    /// Who ended the sending side of the connections
    pub process: ProcessInfo,
    /// Timewait sockets now, FIN_WAIT2 minisockets not among them
    pub sockets: u64,
    /// FIN_WAIT2 minisockets now
    pub fin_wait2: u64,
    /// Connections that entered during the session
    pub entered: u64,
    /// The same per second of the session
    pub entered_per_s: f64,
    /// Connections of the session for which this process sent the first FIN
    pub closed_first: u64,
    /// Connections of the session that got no timewait socket because `tcp_max_tw_buckets` was reached; where only
    /// tracepoints can be used they are in `entered`
    #[serde(default)]
    pub overflowed: u64,
    /// FIN_WAIT2 minisockets that became TIME_WAIT during the session; 0 where that is not observed
    #[serde(default)]
    pub became_time_wait: u64,
    /// Timewait sockets that entered during the session and left it, by reason. Together with those that are there they
    /// are `entered`
    #[serde(default)]
    pub left: BTreeMap<Leaving, u64>,
    /// Of those now: opened by connect() here
    pub outbound: u64,
    /// Of those now: accepted here
    pub inbound: u64,
    /// The destinations with the most sockets now
    pub destinations: Vec<Destination>,
    /// Destinations left out
    pub destinations_omitted: u64,
}

/// Where connections go to, or come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Destination {
    /// Outbound: address and port connected to. Inbound: the address of the other side (its port means nothing).
    /// Unknown direction: address and port
    pub remote: String,
    /// Inbound: the local address and port that was served
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Which way; none if unknown
    pub direction: Option<Direction>,
    /// Timewait sockets now, FIN_WAIT2 minisockets among them
    pub sockets: u64,
}

/// Which way a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// By connect() here
    Outbound,
    /// By a connect() there, to a listener here
    Inbound,
}

impl From<OpenKind> for Direction {
    fn from(open: OpenKind) -> Self {
        match open {
            OpenKind::Active => Self::Outbound,
            OpenKind::Passive => Self::Inbound,
        }
    }
}

/// A process, as far as it is known. What could not be read is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ProcessInfo {
    /// Process id
    pub pid: u32,
    /// Name of the thread group leader
    pub comm: Name,
    /// Path of the executable
    pub exe: Option<Name>,
    /// cgroup path
    pub cgroup: Option<Name>,
    /// systemd unit
    pub unit: Option<Name>,
    /// Container
    pub container: Option<Container>,
    /// Network namespace of the sockets
    pub netns: Option<Netns>,
    /// It is gone
    pub exited: bool,
}

impl From<&Process> for ProcessInfo {
    /// A process that is there.
    fn from(process: &Process) -> Self {
        Self {
            pid: process.key.tgid,
            comm: process.comm.clone(),
            exe: process.exe.clone(),
            cgroup: process.cgroup.clone(),
            unit: process.unit.clone(),
            container: process.container.clone(),
            netns: process.netns,
            exited: false,
        }
    }
}

/// A bind() or listen() that is refused again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BindFailure {
    /// Who asked; the last one, if a service is started again and again
    pub process: ProcessInfo,
    /// Which call
    pub call: Call,
    /// The address and port it asked for; none if it could not be read
    pub local: Option<String>,
    /// Network namespace of the socket
    pub netns: Netns,
    /// The errno it got
    pub errno: u32,
    /// Its name
    pub error: String,
    /// The options of the refused socket
    pub options: SocketOptions,
    /// What else is known of it
    #[serde(default)]
    pub asker: Asker,
    /// How often
    pub count: u64,
    /// Seconds from the first to the last
    #[serde(default)]
    pub over_s: f64,
    /// How many processes got it
    pub processes: u64,
    /// Who held the port right after the first refusal; the one in the way first, where that is known
    pub holders: Vec<Holder>,
    /// Holders left out
    pub holders_omitted: u64,
    /// Why there is no holder, where one was looked for and not found
    pub holders_unknown: Option<String>,
    /// Why the first holder is in the way; none if none of those found is
    #[serde(default)]
    pub refusal: Option<Refusal>,
    /// What would have let the call through, each by itself
    #[serde(default)]
    pub remedies: Vec<Remedy>,
}

/// Why a socket is in the way of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The kernel's rule; none if it cannot be told without `unknown`
    pub rule: Option<Rule>,
    /// What is not known of the holder and would have to be
    pub unknown: Vec<Fact>,
}

impl Refusal {
    /// The rule, or what would have to be known to name it.
    #[must_use]
    pub fn explain(&self) -> String {
        self.rule.map_or_else(
            || {
                let unknown: Vec<_> = self.unknown.iter().map(|fact| fact.name()).collect();
                format!("not certain: of the holder it is not known: {}", unknown.join(", "))
            },
            |rule| rule.explain().to_owned(),
        )
    }
}

/// A socket that holds a port someone else wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// What it is
    pub kind: HolderKind,
    /// Its local address and port
    pub local: String,
    /// Its remote address and port, if it is a connection
    pub remote: Option<String>,
    /// Whose it is or, for a timewait socket, was; none if unknown
    pub process: Option<ProcessInfo>,
    /// For a timewait socket: seconds until the kernel lets go of it
    pub seconds_left: Option<u64>,
    /// How many sockets like this one there are
    pub sockets: u64,
    /// Other processes that have it open: they inherited it, or were sent it
    #[serde(default)]
    pub also_open_in: Vec<ProcessInfo>,
    /// Its options, as far as they are known; of a timewait socket, those of the socket it came from
    #[serde(default)]
    pub options: HeldOptions,
}

/// What holds a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HolderKind {
    /// A listener
    Listener,
    /// A socket that is bound and nothing else
    Bound,
    /// A connection
    Connection,
    /// A timewait socket in TIME_WAIT
    TimeWait,
    /// A timewait socket in FIN_WAIT2
    FinWait2,
}

/// connect() that fails again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectFailures {
    /// Who connected
    pub process: Option<ProcessInfo>,
    /// Where to (for `handshake_broken`: from where)
    pub remote: String,
    /// Network namespace of the socket
    pub netns: Netns,
    /// Why it failed
    pub cause: ConnectFailure,
    /// The errno the process got; 0 where it got none
    pub errno: u32,
    /// Its name; empty where there is none
    pub error: String,
    /// How often
    pub count: u64,
}

/// Connections that were cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resets {
    /// The process on this side: the one that cut off, or that lost its connection; none if unknown
    pub process: Option<ProcessInfo>,
    /// The other side; see [`Destination::remote`]
    pub remote: String,
    /// Inbound: the local address and port that was served
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Network namespace of the socket
    pub netns: Netns,
    /// How
    pub kind: Reset,
    /// How often
    pub count: u64,
}

/// SYNs from ports that an earlier connection of the same addresses and ports is still known by on the other side, in
/// TIME_WAIT as a rule. They are answered for that one, the answer is answered with a RST, and the SYN is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RejectedSyns {
    /// `outbound`: who connected. `inbound`: who closed the earlier connections first, and has them in TIME_WAIT
    pub process: Option<ProcessInfo>,
    /// `outbound`: sent from here. `inbound`: came here, where that is observed
    pub direction: Direction,
    /// The other side; see [`Destination::remote`]
    pub remote: String,
    /// Inbound: the local address and port that is served
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Network namespace of the socket
    pub netns: Netns,
    /// How often
    pub count: u64,
}

/// Connections that the other side has closed and a process of this host has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloseWait {
    /// Who has them open; null if not known. Looked for at the end of the session, where there are ten or more
    pub process: Option<ProcessInfo>,
    /// The other side; see [`Destination::remote`]
    pub remote: String,
    /// Inbound: the local address and port that is served
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Network namespace of the sockets
    pub netns: Netns,
    /// How many are in CLOSE_WAIT
    pub sockets: u64,
    /// Seconds for which nothing has come from the other side, of the one with the longest: it has been in CLOSE_WAIT for
    /// at least as long
    pub longest_s: f64,
}

/// A port that sockets of different programs have, at addresses that overlap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedPort {
    /// Network namespace of the sockets
    pub netns: Netns,
    /// The port
    pub port: u16,
    /// Who has it. Programs are told apart by executable, name and cgroup
    pub sharers: Vec<PortSharer>,
    /// Sharers left out
    pub sharers_omitted: u64,
}

/// Sockets of one process at a shared port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortSharer {
    /// Whose; null if not known
    pub process: Option<ProcessInfo>,
    /// `listener` or `bound`. Bound sockets are listed by Linux 6.8 and later
    pub kind: HolderKind,
    /// Local address and port
    pub local: String,
    /// How many
    pub sockets: u64,
}

impl PortSharer {
    /// What tells one program from another: workers of one service are the same.
    pub(crate) fn program(&self) -> Option<(&Name, Option<&Name>, Option<&Name>)> {
        let process = self.process.as_ref()?;
        Some((&process.comm, process.exe.as_ref(), process.cgroup.as_ref()))
    }
}

/// How bad it is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing
    #[default]
    Info,
    /// Will hurt if it goes on
    Warning,
    /// Hurts now
    Critical,
}

/// A diagnosed problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Stable name of the kind of problem, for example `BindConflict`
    pub id: String,
    /// How bad it is
    pub severity: Severity,
    /// One sentence that names the process
    pub summary: String,
    /// The process it is about; none if it is about no single one
    pub process: Option<ProcessInfo>,
    /// The network namespace it is about; none if it is about no single one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// The local address and port it is about, as it would stand in the summary (of a forecast: the address alone); none
    /// if it is about no single one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// The remote address and port it is about (inbound: the address alone); none if it is about no single one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Why it is so, where that is known and more than the summary says; else empty
    #[serde(default)]
    pub cause: String,
    /// The numbers behind it
    pub evidence: Vec<String>,
    /// What to do, first things first
    pub remedy: Vec<String>,
    /// What not to do, and why
    #[serde(default)]
    pub avoid: Vec<String>,
    /// Where this kind of finding is explained, in firstfin's sources
    #[serde(default)]
    pub documentation: String,
}
