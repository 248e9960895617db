//! Ephemeral ports, as a report shows them.

mod build;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use build::{build, sockets_to_name};

use super::{HolderKind, PortSearch, ProcessInfo};
use crate::model::Netns;

/// Ephemeral ports at the end of the session.
///
/// Which side opened a connection is not in a dump: one whose local port has a listener counts as inbound, any other on a
/// port that connect() could have chosen as outbound. A range of a socket's own (IP_LOCAL_PORT_RANGE) cannot be seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ports {
    /// By network namespace
    pub namespaces: Vec<NetnsPorts>,
    /// By destination, those first that use or used the largest share of the usable ports
    pub destinations: Vec<PortUse>,
    /// Destinations left out
    pub destinations_omitted: u64,
    /// How long connect() looked for a port, on the whole host during the session; null where that is not observed, or
    /// none was looked for. It grows long before the ports run out
    #[serde(default)]
    pub search: Option<PortSearch>,
    /// Destinations whose rate or peak found no room; their ports are counted all the same
    pub rates_evicted: u64,
}

/// What connect() can choose from in a network namespace, and the settings that decide about it. What could not be read
/// is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetnsPorts {
    /// Inode number of the namespace
    pub netns: Netns,
    /// `net.ipv4.ip_local_port_range`, both ends inclusive
    pub range: Option<(u16, u16)>,
    /// Ports of it that `net.ipv4.ip_local_reserved_ports` takes out
    pub reserved: Option<u64>,
    /// Ports of it that a listener or a bound-only socket takes out, for everybody and whatever its address is: connect()
    /// passes over them. Before Linux 6.8 bound-only sockets are looked for when a call has found no port. Ports that
    /// bind() fixed for a connection are not among them: a dump does not tell them from chosen ones
    pub poisoned: Option<u64>,
    /// The most that were whenever it was looked during the session
    pub peak_poisoned: Option<u64>,
    /// Ports that are left
    pub usable: Option<u64>,
    /// Ports of the range that any socket has, towards whom it may be. bind() to port 0 cannot have them, unless for
    /// another address
    pub taken: Option<u64>,
    /// `net.ipv4.tcp_tw_reuse`: 0 never, 1 always, 2 on loopback only
    pub tw_reuse: Option<u8>,
    /// `net.ipv4.tcp_tw_reuse_delay`, milliseconds; null before Linux 6.14, where it is one second
    pub tw_reuse_delay_ms: Option<u32>,
    /// `net.ipv4.tcp_timestamps`: without them no TIME_WAIT is reused
    pub timestamps: Option<u8>,
    /// Who takes ports out, most ports first
    pub poisoned_by: Vec<PoisonedBy>,
}

/// A process that takes ephemeral ports out by binding them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoisonedBy {
    /// Who; null if not known. Looked for at the end of the session, when ports run short
    pub process: Option<ProcessInfo>,
    /// By a `listener` or a `bound` socket
    pub kind: HolderKind,
    /// How many ports
    pub ports: u64,
    /// One of its sockets: local address and port
    pub example: String,
}

/// Ports in use from a local address towards a remote address and port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortUse {
    /// Inode number of the network namespace
    pub netns: Netns,
    /// Local address
    pub local: String,
    /// Remote address and port
    pub remote: String,
    /// Ports that the next connect() cannot have: those of `live` and of `time_wait`, less `reusable`
    pub used: u64,
    /// Ports there are
    pub usable: u64,
    /// The most that were in use whenever it was looked during the session: every ten seconds, when a
    /// connect() found none, and at the end
    pub peak_used: u64,
    /// Ports of connections that are alive
    pub live: u64,
    /// Ports of timewait sockets, FIN_WAIT2 minisockets among them
    pub time_wait: u64,
    /// Of those: ports that connect() could take over (`tcp_tw_reuse`), if the other side uses TCP timestamps too
    pub reusable: u64,
    /// Of the ports of `live` and `time_wait`: those of the parity that connect() tries second, the odd ones if the range
    /// begins with an even port. More than a few: the other half has run out, and each connect() searches longer
    pub second_choice: u64,
    /// Who uses them, most ports first
    pub processes: Vec<PortUser>,
    /// Processes left out
    pub processes_omitted: u64,
    /// How fast connections end; null if too few have during the session
    pub rate: Option<PortRate>,
    /// What becomes of the ports if it goes on like this; null without a rate
    pub forecast: Option<PortForecast>,
}

/// Ports of a process towards a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortUser {
    /// Who; null: not known. Of live connections it is looked for at the end of the session, when ports run short
    pub process: Option<ProcessInfo>,
    /// Ports of its live connections
    pub live: u64,
    /// Ports of timewait sockets it left
    pub time_wait: u64,
}

/// How fast connections of a destination end, over the last 30 seconds at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortRate {
    /// Connections that entered TIME_WAIT, per second
    pub time_wait_per_s: f64,
    /// The lowest that may be, given how unevenly they came (two standard errors)
    pub lowest_per_s: f64,
    /// The highest
    pub highest_per_s: f64,
    /// Connections that ended in any way, per second
    pub ended_per_s: f64,
    /// Seconds that this was observed for
    pub seconds: f64,
}

/// What becomes of the ports of a destination.
///
/// It rests on the rate, on the time each timewait socket has left, and on live connections staying as many as they are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortForecast {
    /// In one word
    pub outcome: PortOutcome,
    /// Seconds from the end of the session until no port is left; null if they last
    pub seconds: Option<f64>,
    /// The same at the highest rate that may be
    pub seconds_soonest: Option<f64>,
    /// The same at the lowest
    pub seconds_latest: Option<f64>,
    /// Ports in use when as many come back as are taken; null if they do not last
    pub level: Option<u64>,
}

/// See [`PortForecast`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortOutcome {
    /// No port is left now
    Exhausted,
    /// They will run out
    RunsOut,
    /// They last
    LevelsOff,
}

impl Ports {
    /// What is said of a namespace.
    #[must_use]
    pub fn namespace(&self, netns: Netns) -> Option<&NetnsPorts> {
        self.namespaces.iter().find(|namespace| namespace.netns == netns)
    }

    /// The use of a remote address and port that took the largest share; there may be several, from different local
    /// addresses.
    #[must_use]
    pub fn towards(&self, netns: Netns, remote: &str) -> Option<&PortUse> {
        let mut all = self.destinations.iter();
        all.find(|destination| destination.netns == netns && destination.remote == remote)
    }
}
