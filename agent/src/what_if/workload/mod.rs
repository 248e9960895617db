//! What a recording tells of the work that was done: who wanted a connection to whom, when and for how long.
//!
//! What it does not tell is counted in [`Gaps`], and every count is said.

mod collect;
mod finish;
mod pair;

use std::{net::SocketAddr, time::Duration};

pub use self::collect::{Collector, read};
use crate::{
    model::{Connection, Name, Netns, NetnsCensus, ProcessKey, TimeWaitSubstate, Timestamp},
    ports::Route,
};

/// A process that has connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Which one
    pub key: ProcessKey,
    /// Its name
    pub comm: Name,
}

/// What stays behind when a connection was closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lingering {
    /// How long after the end TIME_WAIT began: at once, unless the other side's FIN came later. None: it never did, and a
    /// FIN_WAIT2 minisocket is all there was
    pub becomes: Option<Duration>,
    /// How long after the end it was taken away by something no model knows of: a RST, SOCK_DESTROY, the end of its namespace
    pub cut: Option<Duration>,
}

/// How an end of a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Before the other end: it leaves TIME_WAIT
    First(Lingering),
    /// After the other end: nothing is left
    Second,
    /// It was cut off, given up, or never made: nothing is left
    Neither,
}

impl Close {
    /// A close that the other side answers at once.
    pub const FIRST: Self = Self::First(Lingering { becomes: Some(Duration::ZERO), cut: None });
}

/// Who gave a client's end its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortBy {
    /// connect(): it would be another one today
    Connect,
    /// bind(), or a connect() before the recording: it is what it is
    Fixed,
    /// bind(), which takes the port out for everybody
    Bind,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Where it was; the local port is 0 for an attempt that found none
    pub connection: Connection,
    /// Whose it was, a place in [`Workload::programs`]; none if that is not known
    pub program: Option<usize>,
    /// How long after the connection's beginning it ended; none: it was still open at the recording's end
    pub lasted: Option<Duration>,
    /// How it was closed
    pub close: Close,
    /// Who gave it its port
    pub port: PortBy,
}

/// A connection, or an attempt to make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When it began
    pub begun: Timestamp,
    /// The end that called connect(), if it is on this host; one of the two is
    pub client: Option<End>,
    /// The end that was accepted
    pub server: Option<End>,
    /// connect() found no port for it: how long it would have lasted, and how ended, is what others of its kind did
    pub failed: bool,
}

/// A timewait socket that was there when the recording began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OlderTimeWait {
    /// Whose four numbers it keeps
    pub connection: Connection,
    /// Since when it is counted
    pub since: Timestamp,
    /// When its time is over
    pub until: Timestamp,
    /// What it was
    pub substate: TimeWaitSubstate,
    /// Its port is one that connect() could have chosen
    pub is_outbound: bool,
}

/// The settings of a namespace from a time on, and the sockets that take ports out (the rows are those).
pub type Look = NetnsCensus;

/// What a dump during the recording counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When
    pub at: Timestamp,
    /// Where
    pub netns: Netns,
    /// Timewait sockets, FIN_WAIT2 minisockets among them
    pub time_wait: u64,
    /// Ports that connect() could not have, of the routes that used the most
    pub used: Vec<(Route, u32)>,
}

/// What the recording does not tell: how many of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Connections whose beginning is not recorded
    pub births: u64,
    /// Connections still open at the end
    pub open_at_end: u64,
    /// Of those: the ones that began during the recording, at a time that is not known
    pub begun_between: u64,
    /// Connections of which only the destination is recorded
    pub anonymous: u64,
    /// Records that were lost or not understood
    pub lost: u64,
    /// Connections of which it is not recorded who opened them
    pub direction: u64,
    /// FIN_WAIT2 minisockets of which it is not recorded when they became TIME_WAIT
    pub becoming: u64,
    /// Failed attempts without a connection of their kind that had one
    pub without_example: u64,
    /// Namespaces whose port range is not known
    pub namespaces: u64,
    /// Clients whose port was given by bind()
    pub bound: u64,
}

/// Everything a model needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Wall clock at its beginning, RFC 3339
    pub started_at: String,
    /// When the recording began
    pub begun: Timestamp,
    /// When it ended
    pub ended: Timestamp,
    /// How long TIME_WAIT lasted: the kernel's timer for a minute may be seconds late
    pub time_wait: Duration,
    /// Processes
    pub programs: Vec<Program>,
    /// Connections and attempts, by their beginning
    pub exchanges: Vec<Exchange>,
    /// Timewait sockets of before
    pub older: Vec<OlderTimeWait>,
    /// Settings, by time; the first one of a namespace counts for the time before it as well
    pub looks: Vec<Look>,
    /// What was counted meanwhile, by time
    pub samples: Vec<Sample>,
    /// What is not known
    pub gaps: Gaps,
    /// What the session had to do without, in its own words
    pub blind_spots: Vec<String>,
}

impl Workload {
    /// Attempts that found no port.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.exchanges.iter().filter(|exchange| exchange.failed).count() as u64
    }
}

/// Where a client's connection leads to, whichever port and address it is from.
pub(super) fn destination(end: &End) -> (Netns, SocketAddr) {
    (end.connection.netns, end.connection.remote)
}
