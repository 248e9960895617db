//! Refused bind() and listen(): who holds the port, by which rule it was refused, and what would have let it through.

use std::{cmp::Reverse, collections::HashMap, net::SocketAddr};

use super::{
    BindFailure, Holder, HolderKind, ProcessInfo, Refusal,
    build::{Namer, round, truncate},
};
use crate::{
    model::{HeldOptions, ProcessKey, SocketRow, TcpState, TimeWaitSubstate, errno},
    rules::{self, Outcome, Remedy, Request},
    state::{
        State,
        failures::{HolderSeen, HoldersSeen, RefusedKey, RefusedTally},
    },
};

/// Holders listed for a refused port, at most.
const MAX_HOLDERS: usize = 8;

pub(super) fn bind_failures(state: &State, namer: &Namer<'_>) -> Vec<BindFailure> {
    let mut failures: Vec<BindFailure> =
        state.refused().iter().filter_map(|(key, tally)| Some(bind_failure(key, tally, tally.last?, namer))).collect();
    failures.sort_by(|a, b| {
        b.count.cmp(&a.count).then_with(|| a.local.cmp(&b.local)).then(a.process.pid.cmp(&b.process.pid))
    });
    failures
}

fn bind_failure(key: &RefusedKey, tally: &RefusedTally, last: ProcessKey, namer: &Namer<'_>) -> BindFailure {
    let process = namer.name(last, Some(key.netns));
    let seen = match &tally.holders {
        HoldersSeen::Found(seen) => seen.as_slice(),
        HoldersSeen::Failed(_) | HoldersSeen::NotLooked => &[],
    };
    let Judgement { in_the_way, refusal, remedies } = key.local.map_or_else(Judgement::default, |local| {
        let request = Request {
            call: key.call,
            local,
            options: tally.options,
            // Recordings of older versions do not tell; then it counts as nobody's, and as bound to no interface.
            uid: tally.asker.uid.unwrap_or(u32::MAX),
            device: tally.asker.device.unwrap_or_default(),
        };
        judge(&request, seen)
    });
    let mut holders = group_holders(seen, in_the_way, &|process| namer.name(process, Some(key.netns)));
    let holders_omitted = truncate(&mut holders, MAX_HOLDERS);
    BindFailure {
        process,
        call: key.call,
        local: key.local.map(|local| local.to_string()),
        netns: key.netns,
        errno: key.errno,
        error: errno::name(key.errno).into_owned(),
        options: tally.options,
        asker: tally.asker,
        count: tally.count,
        over_s: tally.when.map_or(0.0, |(first, last)| round(last.since(first).as_secs_f64())),
        processes: tally.processes.len() as u64,
        holders,
        holders_omitted,
        holders_unknown: match &tally.holders {
            HoldersSeen::Failed(why) => Some(why.clone()),
            HoldersSeen::NotLooked if key.is_about_a_holder() => {
                Some("it was not looked for: too many other ports were refused at the same time".to_owned())
            }
            HoldersSeen::Found(_) | HoldersSeen::NotLooked => None,
        },
        refusal,
        remedies,
    }
}

/// What the kernel's rule says of a request.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Place of the holder because of which it is not, or not certainly, granted
    pub(crate) in_the_way: Option<usize>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) remedies: Vec<Remedy>,
}

pub(crate) fn judge(request: &Request, seen: &[HolderSeen]) -> Judgement {
    let (places, holders): (Vec<usize>, Vec<rules::Holder>) =
        seen.iter().enumerate().filter_map(|(place, seen)| Some((place, seen.for_rules()?))).unzip();
    let (holder, refusal) = match rules::decide(request, &holders) {
        Outcome::Accepted => return Judgement::default(),
        Outcome::Refused { holder, rule } => (holder, Refusal { rule: Some(rule), unknown: Vec::new() }),
        Outcome::Undecided { holder, unknown } => (holder, Refusal { rule: None, unknown }),
    };
    Judgement {
        in_the_way: places.get(holder).copied(),
        refusal: Some(refusal),
        remedies: rules::remedies(request, &holders),
    }
}

/// Groups holders that differ in nothing a reader needs: a thousand connections of one process are one line. The one in
/// the way comes first.
pub(crate) fn group_holders(
    seen: &[HolderSeen],
    in_the_way: Option<usize>,
    name: &dyn Fn(ProcessKey) -> ProcessInfo,
) -> Vec<Holder> {
    let mut grouped: Vec<(bool, Holder)> = Vec::new();
    let mut places: HashMap<(HolderKind, SocketAddr, Option<ProcessKey>, HeldOptions), usize> = HashMap::new();
    for (place, holder) in seen.iter().enumerate() {
        let Some(kind) = holder_kind(&holder.row) else { continue };
        let local = holder.row.connection.local;
        let seconds_left = holder.row.time_wait_left.map(|left| left.as_secs());
        let at = *places.entry((kind, local, holder.owner, holder.options)).or_insert_with(|| {
            let is_connection = !matches!(kind, HolderKind::Listener | HolderKind::Bound);
            let new = Holder {
                kind,
                local: local.to_string(),
                remote: is_connection.then(|| holder.row.connection.remote.to_string()),
                process: holder.owner.map(name),
                seconds_left,
                sockets: 0,
                also_open_in: holder.others.iter().copied().map(name).collect(),
                options: holder.options,
            };
            grouped.push((false, new));
            grouped.len() - 1
        });
        if let Some((is_in_the_way, group)) = grouped.get_mut(at) {
            *is_in_the_way |= in_the_way == Some(place);
            group.sockets += 1;
            // The port is free when the last of them is gone.
            group.seconds_left = group.seconds_left.max(seconds_left);
        }
    }
    grouped.sort_by_key(|(is_in_the_way, holder)| (!is_in_the_way, holder.kind, Reverse(holder.sockets)));
    grouped.into_iter().map(|(_, holder)| holder).collect()
}

/// What a row of a dump is to somebody who wants its port; nothing if it has let go of it.
pub(super) fn holder_kind(row: &SocketRow) -> Option<HolderKind> {
    Some(match (row.substate(), row.state) {
        (Some(TimeWaitSubstate::TimeWait), _) => HolderKind::TimeWait,
        (Some(TimeWaitSubstate::FinWait2), _) => HolderKind::FinWait2,
        (None, TcpState::Listen) => HolderKind::Listener,
        (None, TcpState::BoundInactive) => HolderKind::Bound,
        (None, TcpState::Close) => return None,
        (None, _) => HolderKind::Connection,
    })
}
