//! Sockets that were there before the session: what sock_diag and /proc said of them at its start.

use super::listeners::Listeners;
use crate::{
    hash::{FastMap, FastSet},
    model::{Census, Connection, Netns, OpenKind, ProcessKey, SocketHolders, TcpState},
};

/// A connection older than the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OlderSocket {
    /// The process that has it open; none if none or several have
    pub owner: Option<ProcessKey>,
    /// Inbound if something listened at its local endpoint, outbound otherwise
    pub opened: OpenKind,
}

/// What was there before the session.
#[derive(Debug, Default)]
pub(super) struct Older {
    sockets: FastMap<Connection, OlderSocket>,
    timewait: FastSet<Connection>,
    overflow: FastMap<Netns, u64>,
    evicted: u64,
}

impl Older {
    /// Reads the first census, and fills in the listeners it shows.
    #[must_use]
    pub(super) fn new(census: &Census, holders: &SocketHolders, listeners: &mut Listeners, limit: usize) -> Self {
        let mut older = Self::default();
        let owner = |row: &crate::model::SocketRow| {
            let processes = holders.by_inode.get(&row.inode?)?;
            let (first, rest) = processes.split_first()?;
            rest.is_empty().then_some(first.key)
        };
        for namespace in &census.namespaces {
            if let Some(overflow) = namespace.time_wait_overflow {
                older.overflow.insert(namespace.netns, overflow);
            }
            for row in namespace.rows.iter().filter(|row| row.state == TcpState::Listen) {
                listeners.open(namespace.netns, row.connection.local, None, owner(row));
            }
            for row in &namespace.rows {
                if older.sockets.len() + older.timewait.len() >= limit {
                    older.evicted += 1;
                } else if row.substate().is_some() {
                    older.timewait.insert(row.connection);
                } else if !matches!(row.state, TcpState::Listen | TcpState::Close | TcpState::BoundInactive) {
                    let is_served = listeners.serves(namespace.netns, row.connection.local);
                    let opened = if is_served { OpenKind::Passive } else { OpenKind::Active };
                    older.sockets.insert(row.connection, OlderSocket { owner: owner(row), opened });
                }
            }
        }
        older
    }

    /// What was known of a connection that ends now; it is forgotten.
    pub(super) fn take(&mut self, connection: &Connection) -> Option<OlderSocket> {
        self.sockets.remove(connection)
    }

    /// Who had it open, if it was one process.
    #[must_use]
    pub(super) fn owner(&self, connection: &Connection) -> Option<ProcessKey> {
        self.sockets.get(connection)?.owner
    }

    /// Whether a timewait socket with these endpoints was there before the session.
    #[must_use]
    pub(super) fn had_timewait(&self, connection: &Connection) -> bool {
        self.timewait.contains(connection)
    }

    /// Forgets a timewait socket from before the session; false if none with these endpoints is known.
    pub(super) fn forget_timewait(&mut self, connection: &Connection) -> bool {
        self.timewait.remove(connection)
    }

    /// `TCPTimeWaitOverflow` at the start; 0 for a namespace that is younger than the session.
    #[must_use]
    pub(super) fn overflow(&self, netns: Netns) -> u64 {
        self.overflow.get(&netns).copied().unwrap_or_default()
    }

    /// Sockets that found no room.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}
