//! How a connection ended, read from its last transition. The kernel has no such word: it is deduced here, and each
//! rule names the code it rests on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TcpState, TimeWaitMade, TimeWaitSubstate, Transition, errno::EADDRNOTAVAIL};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// This side sent the first FIN (or both at once) and left a timewait socket.
    TimeWait {
        /// What it began as
        substate: TimeWaitSubstate,
        /// Both sides closed at the same time
        simultaneous: bool,
    },
    /// The same, but it got no timewait socket: `tcp_max_tw_buckets` was reached. Nothing protects its successors.
    TimeWaitRefused {
        /// Both sides closed at the same time
        simultaneous: bool,
    },
    /// The other side sent the first FIN, this side the last one: nothing is left here.
    PassiveClose,
    /// It was cut off.
    Reset(Reset),
    /// It was never established.
    ConnectFailed(ConnectFailure),
    /// The kernel gave up on it; positive errno (ETIMEDOUT, EHOSTUNREACH ...), 0 for an orphan that ran out of
    /// retries or memory.
    GaveUp {
        /// `sk_err`
        errno: u32,
    },
    /// A listener was closed.
    ListenerClosed,
}

/// Who cut a connection off, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// A RST arrived, or data for a socket that was already closed here (the kernel treats both alike, `tcp_reset()`).
    Received,
    /// close() with SO_LINGER on and a time of zero.
    LingerZero,
    /// close() while received data was unread (RFC 2525, section 2.17).
    UnreadData,
    /// connect() to `AF_UNSPEC`.
    Disconnected,
    /// The listener was closed before anybody accepted the connection.
    NotAccepted,
    /// Destroyed from outside: SOCK_DESTROY (`ss -K`).
    Destroyed,
}

/// Why connect() failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectFailure {
    /// No free ephemeral port towards this destination: EADDRNOTAVAIL, with no local port chosen.
    NoFreePort,
    /// The local port was chosen before, and this connection (all four numbers) exists already: EADDRNOTAVAIL.
    TupleInUse,
    /// A RST answered: ECONNREFUSED.
    Refused,
    /// Nothing answered: ETIMEDOUT.
    TimedOut,
    /// The network said no: EHOSTUNREACH, ENETUNREACH and their like.
    Unreachable,
    /// The process gave up: it closed the socket before the connection was made.
    Abandoned,
    /// A connection that came in broke off before it was established.
    HandshakeBroken,
    /// Anything else; the errno tells.
    Other,
}

// include/uapi/asm-generic/errno.h
const EPIPE: u32 = 32;
const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTDOWN: u32 = 112;
const EHOSTUNREACH: u32 = 113;
const ENETDOWN: u32 = 100;
const ENETUNREACH: u32 = 101;

impl Ending {
    pub(super) fn of(transition: &Transition) -> Option<Self> {
        if transition.new != TcpState::Close {
            return None;
        }
        let facts = &transition.facts;
        let ending = match transition.old {
            // Not the end of a connection: an MPTCP socket, or a retraction, which has its own event.
            TcpState::Close => return None,
            TcpState::Listen => Self::ListenerClosed,
            TcpState::SynSent => Self::ConnectFailed(connect_failure(transition)),
            TcpState::SynRecv if !facts.established => Self::ConnectFailed(ConnectFailure::HandshakeBroken),
            TcpState::FinWait2 | TcpState::Closing if is_time_wait(transition) => {
                let simultaneous = transition.old == TcpState::Closing;
                match transition.timewait {
                    Some(TimeWaitMade::Refused) => Self::TimeWaitRefused { simultaneous },
                    Some(TimeWaitMade::Made { substate, .. }) => Self::TimeWait { substate, simultaneous },
                    // tcp_fin() sets SOCK_DONE before tcp_time_wait(TCP_TIME_WAIT); without a FIN it is
                    // tcp_time_wait(TCP_FIN_WAIT2).
                    None if facts.fin_received => Self::TimeWait { substate: TimeWaitSubstate::TimeWait, simultaneous },
                    None => Self::TimeWait { substate: TimeWaitSubstate::FinWait2, simultaneous },
                }
            }
            _ if facts.reset_received => Self::Reset(Reset::Received),
            TcpState::LastAck => match facts.errno {
                0 => Self::PassiveClose,
                ECONNABORTED => Self::Reset(Reset::Destroyed),
                errno => Self::GaveUp { errno },
            },
            TcpState::Established | TcpState::CloseWait | TcpState::SynRecv => cut_off(transition),
            // FIN_WAIT1, FIN_WAIT2 and CLOSING: an orphan that ran out of retries, or was destroyed.
            _ if facts.errno == ECONNABORTED => Self::Reset(Reset::Destroyed),
            _ => Self::GaveUp { errno: facts.errno },
        };
        Some(ending)
    }

    /// errno of a failed connect() as the process gets it; 0 where there is no failure to report.
    #[must_use]
    pub const fn connect_errno(self, transition: &Transition) -> u32 {
        match self {
            Self::ConnectFailed(ConnectFailure::NoFreePort | ConnectFailure::TupleInUse) => EADDRNOTAVAIL,
            Self::ConnectFailed(_) if transition.facts.port_errno != 0 => transition.facts.port_errno,
            Self::ConnectFailed(_) => transition.facts.errno,
            _ => 0,
        }
    }
}

/// Every caller of `tcp_time_wait()` lets the full socket go from FIN_WAIT2 or CLOSING. A socket that goes there
/// without a timewait socket has had an error set, or a RST received or sent, before it.
const fn is_time_wait(transition: &Transition) -> bool {
    let facts = &transition.facts;
    transition.timewait.is_some()
        || !facts.reset_received
            && !facts.reset_sent
            && !matches!(facts.errno, ECONNABORTED | ECONNRESET | EPIPE | ETIMEDOUT)
}

/// `__tcp_close()`, `tcp_disconnect()`, `tcp_abort()`, in the order in which they can be told apart.
const fn cut_off(transition: &Transition) -> Ending {
    let facts = &transition.facts;
    // tcp_abort() (SOCK_DESTROY) sets ECONNABORTED; a close() that finds an old error set is still a close().
    if facts.is_shut_down {
        return Ending::Reset(if facts.linger_zero { Reset::LingerZero } else { Reset::UnreadData });
    }
    match facts.errno {
        0 if facts.has_socket => Ending::Reset(Reset::Disconnected),
        0 => Ending::Reset(Reset::NotAccepted),
        ECONNABORTED => Ending::Reset(Reset::Destroyed),
        errno => Ending::GaveUp { errno },
    }
}

/// `tcp_v4_connect()` sets SYN_SENT before it looks for a port and takes it back if there is none; everything later
/// finds the port chosen.
const fn connect_failure(transition: &Transition) -> ConnectFailure {
    let facts = &transition.facts;
    match (facts.port_errno, transition.connection.local.port()) {
        (0 | EADDRNOTAVAIL, 0) => return ConnectFailure::NoFreePort,
        (EADDRNOTAVAIL, _) => return ConnectFailure::TupleInUse,
        (0, _) => {}
        // No memory, or a policy.
        _ => return ConnectFailure::Other,
    }
    match facts.errno {
        ECONNREFUSED => ConnectFailure::Refused,
        ETIMEDOUT => ConnectFailure::TimedOut,
        EHOSTUNREACH | EHOSTDOWN | ENETUNREACH | ENETDOWN => ConnectFailure::Unreachable,
        // __inet_stream_connect() leaves SS_UNCONNECTED only when the protocol's connect() succeeded.
        0 if !facts.is_shut_down && facts.is_unconnected => ConnectFailure::TupleInUse,
        0 => ConnectFailure::Abandoned,
        _ => ConnectFailure::Other,
    }
}
