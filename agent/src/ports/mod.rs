//! Ephemeral ports: how many a destination uses of those it can have, how fast it takes them, and until when they last.
//!
//! Pure. [`accounting`] counts what a dump of all sockets shows, [`rates`] what events tell of the time between dumps,
//! and [`forecast`] puts both together. What connect() can choose from is `__inet_hash_connect()`'s rule
//! (net/ipv4/inet_hashtables.c): a port of the range that is not reserved, that nobody bound, and that is not in use
//! *towards the same address and port from the same address*. So ports are counted for each [`Route`].

pub mod accounting;
pub mod forecast;
pub mod rates;

use std::net::{IpAddr, SocketAddr};

use crate::model::{Connection, Netns};

/// From a local address to a remote address and port: two connections of one route cannot share a local port, two of
/// different routes can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Network namespace
    pub netns: Netns,
    /// Address here
    pub local: IpAddr,
    /// Address and port there
    pub remote: SocketAddr,
}

impl Route {
    /// The route of a connection.
    #[must_use]
    pub const fn of(connection: &Connection) -> Self {
        Self { netns: connection.netns, local: connection.local.ip(), remote: connection.remote }
    }

    /// What `tcp_tw_reuse=2` calls loopback (`tcp_twsk_unique()`, net/ipv4/tcp_ipv4.c): either address is one. A socket
    /// bound to the device `lo` counts there too, which a dump does not show.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.local.is_loopback() || self.remote.ip().is_loopback()
    }
}
