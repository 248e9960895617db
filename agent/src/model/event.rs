//! What the kernel tells: decoded records.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Connection, Ending, Netns, SocketId, Task, TcpState, TimeWaitEvent, TimeWaitMade, Timestamp};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A socket changed its state
    Transition(Transition),
    /// A connection that was opened here ended, after the other side had closed it
    ClosedByPeer(ClosedByPeer),
    /// The transition before, of the same socket, did not lead to a timewait socket after all
    Retraction(Retraction),
    /// bind() or listen() was refused
    Refused(RefusedCall),
    /// A process is seen for the first time
    ProcessSeen(Task),
    /// Something happened to a timewait socket
    TimeWait(TimeWaitEvent),
}

impl Event {
    /// When; none of a process that is seen for the first time.
    #[must_use]
    pub const fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Transition(transition) => Some(transition.at),
            Self::ClosedByPeer(end) => Some(end.at),
            Self::Retraction(retraction) => Some(retraction.at),
            Self::Refused(call) => Some(call.at),
            Self::TimeWait(event) => Some(event.at),
            Self::ProcessSeen(_) => None,
        }
    }
}

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenKind {
    /// connect() here: outbound
    Active,
    /// A listener here: inbound
    Passive,
}

/// What was known of a socket when it changed its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFacts {
    /// It began during the session, also where [`Transition::born`] is not told
    #[serde(default)]
    pub began_in_session: bool,
    /// Somebody closed it, but who that was got lost
    #[serde(default)]
    pub closer_lost: bool,
    /// Somebody opened it, but who that was got lost
    #[serde(default)]
    pub opener_lost: bool,
    /// The local port was chosen by bind(), before connect()
    pub port_bound: bool,
    /// It was established, as far as the session saw it
    pub established: bool,
    /// This side sent the first FIN
    pub fin_first: bool,
    /// The other side did
    pub fin_second: bool,
    /// A FIN was received
    pub fin_received: bool,
    /// A RST ended it
    pub reset_received: bool,
    /// A RST was sent before the transition
    pub reset_sent: bool,
    /// The other side answered the SYN for an earlier connection of the same four numbers, and was sent a RST (RFC 9293,
    /// 3.10.7.3); the SYN is then sent again
    #[serde(default)]
    pub syn_rejected: bool,
    /// `sk_err`, 0 for none
    pub errno: u32,
    /// What the search for a local port came back with; 0 for none, or not observed
    #[serde(default)]
    pub port_errno: u32,
    /// Both directions are shut down (`SHUTDOWN_MASK`)
    pub is_shut_down: bool,
    /// It has a `struct socket`: it was accepted and not closed
    pub has_socket: bool,
    /// connect() has not returned successfully, nor gone on in the background (`SS_UNCONNECTED`)
    pub is_unconnected: bool,
    /// SO_LINGER with a time of zero
    pub linger_zero: bool,
    /// What a timewait socket made of it keeps; none in recordings of older versions
    #[serde(default)]
    pub options: Option<SocketOptions>,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When
    pub at: Timestamp,
    /// Which socket
    pub socket: SocketId,
    /// Which connection; the local port is 0 if none was chosen yet
    pub connection: Connection,
    /// State before
    pub old: TcpState,
    /// State after
    pub new: TcpState,
    /// How it was opened; none if that was before the session
    pub opened: Option<OpenKind>,
    /// When it was first seen; none if that was before the session, or for a report, which does not ask
    pub born: Option<Timestamp>,
    /// The process that connected or, for a listener, called listen()
    pub opener: Option<Arc<Task>>,
    /// The process that accepted it, where accept() is observed
    #[serde(default)]
    pub accepter: Option<Arc<Task>>,
    /// The process whose close(), shutdown() or exit ended the sending side
    pub closer: Option<Arc<Task>>,
    /// What it got in the place of its socket; none where that is not observed
    #[serde(default)]
    pub timewait: Option<TimeWaitMade>,
    /// The rest
    pub facts: SocketFacts,
}

impl Transition {
    /// Whether it began before the session.
    #[must_use]
    pub const fn is_older(&self) -> bool {
        self.born.is_none() && !self.facts.began_in_session
    }

    /// How the connection ended, if this is its end.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        Ending::of(self)
    }
}

/// See [`Event::ClosedByPeer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedByPeer {
    /// When
    pub at: Timestamp,
    /// Network namespace of this end
    pub netns: Netns,
    /// Address here
    pub local: IpAddr,
    /// Address and port there
    pub remote: SocketAddr,
}

/// See [`Event::Retraction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retraction {
    /// When
    pub at: Timestamp,
    /// Which socket
    pub socket: SocketId,
    /// Which connection
    pub connection: Connection,
}

/// A system call that claims a local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// bind(2)
    Bind,
    /// listen(2)
    Listen,
}

/// Socket options that decide who may share a port.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct SocketOptions {
    /// SO_REUSEADDR
    pub reuse_address: bool,
    /// SO_REUSEPORT
    pub reuse_port: bool,
    /// IPV6_V6ONLY
    pub v6_only: bool,
}

/// A socket that asks for a port, apart from the options that decide who shares one. `None` is not known.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Asker {
    /// The user it belongs to (`sk_uid`), who need not be the one that asks
    pub uid: Option<u32>,
    /// Index of the interface it is bound to (SO_BINDTODEVICE); 0 for none
    pub device: Option<u32>,
    /// IP_FREEBIND: the address need not be one of this host
    pub free_bind: Option<bool>,
    /// IP_BIND_ADDRESS_NO_PORT: a port is chosen by connect(), not by bind()
    pub bind_address_no_port: Option<bool>,
}

/// A refused bind() or listen().
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCall {
    /// When
    pub at: Timestamp,
    /// Which call
    pub call: Call,
    /// Network namespace of the socket
    pub netns: Netns,
    /// The address it asked for; none if it could not be read
    pub local: Option<SocketAddr>,
    /// Why it was refused
    pub errno: u32,
    /// The options the socket had
    pub options: SocketOptions,
    /// What else is known of the socket
    #[serde(default)]
    pub asker: Asker,
    /// Who asked
    pub task: Task,
}
