//! Who owns which timewait socket.
//!
//! The kernel keeps no owner with a timewait socket. The ledger does, from the moment a connection enters until the
//! kernel is seen to take its timewait socket away or, where that cannot be watched, two dumps no longer show it. It is
//! never counted by itself: what is *now* in TIME_WAIT is what sock_diag lists, and the
//! ledger only says whose each row is. So a lost event can cost an owner, but never skew a count.
//!
//! A row is matched by namespace and both endpoints. The same four numbers can come back, so an entry that is too old
//! to be the row it matches is not believed (`Entry::explains`).

use std::{collections::hash_map, time::Duration};

use super::turnover::Turnover;
use crate::{
    hash::{FastMap, FastSet},
    model::{
        Census, Connection, Leaving, Netns, OpenKind, ProcessKey, SocketId, SocketOptions, SocketRow, TimeWaitId,
        TimeWaitSubstate, Timestamp,
    },
};

/// `TCP_TIMEWAIT_LEN`, include/net/tcp.h: a constant, not a setting.
pub(super) const TIME_WAIT_LENGTH: Duration = Duration::from_secs(60);
/// The longest an orphaned FIN_WAIT2 is kept as a minisocket (`tcp_fin_timeout` beyond that is spent as a full socket).
const FIN_WAIT2_LENGTH: Duration = Duration::from_secs(60);
/// What the kernel's timer wheel may be late by, and a dump may take.
const SLACK: Duration = Duration::from_secs(8);
/// Timewait sockets that left before they entered: another CPU took them away within microseconds, and its record came
/// first. They wait for the next census.
const MAX_EARLY: usize = 4_096;

/// Whose a timewait socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The process that ended the sending side; where a kernel thread did it for one, the process that connected
    Process(ProcessKey),
    /// A kernel thread, on nobody's visible behalf
    KernelThread,
    /// The agent itself, which looked at the descriptor when its process closed it
    Agent,
    /// The connection began to close before the session
    ClosedBefore,
}

impl Owner {
    /// The process, if it is one's.
    pub(super) const fn process(self) -> Option<ProcessKey> {
        match self {
            Self::Process(key) => Some(key),
            Self::KernelThread | Self::Agent | Self::ClosedBefore => None,
        }
    }
}

/// What the ledger says of a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Which socket it was
    pub(super) socket: SocketId,
    /// And which timewait socket it is, where that is observed
    pub(super) timewait: Option<TimeWaitId>,
    /// Whose it is
    pub(super) owner: Owner,
    /// Which way the connection was opened, if that is known
    pub(super) opened: Option<OpenKind>,
    /// When it entered
    pub(super) entered: Timestamp,
    /// The options it keeps, if they are known
    pub(super) options: Option<SocketOptions>,
}

impl Entry {
    /// Whether this entry can be the row of a dump: a timewait socket lives for 60 s at most after its FIN_WAIT2 time,
    /// unless retransmissions restart its clock, which also leaves it with more time than it could have otherwise.
    fn explains(&self, row: &SocketRow, dumped: Timestamp) -> bool {
        let left = row.time_wait_left.unwrap_or_default();
        let length = match row.substate() {
            Some(TimeWaitSubstate::FinWait2) => FIN_WAIT2_LENGTH,
            _ => TIME_WAIT_LENGTH,
        };
        // When the row's clock was last started.
        let started = dumped.minus(length.saturating_sub(left));
        started.since(self.entered) <= FIN_WAIT2_LENGTH + TIME_WAIT_LENGTH + SLACK
    }
}

/// The table of timewait sockets.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: FastMap<Connection, Entry>,
    /// Those the last census did not show
    missing: FastSet<Connection>,
    early: FastMap<(Connection, TimeWaitId), Leaving>,
    limit: usize,
    evicted: u64,
}

impl Ledger {
    /// An empty ledger of at most `limit` entries.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Notes that a connection entered. If one with the same four numbers is here still, it must have left.
    pub(super) fn enter(&mut self, connection: Connection, entry: Entry, turnover: &mut Turnover) {
        // Nearly always empty, and to look something up in it takes as long as in the other one.
        if !self.early.is_empty()
            && let Some(why) = entry.timewait.and_then(|id| self.early.remove(&(connection, id)))
        {
            return turnover.left(entry.owner, why);
        }
        if self.entries.len() >= self.limit && !self.entries.contains_key(&connection) {
            self.evicted += 1;
            return turnover.left(entry.owner, Leaving::Unseen);
        }
        self.found(&connection);
        if let Some(before) = self.entries.insert(connection, entry) {
            turnover.left(before.owner, Leaving::Unseen);
        }
    }

    /// What is known of a timewait socket. An entry that was made without its name is recognised by its connection.
    pub(super) fn get(&self, connection: &Connection, id: TimeWaitId) -> Option<&Entry> {
        self.entries.get(connection).filter(|entry| entry.timewait.is_none_or(|known| known == id))
    }

    /// Notes that a timewait socket left, and forgets it.
    pub(super) fn leave(&mut self, connection: &Connection, id: TimeWaitId, why: Leaving) -> Option<Entry> {
        match self.entries.entry(*connection) {
            hash_map::Entry::Occupied(entry) if entry.get().timewait.is_none_or(|known| known == id) => {
                let entry = entry.remove();
                self.found(connection);
                Some(entry)
            }
            _ => {
                if self.early.len() < MAX_EARLY {
                    self.early.insert((*connection, id), why);
                }
                None
            }
        }
    }

    /// A connection that the last census did not show is accounted for.
    fn found(&mut self, connection: &Connection) {
        if !self.missing.is_empty() {
            self.missing.remove(connection);
        }
    }

    /// Takes back the entry of `socket`. None if there is none, or another socket's.
    pub(super) fn retract(&mut self, connection: &Connection, socket: SocketId) -> Option<Entry> {
        let entry = self.entries.get(connection).filter(|entry| entry.socket == socket).copied()?;
        self.entries.remove(connection);
        Some(entry)
    }

    /// What is known of a row of a dump.
    #[must_use]
    pub(super) fn find(&self, row: &SocketRow, dumped: Timestamp) -> Option<&Entry> {
        self.entries.get(&row.connection).filter(|entry| entry.explains(row, dumped))
    }

    /// Forgets what two censuses in a row do not show; one is not enough, since a record of why it left may be on its
    /// way. Entries made after the dump of their namespace stay; those of namespaces the census could not look into stay
    /// until they must have expired.
    pub(super) fn reconcile(&mut self, census: &Census, turnover: &mut Turnover) {
        let shown = Shown::by(census);
        let expired = census.at.minus(FIN_WAIT2_LENGTH + TIME_WAIT_LENGTH + SLACK);
        let missing = std::mem::take(&mut self.missing);
        self.entries.retain(|connection, entry| {
            let stays = if shown.lacks(connection, entry) {
                self.missing.insert(*connection);
                !missing.contains(connection)
            } else {
                shown.dumped.contains_key(&connection.netns) || entry.entered >= expired
            };
            if !stays {
                self.missing.remove(connection);
                turnover.left(entry.owner, Leaving::Unseen);
            }
            stays
        });
        self.early.clear();
    }

    /// Whose those are that the census does not show. Once the records made before it have been taken in, they have left
    /// without being seen to.
    pub(super) fn gone(&self, census: &Census) -> impl Iterator<Item = Owner> {
        let shown = Shown::by(census);
        let gone = self.entries.iter().filter(move |(connection, entry)| shown.lacks(connection, entry));
        gone.map(|(_, entry)| entry.owner)
    }

    /// Connections that found no room.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// The timewait sockets a census shows.
struct Shown {
    /// When the namespaces were dumped that the census looked into
    dumped: FastMap<Netns, Timestamp>,
    timewait: FastSet<Connection>,
}

impl Shown {
    fn by(census: &Census) -> Self {
        let rows = census.namespaces.iter().flat_map(|namespace| &namespace.rows);
        Self {
            dumped: census.namespaces.iter().map(|namespace| (namespace.netns, namespace.at)).collect(),
            timewait: rows.filter(|row| row.substate().is_some()).map(|row| row.connection).collect(),
        }
    }

    /// Whether it would be among them, had it not left.
    fn lacks(&self, connection: &Connection, entry: &Entry) -> bool {
        self.dumped.get(&connection.netns).is_some_and(|dumped| entry.entered < *dumped)
            && !self.timewait.contains(connection)
    }
}
