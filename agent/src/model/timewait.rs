//! What becomes of timewait sockets, where the kernel can be watched at it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Connection, TimeWaitId, TimeWaitSubstate, Timestamp};

/// What a connection got when it should have entered TIME_WAIT (`inet_twsk_alloc()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeWaitMade {
    /// A timewait socket
    Made {
        /// Its name
        id: TimeWaitId,
        /// What it stands for at first
        substate: TimeWaitSubstate,
    },
    /// None: `tcp_max_tw_buckets` was reached, or memory was short (`TCPTimeWaitOverflow`)
    Refused,
}

/// Something that happened to a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWaitEvent {
    /// When
    pub at: Timestamp,
    /// Which one
    pub id: TimeWaitId,
    /// Whose four numbers it keeps
    pub connection: Connection,
    /// What
    pub change: TimeWaitChange,
}

/// What can happen to a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeWaitChange {
    /// The peer's FIN came: a FIN_WAIT2 minisocket is in TIME_WAIT from here on
    Became,
    /// It stays: a SYN came that may not have its four numbers, and was answered for the connection it stands for
    SynRejected,
    /// It is gone
    Left(Leaving),
}

/// Why a timewait socket went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// TIME_WAIT was over: 60 s, as it should be
    Expired,
    /// FIN_WAIT2 was over (`tcp_fin_timeout`): the peer never sent its FIN
    FinNeverCame,
    /// connect() took the four numbers over (`tcp_tw_reuse`, or a local port chosen before), RFC 6191
    Reused,
    /// A SYN of the peer made a new connection of the four numbers
    NewSyn,
    /// A RST arrived: TIME_WAIT protected nothing (RFC 1337)
    Reset,
    /// Data, or a SYN, came for a connection that was closed here; a RST was sent
    ResetAfterData,
    /// Destroyed from outside: SOCK_DESTROY (`ss -K`)
    Destroyed,
    /// Its network namespace was dismantled
    NetnsGone,
    /// The kernel took it away in none of the known ways
    Unexplained,
    /// A dump of all sockets did not show it any more; nobody watched it go
    Unseen,
}

impl Leaving {
    /// Every reason, each in the place of its number.
    pub const ALL: [Self; 10] = [
        Self::Expired,
        Self::FinNeverCame,
        Self::Reused,
        Self::NewSyn,
        Self::Reset,
        Self::ResetAfterData,
        Self::Destroyed,
        Self::NetnsGone,
        Self::Unexplained,
        Self::Unseen,
    ];
}
