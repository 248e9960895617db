//! What went wrong, counted by who, where and how.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::Hash,
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    model::{
        Asker, Call, ConnectFailure, Connection, HeldOptions, Name, Netns, OpenKind, ProcessKey, RefusedCall, Reset,
        SocketOptions, TcpState, Timestamp, errno,
    },
    rules::{self, HolderState},
};

/// Counts by key, up to a limit of keys.
#[derive(Debug)]
pub struct Tally<K, V> {
    entries: HashMap<K, V>,
    limit: usize,
    evicted: u64,
}

impl<K: Eq + Hash, V: Default> Tally<K, V> {
    /// An empty tally of at most `limit` keys.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), limit, evicted: 0 }
    }

    /// The value of `key`, a new one if need be. None if there is no room; that is counted.
    pub fn entry(&mut self, key: K) -> Option<&mut V> {
        let has_room = self.entries.len() < self.limit;
        match self.entries.entry(key) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) if has_room => Some(entry.insert(V::default())),
            Entry::Vacant(_) => {
                self.evicted += 1;
                None
            }
        }
    }

    /// Every key with its value, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets every key. What found no room stays counted.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Keys that found no room.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// What makes two refusals the same: a service that is started again and again is one failure, not many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusedKey {
    /// Namespace of the socket
    pub netns: Netns,
    /// Which call
    pub call: Call,
    /// What it asked for
    pub local: Option<SocketAddr>,
    /// What it got
    pub errno: u32,
    /// Name of who asked
    pub comm: Name,
}

impl RefusedKey {
    /// The key of a refused call.
    #[must_use]
    pub fn of(call: &RefusedCall) -> Self {
        Self { netns: call.netns, call: call.call, local: call.local, errno: call.errno, comm: call.task.comm.clone() }
    }

    /// Whether somebody has what was asked for: EADDRINUSE for a certain port. For port 0 it means that none was found.
    #[must_use]
    pub fn is_about_a_holder(&self) -> bool {
        self.errno == errno::EADDRINUSE && self.local.is_some_and(|local| local.port() != 0)
    }
}

/// How often, and by whom.
#[derive(Debug, Default)]
pub struct RefusedTally {
    /// How often
    pub count: u64,
    /// When for the first time, and when the last
    pub when: Option<(Timestamp, Timestamp)>,
    /// Who got it last
    pub last: Option<ProcessKey>,
    /// Who got it, up to [`RefusedTally::MAX_PROCESSES`]
    pub processes: HashSet<ProcessKey>,
    /// Options of the socket that got it last
    pub options: SocketOptions,
    /// What else was known of that socket
    pub asker: Asker,
    /// Who held the port right after the first refusal, or after one of an earlier window shortly before
    pub holders: HoldersSeen,
    /// The refusal after which that was looked for
    pub looked: Option<Timestamp>,
}

impl RefusedTally {
    /// Enough to tell one process from a crash loop.
    pub const MAX_PROCESSES: usize = 4096;
}

/// What a look for the holders of a port found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldersSeen {
    /// Nobody looked yet
    #[default]
    NotLooked,
    /// These sockets have the port
    Found(Vec<HolderSeen>),
    /// It could not be found out, and why
    Failed(String),
}

impl HoldersSeen {
    /// The sockets that were found.
    #[must_use]
    pub fn sockets(&self) -> &[HolderSeen] {
        match self {
            Self::Found(seen) => seen,
            Self::NotLooked | Self::Failed(_) => &[],
        }
    }

    /// The processes that have them open, or left them.
    pub fn processes(&self) -> impl Iterator<Item = ProcessKey> {
        self.sockets().iter().flat_map(|seen| seen.owner.into_iter().chain(seen.others.iter().copied()))
    }
}

/// A socket that has a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderSeen {
    /// Its row in the dump
    pub row: crate::model::SocketRow,
    /// Who has it open or, for a timewait socket, closed it. Of several that have it open, the oldest: it passed it on
    pub owner: Option<ProcessKey>,
    /// The others that have it open: they inherited it, or were sent it
    #[serde(default)]
    pub others: Vec<ProcessKey>,
    /// Its options, as far as they are known
    #[serde(default)]
    pub options: HeldOptions,
}

impl HolderSeen {
    /// As the rules of bind() want it; none for a socket that has no port any more.
    #[must_use]
    pub fn for_rules(&self) -> Option<rules::Holder> {
        let Self { row, options, .. } = self;
        let state = match (row.substate(), row.state) {
            (Some(_), _) => HolderState::TimeWait,
            (None, TcpState::Listen) => HolderState::Listener,
            (None, TcpState::BoundInactive) => HolderState::Bound,
            (None, TcpState::Close) => return None,
            (None, _) => HolderState::Connected,
        };
        Some(rules::Holder {
            state,
            local: row.connection.local,
            v6_only: options.v6_only,
            reuse_address: options.reuse_address,
            reuse_port: options.reuse_port,
            // An orphan's is not its own, and a timewait socket has none.
            uid: row.inode.map(|_| row.uid),
            device: options.device,
        })
    }
}

/// What makes two failed connect() the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectKey {
    /// Who connected
    pub process: Option<ProcessKey>,
    /// Namespace of the socket
    pub netns: Netns,
    /// Where to
    pub remote: Place,
    /// Why it failed
    pub cause: ConnectFailure,
    /// What the process got; 0: nothing
    pub errno: u32,
}

/// What makes two cut off connections the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResetKey {
    /// The process on this side
    pub process: Option<ProcessKey>,
    /// Namespace of the socket
    pub netns: Netns,
    /// The other side
    pub place: Place,
    /// How
    pub kind: Reset,
}

/// What makes two SYNs the same that met an earlier connection of their four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RejectedSynKey {
    /// The process that connected or, on the other side, closed the earlier connection first
    pub process: Option<ProcessKey>,
    /// Namespace of the socket
    pub netns: Netns,
    /// The other side
    pub place: Place,
    /// The SYN was sent from here; else it came here
    pub is_sent: bool,
}

/// The other side of connections, without what differs from one to the next: an inbound connection's remote port, an
/// outbound one's local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Connected to this address and port
    Outbound(SocketAddr),
    /// Came from this address, to this local endpoint
    Inbound {
        /// Address of the other side
        from: std::net::IpAddr,
        /// What was served
        local: SocketAddr,
    },
    /// Direction unknown: the other side
    Unknown(SocketAddr),
}

impl Place {
    /// The place of a connection that was opened this way.
    #[must_use]
    pub const fn of(connection: &Connection, opened: Option<OpenKind>) -> Self {
        match opened {
            Some(OpenKind::Active) => Self::Outbound(connection.remote),
            Some(OpenKind::Passive) => Self::Inbound { from: connection.remote.ip(), local: connection.local },
            None => Self::Unknown(connection.remote),
        }
    }
}
