//! Sockets and what names them.

use std::{fmt, net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TcpState;

/// A network namespace, by the inode number `/proc/PID/ns/net` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Netns(pub u32);

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A socket's inode number, as `/proc/PID/fd` shows it (`socket:[N]`). 0: the socket has none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inode(pub u64);

/// Address of the kernel's `struct sock`. Names a socket from its first event to its last, and another one soon after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketId(pub u64);

/// Address of the kernel's `struct inet_timewait_sock`. Names a timewait socket until it has left, and another one soon
/// after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeWaitId(pub u64);

/// What names a connection on this host: one end of it, in its namespace.
///
/// IPv4-mapped IPv6 addresses are written as IPv4, so that both ends of one connection look alike whatever the family
/// of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Connection {
    /// Network namespace of this end
    pub netns: Netns,
    /// Address and port here
    pub local: SocketAddr,
    /// Address and port there
    pub remote: SocketAddr,
}

/// What a timewait socket stands for (`tw_substate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeWaitSubstate {
    /// TIME_WAIT proper: both FINs are through, 60 s to go (`TCP_TIMEWAIT_LEN`).
    TimeWait,
    /// Orphaned FIN_WAIT2 that the kernel keeps in the same small socket: the peer's FIN is still to come.
    FinWait2,
}

/// Options of a socket that has a port, as far as they are known: sock_diag does not tell them. `None` is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct HeldOptions {
    /// SO_REUSEADDR
    pub reuse_address: Option<bool>,
    /// SO_REUSEPORT
    pub reuse_port: Option<bool>,
    /// V6ONLY as the kernel has it; means nothing for an IPv4 socket
    pub v6_only: Option<bool>,
    /// Index of the interface it is bound to (SO_BINDTODEVICE); 0 for none
    pub device: Option<u32>,
}

/// A row of a sock_diag dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketRow {
    /// Where it is
    pub connection: Connection,
    /// Its state; of a timewait socket the substate
    pub state: TcpState,
    /// For a timewait socket: time left before the kernel lets it go
    pub time_wait_left: Option<Duration>,
    /// Its inode, unless it has none (a timewait socket, an orphan)
    pub inode: Option<Inode>,
    /// Owner's user id as sock_diag says it; 0 for a timewait socket, whatever its owner was
    pub uid: u32,
    /// How long nothing has come from the other side (`tcpi_last_ack_recv`); asked of sockets in CLOSE_WAIT only, which
    /// have been so for at least as long
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_for: Option<Duration>,
}

impl SocketRow {
    /// Which kind of timewait socket this is, if it is one.
    #[must_use]
    pub const fn substate(&self) -> Option<TimeWaitSubstate> {
        match (self.time_wait_left, self.state) {
            (None, _) => None,
            (Some(_), TcpState::FinWait2) => Some(TimeWaitSubstate::FinWait2),
            (Some(_), _) => Some(TimeWaitSubstate::TimeWait),
        }
    }
}
