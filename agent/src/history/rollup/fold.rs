//! The minute that is going on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::{
    DestinationMinute, FailureKind, FailureMinute, Figures, HostMinute, Identity, Limits, Minute, Moment, Place,
    ProcessMinute, RouteMinute, Who,
};
use crate::{
    model::{Call, Netns},
    report::{ProcessTimeWait, Report},
};

/// Different keys of one kind held while a minute lasts: many times what is kept of it. What comes after them is counted
/// among the others, even if it would have become large.
const HELD: usize = 1 << 12;

#[derive(Clone, Debug, Default)]
struct Processes {
    pid: u32,
    processes: u64,
    figures: Figures,
}

#[derive(Clone, Copy, Debug)]
struct Route {
    used: u64,
    usable: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    pid: u32,
    count: u64,
}

type RouteKey = (Netns, String, String);
type FailureKey = (Who, FailureKind, Option<String>, Netns, u32);

#[derive(Debug, Default)]
pub(super) struct Folding {
    minute: Minute,
    processes: HashMap<Identity, Processes>,
    destinations: HashMap<(Identity, Place), u64>,
    routes: HashMap<RouteKey, Route>,
    failures: HashMap<FailureKey, Failures>,
    /// What found no room while the minute lasted
    other_processes: Processes,
    other_destinations: u64,
    other_failures: BTreeMap<FailureKind, u64>,
}

impl Folding {
    pub(super) fn new(start: i64) -> Self {
        Self { minute: Minute { start, ..Minute::default() }, ..Self::default() }
    }

    pub(super) const fn start(&self) -> i64 {
        self.minute.start
    }

    pub(super) fn add(&mut self, report: &Report, at: Moment, window_ms: i64) {
        self.minute.windows += 1;
        self.minute.observed_ms += window_ms;
        self.minute.boottime_ms = at.boottime_ms;
        self.minute.wall_ms = at.wall.as_millisecond();
        add_host(&mut self.minute.host, report);
        self.add_processes(&report.time_wait.by_process);
        self.add_destinations(&report.time_wait.by_process);
        self.add_routes(report);
        self.add_failures(report);
    }

    fn add_processes(&mut self, by_process: &[ProcessTimeWait]) {
        let mut now: HashMap<Identity, (u64, Processes)> = HashMap::new();
        for it in by_process {
            let (largest, of_kind) = now.entry((&it.process).into()).or_default();
            if of_kind.processes == 0 || it.sockets > *largest {
                (*largest, of_kind.pid) = (it.sockets, it.process.pid);
            }
            of_kind.processes += 1;
            let figures = &mut of_kind.figures;
            figures.sockets += it.sockets;
            figures.fin_wait2 += it.fin_wait2;
            figures.entered += it.entered;
            figures.closed_first += it.closed_first;
            figures.overflowed += it.overflowed;
        }
        let mut others = Processes::default();
        for (identity, (_, window)) in now {
            match room(&mut self.processes, identity) {
                Some(kept) => {
                    kept.pid = window.pid;
                    kept.processes = kept.processes.max(window.processes);
                    kept.figures.widen(&window.figures);
                }
                None => {
                    others.processes += 1;
                    others.figures.plus(&window.figures);
                }
            }
        }
        self.other_processes.processes = self.other_processes.processes.max(others.processes);
        self.other_processes.figures.widen(&others.figures);
    }

    fn add_destinations(&mut self, by_process: &[ProcessTimeWait]) {
        let mut now: HashMap<(Identity, Place), u64> = HashMap::new();
        for it in by_process {
            for to in &it.destinations {
                let place = Place { remote: to.remote.clone(), local: to.local.clone(), direction: to.direction };
                *now.entry(((&it.process).into(), place)).or_default() += to.sockets;
            }
        }
        let mut others = 0;
        for (key, sockets) in now {
            match room(&mut self.destinations, key) {
                Some(kept) => *kept = (*kept).max(sockets),
                None => others += sockets,
            }
        }
        self.other_destinations = self.other_destinations.max(others);
    }

    fn add_routes(&mut self, report: &Report) {
        for it in &report.ports.destinations {
            let used = it.peak_used.max(it.used);
            let key = (it.netns, it.local.clone(), it.remote.clone());
            if self.routes.len() >= HELD && !self.routes.contains_key(&key) {
                self.minute.routes_omitted += 1;
                continue;
            }
            let kept = self.routes.entry(key).or_insert(Route { used, usable: it.usable });
            if used > kept.used {
                *kept = Route { used, usable: it.usable };
            }
        }
        self.minute.routes_omitted = self.minute.routes_omitted.max(report.ports.destinations_omitted);
    }

    fn add_failures(&mut self, report: &Report) {
        for it in &report.bind_failures {
            let kind = match it.call {
                Call::Bind => FailureKind::Bind,
                Call::Listen => FailureKind::Listen,
            };
            let key = (Who::of(Some(&it.process)), kind, it.local.clone(), it.netns, it.errno);
            self.add_failure(key, it.process.pid, it.count);
        }
        for it in &report.connect_failures {
            let kind = FailureKind::Connect(it.cause);
            let key = (Who::of(it.process.as_ref()), kind, Some(it.remote.clone()), it.netns, it.errno);
            self.add_failure(key, it.process.as_ref().map_or(0, |process| process.pid), it.count);
        }
        for it in &report.resets {
            let kind = FailureKind::Reset(it.kind);
            let key = (Who::of(it.process.as_ref()), kind, Some(it.remote.clone()), it.netns, 0);
            self.add_failure(key, it.process.as_ref().map_or(0, |process| process.pid), it.count);
        }
    }

    fn add_failure(&mut self, key: FailureKey, pid: u32, count: u64) {
        let kind = key.1;
        match room(&mut self.failures, key) {
            Some(kept) => {
                kept.pid = pid;
                kept.count += count;
            }
            None => *self.other_failures.entry(kind).or_default() += count,
        }
    }

    /// The minute, with as many rows as the limits allow.
    pub(super) fn finish(mut self, limits: Limits) -> Minute {
        self.finish_processes(limits.processes);
        self.finish_destinations(limits.destinations);
        self.finish_routes(limits.destinations);
        self.finish_failures(limits.destinations);
        self.minute
    }

    fn finish_processes(&mut self, limit: usize) {
        let mut all: Vec<_> = self.processes.drain().collect();
        // By name at last: the same windows give the same minute.
        all.sort_unstable_by(|(one, a), (other, b)| {
            b.figures.rank().cmp(&a.figures.rank()).then_with(|| one.order().cmp(&other.order()))
        });
        let mut others = std::mem::take(&mut self.other_processes);
        for (_, rest) in all.drain(limit.min(all.len())..) {
            others.processes += 1;
            others.figures.plus(&rest.figures);
        }
        let row = |(identity, it): (Identity, Processes)| ProcessMinute {
            who: Who::Known(identity),
            pid: it.pid,
            processes: it.processes,
            figures: it.figures,
        };
        self.minute.processes = all.into_iter().map(row).collect();
        if others.processes > 0 {
            let Processes { processes, figures, .. } = others;
            self.minute.processes.push(ProcessMinute { who: Who::Others, pid: 0, processes, figures });
        }
    }

    fn finish_destinations(&mut self, limit: usize) {
        let mut all: Vec<_> = self.destinations.drain().collect();
        all.sort_unstable_by(|((one, at), a), ((other, there), b)| {
            b.cmp(a).then_with(|| (one.order(), at.order()).cmp(&(other.order(), there.order())))
        });
        let others: u64 = all.drain(limit.min(all.len())..).map(|(_, sockets)| sockets).sum();
        let others = others + self.other_destinations;
        let row =
            |((identity, place), sockets)| DestinationMinute { who: Who::Known(identity), place: Some(place), sockets };
        self.minute.destinations = all.into_iter().map(row).collect();
        if others > 0 {
            self.minute.destinations.push(DestinationMinute { who: Who::Others, place: None, sockets: others });
        }
    }

    fn finish_routes(&mut self, limit: usize) {
        let mut all: Vec<_> = self.routes.drain().collect();
        all.sort_unstable_by(|(one, a), (other, b)| {
            let (share, other_share) = (a.used.saturating_mul(b.usable), b.used.saturating_mul(a.usable));
            other_share.cmp(&share).then_with(|| b.used.cmp(&a.used)).then_with(|| one.cmp(other))
        });
        self.minute.routes_omitted += u64::try_from(all.len().saturating_sub(limit)).unwrap_or(u64::MAX);
        all.truncate(limit);
        let row = |((netns, local, remote), it): (RouteKey, Route)| RouteMinute {
            netns,
            local,
            remote,
            used: it.used,
            usable: it.usable,
        };
        self.minute.routes = all.into_iter().map(row).collect();
    }

    fn finish_failures(&mut self, limit: usize) {
        let row = |((who, kind, address, netns, errno), it): (FailureKey, Failures)| FailureMinute {
            who,
            pid: it.pid,
            kind,
            address,
            netns,
            errno,
            count: it.count,
        };
        let mut all: Vec<_> = self.failures.drain().map(row).collect();
        all.sort_unstable_by_key(|it| {
            let who = match &it.who {
                Who::Known(identity) => Some(format!("{:?}", identity.order())),
                Who::Unknown | Who::Others => None,
            };
            (Reverse(it.count), it.kind, it.address.clone(), it.netns, it.errno, who)
        });
        let mut others = std::mem::take(&mut self.other_failures);
        for rest in all.drain(limit.min(all.len())..) {
            *others.entry(rest.kind).or_default() += rest.count;
        }
        all.extend(others.into_iter().map(|(kind, count)| FailureMinute {
            who: Who::Others,
            pid: 0,
            kind,
            address: None,
            netns: Netns(0),
            errno: 0,
            count,
        }));
        self.minute.failures = all;
    }
}

/// The place of a key, made if there is room for it.
fn room<K: Eq + Hash, V: Default>(map: &mut HashMap<K, V>, key: K) -> Option<&mut V> {
    if map.len() >= HELD && !map.contains_key(&key) {
        return None;
    }
    Some(map.entry(key).or_default())
}

fn add_host(host: &mut HostMinute, report: &Report) {
    let (time_wait, events) = (&report.time_wait, &report.session.events);
    host.time_wait = host.time_wait.max(time_wait.total);
    host.fin_wait2 = host.fin_wait2.max(time_wait.fin_wait2);
    host.kernel_total = host.kernel_total.max(time_wait.kernel_total);
    if time_wait.unattributed > host.unattributed {
        host.unattributed = time_wait.unattributed;
        host.unattributed_reasons = time_wait.unattributed_reasons;
    }
    host.processes_omitted = host.processes_omitted.max(time_wait.processes_omitted);
    host.entered += time_wait.entered;
    host.overflowed += time_wait.overflowed;
    host.events_received += events.received;
    host.events_lost += events.lost;
    host.not_followed += events.malformed + events.sockets_not_followed + events.evicted;
}

impl Figures {
    /// Takes another window of the same minute in: the most of what is there, the sum of what happened.
    pub(super) fn widen(&mut self, window: &Self) {
        self.sockets = self.sockets.max(window.sockets);
        self.fin_wait2 = self.fin_wait2.max(window.fin_wait2);
        self.happened(window);
    }

    /// Takes another process of the same window in.
    fn plus(&mut self, process: &Self) {
        self.sockets += process.sockets;
        self.fin_wait2 += process.fin_wait2;
        self.happened(process);
    }

    const fn happened(&mut self, it: &Self) {
        self.entered += it.entered;
        self.closed_first += it.closed_first;
        self.overflowed += it.overflowed;
    }

    /// What decides who is kept: a process may hold few sockets and still go through very many.
    fn rank(&self) -> (u64, u64) {
        (self.sockets.max(self.entered).max(self.overflowed), self.sockets)
    }
}

impl Identity {
    /// An order that does not change from run to run.
    fn order(&self) -> impl Ord + std::fmt::Debug {
        let container = self.container.as_ref().map(|it| it.id.clone());
        (self.comm.clone(), self.exe.clone(), self.unit.clone(), container)
    }
}

impl Place {
    fn order(&self) -> impl Ord {
        (self.remote.clone(), self.local.clone(), self.direction)
    }
}
