//! Sockets that were there before the session: what sock_diag and /proc said of them at its start.

use super::{
    key::{InNetns as _, Key, V4Key, V6Key},
    listeners::Listeners,
};
use crate::{
    hash::{FastMap, FastSet},
    model::{Census, Connection, Netns, OpenKind, ProcessKey, SocketHolders, TcpState, Timestamp},
};

/// A table with room for so many times what is in it gives memory back.
const SPARE: usize = 8;

/// A connection older than the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OlderSocket {
    /// The process that has it open; none if none or several have
    pub owner: Option<ProcessKey>,
    /// Inbound if something listened at its local endpoint, outbound otherwise
    pub opened: OpenKind,
}

/// Connections, in as little room as their kind needs.
#[derive(Debug, Default)]
struct KeySet {
    v4: FastSet<V4Key>,
    v6: FastSet<V6Key>,
}

impl KeySet {
    fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn insert(&mut self, key: Key) -> bool {
        match key {
            Key::V4(key) => self.v4.insert(key),
            Key::V6(key) => self.v6.insert(key),
        }
    }

    fn contains(&self, key: Key) -> bool {
        match key {
            Key::V4(key) => self.v4.contains(&key),
            Key::V6(key) => self.v6.contains(&key),
        }
    }

    fn remove(&mut self, key: Key) -> bool {
        match key {
            Key::V4(key) => self.v4.remove(&key),
            Key::V6(key) => self.v6.remove(&key),
        }
    }
}

/// What was there before the session.
#[derive(Debug, Default)]
pub(super) struct Older {
    sockets: FastMap<Connection, OlderSocket>,
    timewait: KeySet,
    /// How many of the sockets are whose
    owners: FastMap<ProcessKey, u32>,
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
        older.count_overflow_from(census);
        for namespace in &census.namespaces {
            for row in namespace.rows.iter().filter(|row| row.state == TcpState::Listen) {
                listeners.open(namespace.netns, row.connection.local, None, owner(&row), Timestamp(0));
            }
            for row in namespace.rows.iter() {
                if older.sockets.len() + older.timewait.len() >= limit {
                    older.evicted += 1;
                } else if row.substate().is_some() {
                    older.timewait.insert(Key::of(&row.connection));
                } else if !matches!(row.state, TcpState::Listen | TcpState::Close | TcpState::BoundInactive) {
                    let is_served = listeners.serves(namespace.netns, row.connection.local);
                    let opened = if is_served { OpenKind::Passive } else { OpenKind::Active };
                    let owner = owner(&row);
                    older.sockets.insert(row.connection, OlderSocket { owner, opened });
                    if let Some(owner) = owner {
                        *older.owners.entry(owner).or_default() += 1;
                    }
                }
            }
        }
        older
    }

    /// What was known of a connection that ends now; it is forgotten.
    pub(super) fn take(&mut self, connection: &Connection) -> Option<OlderSocket> {
        let socket = self.sockets.remove(connection)?;
        if let Some(owner) = socket.owner
            && let Some(count) = self.owners.get_mut(&owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&owner);
            }
        }
        Some(socket)
    }

    /// What is known of a connection.
    #[must_use]
    pub(super) fn get(&self, connection: &Connection) -> Option<OlderSocket> {
        self.sockets.get(connection).copied()
    }

    /// Who had it open, if it was one process.
    #[must_use]
    pub(super) fn owner(&self, connection: &Connection) -> Option<ProcessKey> {
        self.sockets.get(connection)?.owner
    }

    /// Timewait sockets from before the session that are not known to have left.
    #[must_use]
    pub(super) fn timewait(&self) -> usize {
        self.timewait.len()
    }

    /// Whether a timewait socket with these endpoints was there before the session.
    #[must_use]
    pub(super) fn had_timewait(&self, connection: &Connection) -> bool {
        self.timewait.contains(Key::of(connection))
    }

    /// Forgets a timewait socket from before the session; false if none with these endpoints is known.
    pub(super) fn forget_timewait(&mut self, connection: &Connection) -> bool {
        self.timewait.remove(Key::of(connection))
    }

    /// From now on counts what `TCPTimeWaitOverflow` rises by from what this census says. Of a namespace that it could not
    /// look into nothing is counted until another one has.
    pub(super) fn count_overflow_from(&mut self, census: &Census) {
        let before = std::mem::take(&mut self.overflow);
        let unreachable = census.unreachable.iter().map(|(netns, _)| *netns);
        let unknown = |netns| (netns, before.get(&netns).copied().unwrap_or(u64::MAX));
        self.overflow.extend(unreachable.map(unknown));
        let known = census.namespaces.iter();
        self.overflow.extend(known.filter_map(|namespace| Some((namespace.netns, namespace.time_wait_overflow?))));
    }

    /// `TCPTimeWaitOverflow` at the start of the window; 0 for a namespace that is younger.
    #[must_use]
    pub(super) fn overflow(&self, netns: Netns) -> u64 {
        self.overflow.get(&netns).copied().unwrap_or_default()
    }

    /// How many are left of them.
    pub(super) fn len(&self) -> usize {
        self.sockets.len() + self.timewait.len()
    }

    /// Whether a connection of this process is among them.
    pub(super) fn names(&self, process: ProcessKey) -> bool {
        self.owners.contains_key(&process)
    }

    /// Forgets the timewait sockets that a census does not show, long after they should have ended: their end was not
    /// watched. Those of namespaces it could not look into stay.
    pub(super) fn sift_timewait(&mut self, census: &Census) {
        if self.timewait.len() == 0 {
            return;
        }
        let unreachable: FastSet<Netns> = census.unreachable.iter().map(|(netns, _)| *netns).collect();
        let rows = census.namespaces.iter().flat_map(|namespace| namespace.rows.iter());
        let mut shown = KeySet::default();
        for row in rows.filter(|row| row.substate().is_some()) {
            let key = Key::of(&row.connection);
            if self.timewait.contains(key) {
                shown.insert(key);
            }
        }
        shown.v4.extend(self.timewait.v4.iter().filter(|key| unreachable.contains(&key.netns())));
        shown.v6.extend(self.timewait.v6.iter().filter(|key| unreachable.contains(&key.netns())));
        self.timewait = shown;
    }

    /// Gives memory back that it does not need any more.
    pub(super) fn shrink(&mut self) {
        if self.sockets.capacity() > SPARE * self.sockets.len().max(SPARE) {
            self.sockets.shrink_to_fit();
        }
    }

    /// Sockets that found no room.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}
