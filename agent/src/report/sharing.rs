//! Ports that sockets of different programs have side by side: which of them a connection reaches is the kernel's choice.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    HolderKind, PortSharer, SharedPort,
    build::{Namer, truncate},
    conflicts::holder_kind,
};
use crate::model::{Census, Inode, NetnsCensus, ProcessKey, SocketRow, TcpState};

/// Sockets listed for a port, at most.
const MAX_SHARERS: usize = 10;

/// The sockets of a namespace that listen, or are bound and nothing else, at ports where they come in each other's way.
fn crowds(namespace: &NetnsCensus) -> impl Iterator<Item = (u16, Vec<SocketRow>)> {
    let mut at: BTreeMap<u16, Vec<SocketRow>> = BTreeMap::new();
    let rows = namespace.rows.iter();
    for row in rows.filter(|row| matches!(row.state, TcpState::Listen | TcpState::BoundInactive)) {
        at.entry(row.connection.local.port()).or_default().push(row);
    }
    at.into_iter().filter_map(|(port, mut rows)| {
        let mut sockets: HashMap<IpAddr, usize> = HashMap::new();
        for row in &rows {
            *sockets.entry(row.connection.local.ip()).or_default() += 1;
        }
        rows.retain(|row| is_crowded(row.connection.local.ip(), &sockets));
        (!rows.is_empty()).then_some((port, rows))
    })
}

/// Whether a socket at this address has company, itself being among the `sockets` at its port. Whether V6ONLY is set a dump
/// does not say of every socket, so [::] is not taken to cover IPv4.
fn is_crowded(address: IpAddr, sockets: &HashMap<IpAddr, usize>) -> bool {
    let wildcard: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let at = |address: &IpAddr| sockets.get(address).copied().unwrap_or_default();
    if address == wildcard {
        let of_family = sockets.iter().filter(|(other, _)| other.is_ipv4() == address.is_ipv4());
        of_family.map(|(_, sockets)| sockets).sum::<usize>() > 1
    } else {
        at(&address) > 1 || at(&wildcard) > 0
    }
}

/// The sockets whose owners decide whether a port is shared by different programs.
pub(super) fn sockets_to_name(census: &Census) -> HashSet<Inode> {
    let crowds = census.namespaces.iter().flat_map(crowds);
    crowds.flat_map(|(_, rows)| rows).filter_map(|row| row.inode).collect()
}

/// Makes the list.
pub(super) fn build(census: &Census, namer: &Namer<'_>) -> Vec<SharedPort> {
    let mut shared = Vec::new();
    for namespace in &census.namespaces {
        for (port, rows) in crowds(namespace) {
            let mut sockets: Vec<PortSharer> = Vec::new();
            let mut places: HashMap<(HolderKind, IpAddr, Option<ProcessKey>), usize> = HashMap::new();
            for row in rows {
                let Some(kind) = holder_kind(&row) else { continue };
                let owner = namer.open_by(&row);
                let at = *places.entry((kind, row.connection.local.ip(), owner)).or_insert_with(|| {
                    let process = owner.map(|owner| namer.name(owner, Some(namespace.netns)));
                    sockets.push(PortSharer { process, kind, local: row.connection.local.to_string(), sockets: 0 });
                    sockets.len() - 1
                });
                if let Some(sharer) = sockets.get_mut(at) {
                    sharer.sockets += 1;
                }
            }
            let programs: HashSet<_> = sockets.iter().filter_map(PortSharer::program).collect();
            if programs.len() > 1 {
                sockets.sort_by(|a, b| (&a.local, a.kind).cmp(&(&b.local, b.kind)));
                let sharers_omitted = truncate(&mut sockets, MAX_SHARERS);
                shared.push(SharedPort { netns: namespace.netns, port, sharers: sockets, sharers_omitted });
            }
        }
    }
    shared
}
