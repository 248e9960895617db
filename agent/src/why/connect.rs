//! connect(): how many ephemeral ports are left towards a destination.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Netns, NetnsCensus},
    ports::{
        Route,
        accounting::{account, frees, sockets},
    },
};

/// What connect() would say in the namespace firstfin was started in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectAnswer {
    /// Address and port to connect to
    pub remote: String,
    /// Inode number of the namespace
    pub netns: Netns,
    /// `net.ipv4.ip_local_port_range`, both ends inclusive; null if it could not be read
    pub port_range: Option<(u16, u16)>,
    /// Ports that connect() can choose from: of the range, not reserved, and not bound by anybody; null if not known
    pub usable: Option<u64>,
    /// Ports of the range that listeners and bound sockets keep from everybody
    pub bound: u64,
    /// By local address, those from which there are connections to the destination; without any, every port is left
    pub from: Vec<PortsLeft>,
}

/// Ports towards a destination, from a local address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortsLeft {
    /// Local address
    pub local: String,
    /// Ports the next connect() can have
    pub left: u64,
    /// Ports of connections that are alive
    pub live: u64,
    /// Ports of timewait sockets
    pub time_wait: u64,
    /// Of those: ports that connect() could take over (`tcp_tw_reuse`)
    pub reusable: u64,
    /// Seconds until the next timewait socket lets go of its port; null if none does
    pub next_in_s: Option<u64>,
}

/// Counts the ports of a namespace's dump that are left towards `remote`.
#[must_use]
pub fn connect(remote: SocketAddr, namespace: &NetnsCensus) -> ConnectAnswer {
    // Who opened a connection is not known here; those of a listener are at its port, which is not counted.
    let accounting = account(namespace, |_| None);
    let places =
        accounting.space.as_ref().map(|space| sockets(namespace, space, |_| None, |route| route.remote == remote));
    let next_free = |route: &Route| frees(namespace, route, places.as_ref()?.get(route)?).first().copied();
    let usable = accounting.space.as_ref().map(|space| u64::from(space.usable()));
    let mut from: Vec<PortsLeft> = accounting
        .routes
        .iter()
        .filter(|(route, _)| route.remote == remote)
        .map(|(route, used)| PortsLeft {
            local: route.local.to_string(),
            left: usable.unwrap_or_default().saturating_sub(used.used().into()),
            live: used.live.into(),
            time_wait: used.time_wait.into(),
            reusable: used.reusable.into(),
            next_in_s: next_free(route).map(|left| left.as_secs()),
        })
        .collect();
    from.sort_by(|one, other| one.left.cmp(&other.left).then_with(|| one.local.cmp(&other.local)));
    ConnectAnswer {
        remote: remote.to_string(),
        netns: namespace.netns,
        port_range: namespace.settings.port_range,
        usable,
        bound: accounting.space.map_or(0, |space| space.poisoned.len() as u64),
        from,
    }
}
