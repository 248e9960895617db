//! Who owns which timewait socket.
//!
//! The kernel keeps no owner with a timewait socket. The ledger does, from the moment a connection enters until a dump
//! no longer shows it. It is never counted by itself: what is *now* in TIME_WAIT is what sock_diag lists, and the
//! ledger only says whose each row is. So a lost event can cost an owner, but never skew a count.
//!
//! A row is matched by namespace and both endpoints. The same four numbers can come back, so an entry that is too old
//! to be the row it matches is not believed (`Entry::explains`).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::model::{Census, Connection, Netns, OpenKind, ProcessKey, SocketId, SocketRow, TimeWaitSubstate, Timestamp};

/// `TCP_TIMEWAIT_LEN`, include/net/tcp.h: a constant, not a setting.
pub(super) const TIME_WAIT_LENGTH: Duration = Duration::from_secs(60);
/// The longest an orphaned FIN_WAIT2 is kept as a minisocket (`tcp_fin_timeout` beyond that is spent as a full socket).
const FIN_WAIT2_LENGTH: Duration = Duration::from_secs(60);
/// What the kernel's timer wheel may be late by, and a dump may take.
const SLACK: Duration = Duration::from_secs(8);

/// Whose a timewait socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The process that ended the sending side; where a kernel thread did it for one, the process that connected
    Process(ProcessKey),
    /// A kernel thread, on nobody's visible behalf
    KernelThread,
    /// The connection began to close before the session
    ClosedBefore,
}

/// What the ledger says of a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Which socket it was
    pub(super) socket: SocketId,
    /// Whose it is
    pub(super) owner: Owner,
    /// Which way the connection was opened, if that is known
    pub(super) opened: Option<OpenKind>,
    /// When it entered
    pub(super) entered: Timestamp,
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
    entries: HashMap<Connection, Entry>,
    limit: usize,
    evicted: u64,
}

impl Ledger {
    /// An empty ledger of at most `limit` entries.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), limit, evicted: 0 }
    }

    /// Notes that a connection entered.
    pub(super) fn enter(&mut self, connection: Connection, entry: Entry) {
        if self.entries.len() >= self.limit && !self.entries.contains_key(&connection) {
            self.evicted += 1;
            return;
        }
        self.entries.insert(connection, entry);
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

    /// Forgets what a census no longer shows. Entries made after the dump of their namespace stay; those of namespaces
    /// the census could not look into stay until they must have expired.
    pub(super) fn reconcile(&mut self, census: &Census) {
        let looked_into: HashMap<Netns, Timestamp> =
            census.namespaces.iter().map(|namespace| (namespace.netns, namespace.at)).collect();
        let there: HashSet<Connection> = census
            .namespaces
            .iter()
            .flat_map(|namespace| &namespace.rows)
            .filter(|row| row.substate().is_some())
            .map(|row| row.connection)
            .collect();
        let expired = census.at.minus(FIN_WAIT2_LENGTH + TIME_WAIT_LENGTH + SLACK);
        self.entries.retain(|connection, entry| match looked_into.get(&connection.netns) {
            Some(&dumped) => entry.entered >= dumped || there.contains(connection),
            None => entry.entered >= expired,
        });
    }

    /// Connections that found no room.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}
