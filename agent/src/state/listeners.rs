//! Who listens where: the owner of an inbound connection until a process closes it.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::model::{Census, Netns, ProcessKey, SocketId, TcpState, Timestamp};

/// One listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    /// None: it listened before the session
    socket: Option<SocketId>,
    owner: Option<ProcessKey>,
    /// When it began to
    since: Timestamp,
}

/// The listeners of an address.
#[derive(Debug, Default)]
struct Place {
    listeners: Vec<Listener>,
    /// Of those there were more than the last census showed
    has_surplus: bool,
}

/// The table of listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_address: HashMap<(Netns, SocketAddr), Place>,
    count: usize,
    limit: usize,
    evicted: u64,
}

impl Listeners {
    /// An empty table of at most `limit` listeners.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Notes a listener. `socket` is none for one that was there before the session.
    pub(super) fn open(
        &mut self,
        netns: Netns,
        local: SocketAddr,
        socket: Option<SocketId>,
        owner: Option<ProcessKey>,
        since: Timestamp,
    ) {
        if self.count >= self.limit {
            self.evicted += 1;
            return;
        }
        let place = self.by_address.entry((netns, local)).or_default();
        place.listeners.push(Listener { socket, owner, since });
        self.count += 1;
    }

    /// Forgets a listener: the one with this socket, else one that was there before the session.
    pub(super) fn close(&mut self, netns: Netns, local: SocketAddr, socket: SocketId) {
        let Some(Place { listeners, .. }) = self.by_address.get_mut(&(netns, local)) else { return };
        let found = listeners
            .iter()
            .position(|listener| listener.socket == Some(socket))
            .or_else(|| listeners.iter().position(|listener| listener.socket.is_none()));
        if let Some(found) = found {
            listeners.swap_remove(found);
            self.count -= 1;
        }
        if listeners.is_empty() {
            self.by_address.remove(&(netns, local));
        }
    }

    /// Whether something listens where a connection with this local endpoint would have come in.
    #[must_use]
    pub(super) fn serves(&self, netns: Netns, local: SocketAddr) -> bool {
        candidates(local).into_iter().any(|address| self.by_address.contains_key(&(netns, address)))
    }

    /// Whose a connection that came in at `local` is. None if nobody is known to listen there, or several processes do.
    #[must_use]
    pub(super) fn owner(&self, netns: Netns, local: SocketAddr) -> Option<ProcessKey> {
        // The most specific address wins, as in the kernel's lookup (compute_score()).
        let place = candidates(local).into_iter().find_map(|address| self.by_address.get(&(netns, address)))?;
        common_owner(&place.listeners)
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Every process that has one.
    pub(super) fn owners(&self) -> impl Iterator<Item = ProcessKey> {
        self.by_address.values().flat_map(|place| &place.listeners).filter_map(|listener| listener.owner)
    }

    /// Forgets those that two of these in a row do not show: they were closed, and the record of it was lost. Where there
    /// are fewer at an address than are known, it cannot be told which are left.
    pub(super) fn sift(&mut self, census: &Census) {
        let mut shown: HashMap<(Netns, SocketAddr), usize> = HashMap::new();
        let rows = census.namespaces.iter().flat_map(|namespace| namespace.rows.iter());
        for row in rows.filter(|row| row.state == TcpState::Listen) {
            *shown.entry((row.connection.netns, row.connection.local)).or_default() += 1;
        }
        let dumped: HashMap<Netns, Timestamp> =
            census.namespaces.iter().map(|namespace| (namespace.netns, namespace.at)).collect();
        let unreachable: HashSet<Netns> = census.unreachable.iter().map(|(netns, _)| *netns).collect();
        for ((netns, local), place) in &mut self.by_address {
            let at = dumped.get(netns).copied().unwrap_or(census.at);
            let known = place.listeners.iter().filter(|listener| listener.since < at).count();
            let there = shown.get(&(*netns, *local)).copied().unwrap_or_default();
            let had_surplus = std::mem::replace(&mut place.has_surplus, known > there);
            if unreachable.contains(netns) {
                place.has_surplus = false;
            } else if had_surplus && place.has_surplus {
                let (older, newer): (Vec<_>, Vec<_>) =
                    place.listeners.drain(..).partition(|listener| listener.since < at);
                let since = older.iter().map(|listener| listener.since).min().unwrap_or_default();
                let left = Listener { socket: None, owner: common_owner(&older), since };
                place.listeners.extend(std::iter::repeat_n(left, there));
                place.listeners.extend(newer);
                place.has_surplus = false;
                self.count -= known - there;
            }
        }
        self.by_address.retain(|_, place| !place.listeners.is_empty());
    }

    /// Listeners that found no room.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// The owner of all of them; none if they have several.
fn common_owner(listeners: &[Listener]) -> Option<ProcessKey> {
    let (first, rest) = listeners.split_first()?;
    rest.iter().all(|listener| listener.owner == first.owner).then_some(first.owner)?
}

/// The addresses a listener for `local` can be bound to. A dual-stack `[::]` also serves IPv4.
fn candidates(local: SocketAddr) -> [SocketAddr; 3] {
    let at = |ip: IpAddr| SocketAddr::new(ip, local.port());
    [local, at(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), at(IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
}
