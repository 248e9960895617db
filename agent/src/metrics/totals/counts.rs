//! What one report counts, by group and for the host.

use std::collections::{BTreeMap, HashMap};

use super::place;
use crate::{
    metrics::labels::{Group, ProcessLabel},
    model::{Call, ConnectFailure, Leaving, Netns, Reset},
    report::{Direction, NetnsTimeWait, PortOutcome, PortUse, Report},
};

/// What is counted of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    /// Connections that entered TIME_WAIT
    Entered,
    /// Connections it closed first
    ClosedFirst,
    /// Refused calls, by errno
    Refused(Call, u32),
    /// Connections not established
    NotConnected(ConnectFailure),
    /// Connections cut off
    CutOff(Reset),
}

/// Counters of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) BTreeMap<Counted, u64>);

impl Counts {
    fn count(&mut self, what: Counted, count: u64) {
        if count > 0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub(super) fn add(&mut self, others: &Self) {
        for (&what, &count) in &others.0 {
            self.count(what, count);
        }
    }

    pub(super) fn of(&self, what: Counted) -> u64 {
        self.0.get(&what).copied().unwrap_or_default()
    }
}

/// Ephemeral ports towards a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PortLevel {
    pub(super) used: u64,
    pub(super) usable: u64,
}

impl PortLevel {
    /// The share that is used; nothing usable is all of it.
    pub(super) fn ratio(self) -> f64 {
        if self.usable == 0 { 1.0 } else { self.used as f64 / self.usable as f64 }
    }
}

/// What a window shows of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Activity {
    pub(super) counts: Counts,
    pub(super) time_wait: u64,
    pub(super) fin_wait2: u64,
    pub(super) close_wait: u64,
    /// Of the destination that is nearest to exhaustion
    pub(super) ports: Option<PortLevel>,
    /// Seconds, of the destination where it is soonest
    pub(super) exhaustion: Option<f64>,
}

impl Activity {
    /// How much it matters: sockets that are there, things that happened, and ports that run short before all.
    pub(super) fn weight(&self) -> f64 {
        let sockets = self.time_wait + self.fin_wait2 + self.close_wait;
        let happened: u64 = self.counts.0.values().sum();
        let short = if self.exhaustion.is_some() { 100_000.0 } else { 0.0 };
        (sockets + happened) as f64 + self.ports.map_or(0.0, |ports| ports.used as f64) + short
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.time_wait += other.time_wait;
        self.fin_wait2 += other.fin_wait2;
        self.close_wait += other.close_wait;
        if let Some(ports) = other.ports {
            self.note_ports(ports);
        }
        if let Some(seconds) = other.exhaustion {
            self.note_exhaustion(seconds);
        }
    }

    fn note_ports(&mut self, ports: PortLevel) {
        if self.ports.is_none_or(|known| known.ratio() < ports.ratio()) {
            self.ports = Some(ports);
        }
    }

    fn note_exhaustion(&mut self, seconds: f64) {
        self.exhaustion = Some(self.exhaustion.map_or(seconds, |known| known.min(seconds)));
    }
}

/// Every group a report speaks of, and what it counts of processes it leaves out.
pub(super) fn by_group(report: &Report, labels: &[ProcessLabel]) -> (HashMap<Group, Activity>, Activity) {
    let mut groups: HashMap<Group, Activity> = HashMap::new();
    let time_wait = &report.time_wait;
    let (mut sockets, mut entered) = (0, 0);
    for of in &time_wait.by_process {
        sockets += of.sockets + of.fin_wait2;
        entered += of.entered;
        let group = groups.entry(Group::of(labels, &place(Some(&of.process), None, None, None))).or_default();
        group.time_wait += of.sockets;
        group.fin_wait2 += of.fin_wait2;
        group.counts.count(Counted::Entered, of.entered);
        group.counts.count(Counted::ClosedFirst, of.closed_first);
    }
    // Which of those left out are in FIN_WAIT2 a report does not say.
    let left_out = time_wait.total.saturating_sub(time_wait.unattributed).saturating_sub(sockets);
    let mut rest = Activity { time_wait: left_out, ..Activity::default() };
    let entered = time_wait.entered.saturating_sub(entered);
    if time_wait.processes_omitted > 0 {
        rest.counts.count(Counted::Entered, entered);
    } else if entered > 0 {
        let unknown = groups.entry(Group::of(labels, &place(None, None, None, None))).or_default();
        unknown.counts.count(Counted::Entered, entered);
    }
    for of in &report.bind_failures {
        let place = place(Some(&of.process), Some(of.netns), of.local.as_deref(), None);
        let group = groups.entry(Group::of(labels, &place)).or_default();
        group.counts.count(Counted::Refused(of.call, of.errno), of.count);
    }
    for of in &report.connect_failures {
        let place = place(of.process.as_ref(), Some(of.netns), None, Some(&of.remote));
        let group = groups.entry(Group::of(labels, &place)).or_default();
        group.counts.count(Counted::NotConnected(of.cause), of.count);
    }
    for of in &report.resets {
        let place = place(of.process.as_ref(), Some(of.netns), of.local.as_deref(), Some(&of.remote));
        let group = groups.entry(Group::of(labels, &place)).or_default();
        group.counts.count(Counted::CutOff(of.kind), of.count);
    }
    for of in &report.close_wait {
        let place = place(of.process.as_ref(), Some(of.netns), of.local.as_deref(), Some(&of.remote));
        groups.entry(Group::of(labels, &place)).or_default().close_wait += of.sockets;
    }
    for of in &report.ports.destinations {
        let user = of.processes.first().and_then(|user| user.process.as_ref());
        let place = place(user, Some(of.netns), Some(&of.local), Some(&of.remote));
        let group = groups.entry(Group::of(labels, &place)).or_default();
        group.note_ports(PortLevel { used: of.used, usable: of.usable });
        if let Some(seconds) = exhaustion(of) {
            group.note_exhaustion(seconds);
        }
    }
    (groups, rest)
}

fn exhaustion(destination: &PortUse) -> Option<f64> {
    let forecast = destination.forecast?;
    match forecast.outcome {
        PortOutcome::Exhausted => Some(0.0),
        PortOutcome::RunsOut => forecast.seconds,
        PortOutcome::LevelsOff => None,
    }
}

/// A network namespace, of which there may be any number: firstfin's own, or one of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NetnsKind {
    Host,
    Other,
}

impl NetnsKind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Other => "other",
        }
    }

    fn of(netns: Netns, own: Option<Netns>) -> Self {
        if own == Some(netns) { Self::Host } else { Self::Other }
    }
}

/// What the last window shows of the namespaces of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NetnsLevel {
    pub(super) time_wait: u64,
    /// Timewait sockets and what is allowed, of the one that is nearest to its limit
    pub(super) fullest: Option<PortLevel>,
    /// Ports withdrawn, of the one that lacks most
    pub(super) withdrawn: Option<u64>,
}

/// Counters of the host, and what the last window shows of it.
#[derive(Debug, Default)]
pub(super) struct HostCounts {
    pub(super) left: BTreeMap<Leaving, u64>,
    pub(super) overflowed: BTreeMap<NetnsKind, u64>,
    pub(super) rejected_syns: BTreeMap<Direction, u64>,
    pub(super) searches: Option<(u64, u64)>,
    pub(super) received: u64,
    pub(super) bytes: u64,
    pub(super) lost: BTreeMap<&'static str, u64>,
    pub(super) not_followed: u64,
    pub(super) evicted: u64,
    pub(super) namespaces: BTreeMap<NetnsKind, NetnsLevel>,
}

/// A search for a port that took this long, in microseconds, was slow.
const SLOW_SEARCH_US: u64 = 1_024;

impl HostCounts {
    pub(super) fn take_in(&mut self, report: &Report, own: Option<Netns>) {
        for (&reason, &count) in &report.time_wait.left {
            *self.left.entry(reason).or_default() += count;
        }
        for of in &report.rejected_syns {
            *self.rejected_syns.entry(of.direction).or_default() += of.count;
        }
        if let Some(search) = &report.ports.search {
            let is_slow = |below: Option<u64>| below.is_none_or(|below| below > SLOW_SEARCH_US);
            let slow: u64 = search.buckets.iter().filter(|it| is_slow(it.below_us)).map(|it| it.count).sum();
            let (all, slow_ones) = self.searches.unwrap_or_default();
            self.searches = Some((all + search.searches, slow_ones + slow));
        }
        let events = &report.session.events;
        self.received += events.received;
        self.bytes += events.bytes;
        self.not_followed += events.sockets_not_followed;
        self.evicted += events.evicted;
        let lost = &events.lost_by_kind;
        for (reason, count) in [
            ("transitions", lost.transitions),
            ("refused_calls", lost.refused_calls),
            ("processes", lost.processes),
            ("timewait", lost.timewait),
            ("skipped_programs", lost.skipped_programs),
            ("malformed", events.malformed),
        ] {
            *self.lost.entry(reason).or_default() += count;
        }
        self.take_in_namespaces(report, own);
    }

    fn take_in_namespaces(&mut self, report: &Report, own: Option<Netns>) {
        self.namespaces.clear();
        for of in &report.time_wait.namespaces {
            let kind = NetnsKind::of(of.netns, own);
            *self.overflowed.entry(kind).or_default() += of.overflowed;
            let level = self.namespaces.entry(kind).or_default();
            level.time_wait += of.kernel_total;
            if let Some(buckets) = buckets(of)
                && level.fullest.is_none_or(|known| known.ratio() < buckets.ratio())
            {
                level.fullest = Some(buckets);
            }
        }
        for of in &report.ports.namespaces {
            let level = self.namespaces.entry(NetnsKind::of(of.netns, own)).or_default();
            level.withdrawn = level.withdrawn.max(of.poisoned);
        }
    }
}

fn buckets(of: &NetnsTimeWait) -> Option<PortLevel> {
    Some(PortLevel { used: of.kernel_total, usable: of.max_tw_buckets? })
}
