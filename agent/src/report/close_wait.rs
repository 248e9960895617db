//! Connections that the other side has closed and a process of this host has not, for longer than it takes to notice.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    CloseWait,
    build::{Namer, round},
    failures::describe,
};
use crate::{
    model::{Census, Inode, NetnsCensus, OpenKind, ProcessKey, SocketRow, TcpState},
    state::failures::Place,
};

/// A process that reads finds the FIN at once; one that is busy with the rest of an answer may take a while.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// Fewer than this many of a namespace are not worth a look at the open files of every process.
const MANY: usize = 10;

/// Whether a row is a connection that its process seems to have forgotten.
pub(super) fn is_forgotten(row: &SocketRow) -> bool {
    row.state == TcpState::CloseWait && row.silent_for.is_some_and(|silence| silence >= FORGOTTEN_AFTER)
}

fn forgotten(namespace: &NetnsCensus) -> impl Iterator<Item = SocketRow> {
    namespace.rows.iter().filter(is_forgotten)
}

/// The sockets whose owners a report would name.
pub(super) fn sockets_to_name(census: &Census) -> HashSet<Inode> {
    let namespaces = census.namespaces.iter().filter(|namespace| forgotten(namespace).count() >= MANY);
    namespaces.flat_map(forgotten).filter_map(|row| row.inode).collect()
}

/// Makes the list.
pub(super) fn build(census: &Census, namer: &Namer<'_>) -> Vec<CloseWait> {
    let mut list = Vec::new();
    for namespace in &census.namespaces {
        let served = namespace.served_ports();
        let mut groups: HashMap<(Option<ProcessKey>, Place), (u64, Duration)> = HashMap::new();
        for row in forgotten(namespace) {
            let owner = namer.open_by(&row);
            // As for ephemeral ports: a dump does not say who opened a connection.
            let is_inbound = served.contains(&row.connection.local.port());
            let opened = if is_inbound { OpenKind::Passive } else { OpenKind::Active };
            let (sockets, longest) = groups.entry((owner, Place::of(&row.connection, Some(opened)))).or_default();
            *sockets += 1;
            *longest = (*longest).max(row.silent_for.unwrap_or_default());
        }
        list.extend(groups.into_iter().map(|((owner, place), (sockets, longest))| {
            let (remote, local, _) = describe(place);
            CloseWait {
                process: owner.map(|owner| namer.name(owner, Some(namespace.netns))),
                remote,
                local,
                netns: namespace.netns,
                sockets,
                longest_s: round(longest.as_secs_f64()),
            }
        }));
    }
    list.sort_by(|a, b| b.sockets.cmp(&a.sockets).then_with(|| a.remote.cmp(&b.remote)).then(a.local.cmp(&b.local)));
    list
}
