//! Who has a port right now: sockets from sock_diag, processes and options from their descriptors.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
};

use super::{
    census::{self, boottime},
    descriptors, host,
    processes::Procfs,
    sock_diag::DumpFilter,
};
use crate::model::{
    Census, Connection, HeldOptions, HeldSocket, Inode, Netns, NetnsSettings, ProcessKey, Rows, SocketHolders,
    SocketRow, TcpState,
};

/// The sockets of one network namespace that have the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldInNetns {
    /// Which namespace
    pub netns: Netns,
    /// Its sockets
    pub sockets: Vec<HeldSocket>,
    /// Its settings
    pub settings: NetnsSettings,
}

/// What a look for a port found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// One entry a namespace that was looked into
    pub namespaces: Vec<HeldInNetns>,
    /// Namespaces that could not be looked into, with the reason
    pub unreachable: Vec<(Netns, String)>,
    /// Processes whose descriptors could not be read
    pub unreadable: u64,
}

/// Looks for every socket of a local port, in one namespace or in all. `holders`: who has which socket open, a moment ago
/// or later; to find that out takes longer than all the rest.
#[must_use]
pub fn at_port(procfs: &Procfs, holders: &SocketHolders, port: u16, netns: Option<Netns>) -> Held {
    let only = netns.map(|netns| HashSet::from([netns]));
    let mut census = census::take(procfs, &DumpFilter::port(port), only.as_ref(), &boottime);
    add_bound_only(procfs, || holders, Some(port), &mut census);
    let namespaces = census.namespaces.into_iter().map(|namespace| {
        let mut rows = namespace.rows;
        rows.retain(|row| row.connection.local.port() == port && row.state != TcpState::Close);
        HeldInNetns { netns: namespace.netns, sockets: held(procfs, &rows, holders), settings: namespace.settings }
    });
    Held { namespaces: namespaces.collect(), unreachable: census.unreachable, unreadable: holders.unreadable }
}

/// Adds to a census the sockets that are bound to the port, or to any, and nothing else, where the kernel does not list
/// them: of every socket that somebody has open, and that no dump lists, it is asked what it is. `holders` is only asked
/// for there.
pub fn add_bound_only<H: Borrow<SocketHolders>>(
    procfs: &Procfs,
    holders: impl FnOnce() -> H,
    port: Option<u16>,
    census: &mut Census,
) {
    if lists_bound_sockets() {
        return;
    }
    // Of every namespace and port, whatever the census is of: a connection that is asked while its process closes it ends a
    // little later.
    let all = census::take(procfs, &DumpFilter::open(), None, &boottime);
    let listed: HashSet<Inode> =
        all.namespaces.iter().flat_map(|namespace| namespace.rows.iter()).filter_map(|row| row.inode).collect();
    let mut bound = bound_only(procfs, holders().borrow(), &listed, port);
    for namespace in &mut census.namespaces {
        namespace.rows.append(bound.remove(&namespace.netns).unwrap_or_default());
    }
}

/// Whether sock_diag lists sockets that are bound and nothing else: since Linux 6.8.
fn lists_bound_sockets() -> bool {
    host::is_at_least(&host::release(), (6, 8))
}

/// See [`add_bound_only`].
fn bound_only(
    procfs: &Procfs,
    holders: &SocketHolders,
    listed: &HashSet<Inode>,
    port: Option<u16>,
) -> HashMap<Netns, Rows> {
    let mut by_process: HashMap<_, HashSet<Inode>> = HashMap::new();
    for (inode, processes) in holders.by_inode.iter().filter(|(inode, _)| !listed.contains(inode)) {
        if let Some(process) = processes.first() {
            by_process.entry((process.key, process.uid)).or_default().insert(*inode);
        }
    }
    let mut rows: HashMap<Netns, Rows> = HashMap::new();
    let found = descriptors::apart(procfs, |duplicates| {
        let each =
            by_process.into_iter().map(|((process, uid), inodes)| (uid, duplicates.bound_sockets(process, &inodes)));
        each.collect::<Vec<_>>()
    });
    for (uid, sockets) in found.unwrap_or_default() {
        for (inode, bound) in sockets {
            if port.is_none_or(|port| port == bound.local.port()) {
                let unspecified = match bound.local {
                    std::net::SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
                    std::net::SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                rows.entry(bound.netns).or_default().push(&SocketRow {
                    connection: Connection { netns: bound.netns, local: bound.local, remote: unspecified },
                    state: TcpState::BoundInactive,
                    time_wait_left: None,
                    inode: Some(inode),
                    uid: bound.uid.or(uid).unwrap_or_default(),
                    silent_for: None,
                });
            }
        }
    }
    rows
}

fn held(procfs: &Procfs, rows: &Rows, holders: &SocketHolders) -> Vec<HeldSocket> {
    let sockets = rows.iter().map(|row| {
        let processes = row.inode.and_then(|inode| holders.by_inode.get(&inode).cloned()).unwrap_or_default();
        HeldSocket { row, processes, options: HeldOptions::default() }
    });
    let mut sockets: Vec<HeldSocket> = sockets.collect();
    let options = options(procfs, &sockets);
    for socket in &mut sockets {
        let known = socket.row.inode.and_then(|inode| options.get(&inode));
        socket.options = known.copied().unwrap_or_default();
    }
    sockets
}

/// The options of these sockets, by the first process that lets them be read. The descriptors of a process, which may be
/// as many as its connections, are gone through once.
fn options(procfs: &Procfs, sockets: &[HeldSocket]) -> HashMap<Inode, HeldOptions> {
    let mut by_process: HashMap<ProcessKey, HashSet<Inode>> = HashMap::new();
    for socket in sockets {
        for process in &socket.processes {
            by_process.entry(process.key).or_default().extend(socket.row.inode);
        }
    }
    let known = descriptors::apart(procfs, |duplicates| {
        let mut known = HashMap::new();
        for (process, mut wanted) in by_process {
            wanted.retain(|inode| !known.contains_key(inode));
            if !wanted.is_empty() {
                known.extend(duplicates.socket_options(process, &wanted));
            }
        }
        known
    });
    known.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

    use super::*;

    /// A listener and a socket that is only bound, both of this process: found on any kernel, with their options.
    #[test]
    fn a_port_has_its_sockets_processes_and_options() {
        let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
        let bound = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).unwrap();
        sockopt::set_socket_reuseaddr(&bound, true).unwrap();
        bind(&bound, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let local = std::net::SocketAddr::try_from(rustix::net::getsockname(&bound).unwrap()).unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.2", local.port())).unwrap();

        let procfs = Procfs::host();
        let held =
            at_port(&procfs, &procfs.socket_holders(), local.port(), Some(super::super::netns::current().unwrap()));
        let [namespace] = held.namespaces.as_slice() else { panic!("{held:?}") };
        let of = |address| namespace.sockets.iter().find(|socket| socket.row.connection.local == address).unwrap();
        let (bound, listening) = (of(local), of(listener.local_addr().unwrap()));
        assert_eq!((bound.row.state, listening.row.state), (TcpState::BoundInactive, TcpState::Listen));
        let me = procfs.by_pid(std::process::id()).unwrap();
        // A child of another test has it as well, until its exec().
        assert_eq!(bound.processes.first(), Some(&me));
        assert_eq!((bound.options.reuse_address, bound.options.reuse_port), (Some(true), Some(false)));
    }
}
