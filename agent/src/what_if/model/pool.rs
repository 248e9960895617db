//! Connections that stay open and are used again.

use std::{collections::VecDeque, net::IpAddr};

use crate::{
    hash::FastMap,
    model::{Netns, Timestamp},
    what_if::workload::Exchange,
};

/// Who shares connections: a process, to one destination. Of a client on another host there is only its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    netns: Netns,
    program: Option<usize>,
    address: Option<IpAddr>,
    destination: std::net::SocketAddr,
}

impl Key {
    pub(super) fn of(exchange: &Exchange) -> Option<Self> {
        if let Some(client) = &exchange.client {
            let connection = &client.connection;
            let (netns, destination) = (connection.netns, connection.remote);
            return Some(Self { netns, program: client.program, address: None, destination });
        }
        let connection = exchange.server.as_ref()?.connection;
        Some(Self {
            netns: connection.netns,
            program: None,
            address: Some(connection.remote.ip()),
            destination: connection.local,
        })
    }
}

/// The connections of one key.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Connections there are
    pub(super) open: u32,
    /// Those that nobody uses, by their number, the last one used last; with how often each was used
    pub(super) idle: Vec<(usize, u64)>,
    /// Requests that wait for one, and since when
    pub(super) waiting: VecDeque<(usize, Timestamp)>,
}

/// All of them.
pub(super) type Pools = FastMap<Key, Pool>;
