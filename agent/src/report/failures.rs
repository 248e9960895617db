//! What went wrong with connections: connect() that failed, connections cut off, SYNs that met an earlier connection.

use super::{ConnectFailures, Direction, RejectedSyns, Resets, build::Namer};
use crate::{
    model::errno,
    state::{State, failures::Place},
};

/// The other side, what was served here, and which way.
pub(super) fn describe(place: Place) -> (String, Option<String>, Option<Direction>) {
    match place {
        Place::Outbound(remote) => (remote.to_string(), None, Some(Direction::Outbound)),
        Place::Inbound { from, local } => (from.to_string(), Some(local.to_string()), Some(Direction::Inbound)),
        Place::Unknown(remote) => (remote.to_string(), None, None),
    }
}

pub(super) fn connect_failures(state: &State, namer: &Namer<'_>) -> Vec<ConnectFailures> {
    let mut failures: Vec<ConnectFailures> = state
        .connects()
        .iter()
        .map(|(key, count)| ConnectFailures {
            process: key.process.map(|process| namer.name(process, Some(key.netns))),
            remote: describe(key.remote).0,
            netns: key.netns,
            cause: key.cause,
            errno: key.errno,
            error: if key.errno == 0 { String::new() } else { errno::name(key.errno).into_owned() },
            count: *count,
        })
        .collect();
    failures.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.remote.cmp(&b.remote)).then(a.cause.cmp(&b.cause)));
    failures
}

pub(super) fn resets(state: &State, namer: &Namer<'_>) -> Vec<Resets> {
    let mut resets: Vec<Resets> = state
        .resets()
        .iter()
        .map(|(key, count)| {
            let (remote, local, _) = describe(key.place);
            Resets {
                process: key.process.map(|process| namer.name(process, Some(key.netns))),
                remote,
                local,
                netns: key.netns,
                kind: key.kind,
                count: *count,
            }
        })
        .collect();
    resets.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.remote.cmp(&b.remote)).then(a.kind.cmp(&b.kind)));
    resets
}

pub(super) fn rejected_syns(state: &State, namer: &Namer<'_>) -> Vec<RejectedSyns> {
    let mut rejected: Vec<RejectedSyns> = state
        .rejected_syns()
        .iter()
        .map(|(key, count)| {
            let (remote, local, _) = describe(key.place);
            RejectedSyns {
                process: key.process.map(|process| namer.name(process, Some(key.netns))),
                direction: if key.is_sent { Direction::Outbound } else { Direction::Inbound },
                remote,
                local,
                netns: key.netns,
                count: *count,
            }
        })
        .collect();
    rejected
        .sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.remote, a.direction).cmp(&(&b.remote, b.direction))));
    rejected
}
