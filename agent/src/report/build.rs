//! State and the last census -> report. Pure.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    ConnectLatency, Destination, Direction, Events, Hook, Host, Lost, NetnsTimeWait, ProcessInfo, ProcessTimeWait,
    Report, SCHEMA, Session, TimeWait, UnattributedReasons, close_wait, conflicts, failures, ports, sharing,
};
use crate::{
    analysis,
    model::{Census, Inode, Name, Netns, ProcessKey, SocketRow, TimeWaitSubstate},
    state::{Attribution, Closes, Reason, State, failures::Place},
};

/// Processes listed under TIME_WAIT, at most.
const MAX_PROCESSES: usize = 1_000;
/// Destinations listed for a process, at most.
const MAX_DESTINATIONS: usize = 20;

/// What a report says of its session, apart from what the state knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Where it was made
    pub host: Host,
    /// Wall clock at the start of what the report is of, RFC 3339 in UTC
    pub started_at: String,
    /// Length of the session, or of its last window
    pub duration: Duration,
    /// It was ended before its time
    pub interrupted: bool,
    /// What was observed
    pub hooks: Vec<Hook>,
    /// What the session had to do without
    pub blind_spots: Vec<String>,
    /// What the kernel could not tell
    pub lost: Lost,
    /// Sockets not followed because the kernel's table was full
    pub sockets_not_followed: u64,
    /// Records that were not understood
    pub malformed: u64,
    /// Bytes of all records
    #[serde(default)]
    pub bytes: u64,
    /// Of the processes the state mentions, those that are still there
    pub alive: HashSet<ProcessKey>,
    /// Who has the sockets of [`sockets_to_name`](super::sockets_to_name) open, where that could be found out
    #[serde(default)]
    pub socket_owners: Vec<(Inode, ProcessKey)>,
    /// How often connect() looked for a port for how long, by [`duration_bucket`](agent_ebpf::duration_bucket)
    #[serde(default)]
    pub port_searches: Option<Vec<u64>>,
    /// How many connections took how long from connect() to the end of the handshake, by the same
    #[serde(default)]
    pub handshakes: Option<Vec<u64>>,
    /// The report is of a window, and the next one begins
    #[serde(default)]
    pub is_window: bool,
    /// Something was lost before the window began. A connection may live for days, and what was lost at its beginning
    /// costs the owner of its timewait socket; so this is never over
    #[serde(default)]
    pub lost_before: bool,
}

/// Makes the report of a session, or of its last window, out of what is known and what is there now.
#[must_use]
pub fn build(state: &State, census: &Census, facts: &SessionFacts) -> Report {
    let lost = facts.lost.total() + facts.sockets_not_followed + facts.malformed + state.evicted_ever();
    let has_losses = facts.lost_before || lost > 0;
    let walked = facts.socket_owners.iter().copied().collect();
    let namer = Namer { state, alive: &facts.alive, walked };
    let mut blind_spots = facts.blind_spots.clone();
    blind_spots.extend(
        census.unreachable.iter().map(|(netns, why)| format!("network namespace {netns} was not looked into: {why}")),
    );
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        host: facts.host.clone(),
        session: Session {
            started_at: facts.started_at.clone(),
            duration_s: round(facts.duration.as_secs_f64()),
            interrupted: facts.interrupted,
            hooks: facts.hooks.clone(),
            events: Events {
                received: state.received(),
                bytes: facts.bytes,
                lost: facts.lost.total(),
                lost_by_kind: facts.lost,
                malformed: facts.malformed,
                sockets_not_followed: facts.sockets_not_followed,
                evicted: state.evicted(),
            },
            blind_spots,
        },
        time_wait: time_wait(state, census, facts, &namer, has_losses),
        ports: ports::build(state, census, facts, &namer),
        bind_failures: conflicts::bind_failures(state, &namer),
        connect_failures: failures::connect_failures(state, &namer),
        connect_latency: facts.handshakes.as_deref().and_then(ConnectLatency::of),
        resets: failures::resets(state, &namer),
        rejected_syns: failures::rejected_syns(state, &namer),
        close_wait: close_wait::build(census, &namer),
        shared_ports: sharing::build(census, &namer),
        findings: Vec::new(),
    };
    report.findings = analysis::findings(&report);
    report
}

/// Turns process keys into what a report says of a process.
pub(super) struct Namer<'a> {
    state: &'a State,
    alive: &'a HashSet<ProcessKey>,
    walked: HashMap<Inode, ProcessKey>,
}

impl Namer<'_> {
    /// Who has a socket of a dump open, if that was looked for at the end of the session or is known from its start.
    pub(super) fn open_by(&self, row: &SocketRow) -> Option<ProcessKey> {
        let walked = row.inode.and_then(|inode| self.walked.get(&inode)).copied();
        walked.or_else(|| self.state.older_owner(&row.connection))
    }

    pub(super) fn name(&self, key: ProcessKey, netns: Option<Netns>) -> ProcessInfo {
        let known = self.state.process(key);
        let known_netns = known.and_then(|process| process.netns);
        ProcessInfo {
            pid: key.tgid,
            comm: known.map_or_else(|| Name::from("?"), |process| process.comm.clone()),
            exe: known.and_then(|process| process.exe.clone()),
            cgroup: known.and_then(|process| process.cgroup.clone()),
            unit: known.and_then(|process| process.unit.clone()),
            container: known.and_then(|process| process.container.clone()),
            netns: netns.or(known_netns),
            exited: !self.alive.contains(&key),
        }
    }
}

#[derive(Default)]
struct Owned {
    sockets: u64,
    fin_wait2: u64,
    outbound: u64,
    inbound: u64,
    places: HashMap<Place, u64>,
    netns: HashSet<Netns>,
}

fn time_wait(state: &State, census: &Census, facts: &SessionFacts, namer: &Namer<'_>, has_losses: bool) -> TimeWait {
    // What a census does not show has left without being seen. When another window follows, it is counted there, as soon
    // as the ledger forgets it: once in all.
    let turnover = if facts.is_window { state.turnover().clone() } else { state.turnover_at(census) };
    let mut result = TimeWait {
        entered: turnover.entered(),
        became_time_wait: turnover.became_time_wait(),
        left: turnover.all_left().by_reason(),
        ..TimeWait::default()
    };
    let mut owned: HashMap<ProcessKey, Owned> = HashMap::new();
    for namespace in &census.namespaces {
        let mut total = 0;
        for (row, attribution) in state.attributed(namespace, has_losses) {
            let Some(substate) = row.substate() else { continue };
            total += 1;
            result.fin_wait2 += u64::from(substate == TimeWaitSubstate::FinWait2);
            match attribution {
                Attribution::Process(key, opened) => {
                    let owned = owned.entry(key).or_default();
                    match substate {
                        TimeWaitSubstate::TimeWait => owned.sockets += 1,
                        TimeWaitSubstate::FinWait2 => owned.fin_wait2 += 1,
                    }
                    match opened.map(Direction::from) {
                        Some(Direction::Outbound) => owned.outbound += 1,
                        Some(Direction::Inbound) => owned.inbound += 1,
                        None => {}
                    }
                    *owned.places.entry(Place::of(&row.connection, opened)).or_default() += 1;
                    owned.netns.insert(namespace.netns);
                }
                Attribution::Unknown(reason) => {
                    result.unattributed += 1;
                    *reason_count(&mut result.unattributed_reasons, reason) += 1;
                }
            }
        }
        let overflowed = namespace
            .time_wait_overflow
            .map_or(0, |overflow| overflow.saturating_sub(state.overflow_before(namespace.netns)));
        result.total += total;
        result.kernel_total += namespace.kernel_time_wait.unwrap_or(total);
        result.overflowed += overflowed;
        result.namespaces.push(NetnsTimeWait {
            netns: namespace.netns,
            total,
            kernel_total: namespace.kernel_time_wait.unwrap_or(total),
            max_tw_buckets: namespace.settings.max_tw_buckets,
            port_range: namespace.settings.port_range,
            usable_ports: namespace.settings.usable_ports,
            overflowed,
        });
    }
    let closes: HashMap<ProcessKey, &Closes> = turnover.by_process().collect();
    let none = Closes::default();
    for key in closes.keys() {
        owned.entry(*key).or_default();
    }
    let seconds = facts.duration.as_secs_f64();
    result.by_process = owned
        .into_iter()
        .map(|(key, owned)| process_time_wait(key, owned, closes.get(&key).copied().unwrap_or(&none), seconds, namer))
        .collect();
    result.by_process.sort_by_key(|process| {
        (Reverse(process.sockets + process.fin_wait2), Reverse(process.entered), process.process.pid)
    });
    result.processes_omitted = truncate(&mut result.by_process, MAX_PROCESSES);
    result
}

fn reason_count(reasons: &mut UnattributedReasons, reason: Reason) -> &mut u64 {
    match reason {
        Reason::BeforeSession => &mut reasons.before_session,
        Reason::ClosedBefore => &mut reasons.closing_before_session,
        Reason::KernelThread => &mut reasons.kernel_thread,
        Reason::Agent => &mut reasons.closed_under_observation,
        Reason::EventLost => &mut reasons.event_lost,
        Reason::NotSeen => &mut reasons.not_seen,
    }
}

fn process_time_wait(
    key: ProcessKey,
    owned: Owned,
    closes: &Closes,
    seconds: f64,
    namer: &Namer<'_>,
) -> ProcessTimeWait {
    let mut destinations: Vec<Destination> = owned
        .places
        .into_iter()
        .map(|(place, sockets)| {
            let (remote, local, direction) = failures::describe(place);
            Destination { remote, local, direction, sockets }
        })
        .collect();
    destinations.sort_by(|a, b| b.sockets.cmp(&a.sockets).then_with(|| a.remote.cmp(&b.remote)));
    let destinations_omitted = truncate(&mut destinations, MAX_DESTINATIONS);
    // A process has sockets in several namespaces only if it changes namespaces; its own then says nothing about them.
    let netns = if owned.netns.len() == 1 { owned.netns.into_iter().next() } else { None };
    ProcessTimeWait {
        process: namer.name(key, netns),
        sockets: owned.sockets,
        fin_wait2: owned.fin_wait2,
        entered: closes.entered,
        entered_per_s: if seconds > 0.0 { round(closes.entered as f64 / seconds) } else { 0.0 },
        closed_first: closes.closed_first,
        overflowed: closes.refused,
        became_time_wait: closes.became,
        left: closes.left.by_reason(),
        outbound: owned.outbound,
        inbound: owned.inbound,
        destinations,
        destinations_omitted,
    }
}

/// Cuts a list to `limit` and says how much was cut off.
pub(super) fn truncate<T>(list: &mut Vec<T>, limit: usize) -> u64 {
    let omitted = list.len().saturating_sub(limit);
    list.truncate(limit);
    omitted as u64
}

/// To three decimals: what a clock and a rate are good for.
pub(super) fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
