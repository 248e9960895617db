//! What a look at all sockets of all reachable network namespaces found: the truth the ledger is checked against.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{HeldOptions, Inode, Netns, Process, Rows, SocketRow, TcpState, Timestamp};

/// Sockets of every network namespace that could be looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// When it was begun: what ended before is in it, what ended later may be
    pub at: Timestamp,
    /// One entry a namespace
    pub namespaces: Vec<NetnsCensus>,
    /// Namespaces known to exist, or to have been there, that could not be looked into, with the reason
    pub unreachable: Vec<(Netns, String)>,
}

/// Sockets of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsCensus {
    /// Which namespace
    pub netns: Netns,
    /// When its dump began; a timewait socket's time left counts from here
    pub at: Timestamp,
    /// Its TCP sockets, of both families
    pub rows: Rows,
    /// `tw` of `/proc/net/sockstat`, read so close to the dump that both agree if the kernel does
    pub kernel_time_wait: Option<u64>,
    /// `TCPTimeWaitOverflow` of `/proc/net/netstat`, since the namespace was made
    pub time_wait_overflow: Option<u64>,
    /// Its settings
    pub settings: NetnsSettings,
}

impl NetnsCensus {
    /// The ports that somebody listens at.
    #[must_use]
    pub fn served_ports(&self) -> HashSet<u16> {
        let listening = self.rows.iter().filter(|row| row.state == TcpState::Listen);
        listening.map(|row| row.connection.local.port()).collect()
    }
}

/// A socket that has a port, and what its row does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSocket {
    /// Its row
    pub row: SocketRow,
    /// The processes that have it open, oldest first; none for a timewait socket, an orphan, or where they may not be
    /// looked at
    pub processes: Vec<Process>,
    /// Its options, as far as they could be read
    pub options: HeldOptions,
}

/// Settings of a network namespace that decide about ports and TIME_WAIT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsSettings {
    /// `net.ipv4.tcp_max_tw_buckets`
    pub max_tw_buckets: Option<u64>,
    /// `net.ipv4.ip_local_port_range`, both ends inclusive
    pub port_range: Option<(u16, u16)>,
    /// Ports of that range that `net.ipv4.ip_local_reserved_ports` leaves
    pub usable_ports: Option<u32>,
    /// `net.ipv4.ip_local_reserved_ports`: ranges, both ends inclusive. Older recordings do not have them
    #[serde(default)]
    pub reserved_ports: Option<Vec<(u16, u16)>>,
    /// `net.ipv4.tcp_tw_reuse`: 0 off, 1 on, 2 on loopback only
    pub tw_reuse: Option<u8>,
    /// `net.ipv4.tcp_tw_reuse_delay`, milliseconds: how old a TIME_WAIT has to be for that. Linux 6.14 and later
    #[serde(default)]
    pub tw_reuse_delay_ms: Option<u32>,
    /// `net.ipv4.tcp_timestamps`: reuse of TIME_WAIT needs them
    pub timestamps: Option<u8>,
    /// `net.ipv4.tcp_fin_timeout`, seconds: how long a FIN_WAIT2 minisocket waits
    pub fin_timeout_s: Option<u32>,
}

/// Who holds which socket, by a walk over every process's descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketHolders {
    /// The processes that have a descriptor of the socket open; more than one after fork() or SCM_RIGHTS. Oldest first:
    /// that one has passed it on. (Recordings of older versions have them in no order)
    pub by_inode: std::collections::HashMap<Inode, Vec<Process>>,
    /// Processes whose descriptors could not be read
    pub unreadable: u64,
}
