//! Who listens where: the owner of an inbound connection until a process closes it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::model::{Netns, ProcessKey, SocketId};

/// One listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    /// None: it listened before the session
    socket: Option<SocketId>,
    owner: Option<ProcessKey>,
}

/// The table of listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_address: HashMap<(Netns, SocketAddr), Vec<Listener>>,
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
    ) {
        if self.count >= self.limit {
            self.evicted += 1;
            return;
        }
        self.by_address.entry((netns, local)).or_default().push(Listener { socket, owner });
        self.count += 1;
    }

    /// Forgets a listener: the one with this socket, else one that was there before the session.
    pub(super) fn close(&mut self, netns: Netns, local: SocketAddr, socket: SocketId) {
        let Some(listeners) = self.by_address.get_mut(&(netns, local)) else { return };
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
        let listeners = candidates(local).into_iter().find_map(|address| self.by_address.get(&(netns, address)))?;
        let (first, rest) = listeners.split_first()?;
        rest.iter().all(|listener| listener.owner == first.owner).then_some(first.owner)?
    }

    /// Listeners that found no room.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// The addresses a listener for `local` can be bound to. A dual-stack `[::]` also serves IPv4.
fn candidates(local: SocketAddr) -> [SocketAddr; 3] {
    let at = |ip: IpAddr| SocketAddr::new(ip, local.port());
    [local, at(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), at(IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
}
