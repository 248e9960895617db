//! What the state keeps of ephemeral ports: rates from events, and the most that a census showed in use.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::{State, failures::Place};
use crate::{
    hash::FastMap,
    model::{ConnectFailure, Netns, NetnsCensus, RowPlace, Timestamp},
    ports::{
        Route,
        accounting::{self, Accounting, PortSpace},
        rates::{Rate, Rates},
    },
};

/// The most ports a census showed in use of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Ports in use
    pub used: u32,
    /// Ports that were usable then
    pub usable: u32,
    /// When
    pub at: Timestamp,
}

/// Ephemeral ports over time.
#[derive(Debug)]
pub(super) struct PortHistory {
    pub(super) rates: Rates,
    peaks: HashMap<Route, Peak>,
    /// The most ports that bound sockets took out
    poisoned: HashMap<Netns, u32>,
    limit: usize,
    evicted: u64,
}

impl PortHistory {
    /// Nothing yet, of at most `limit` routes.
    pub(super) fn new(limit: usize) -> Self {
        Self { rates: Rates::new(limit), peaks: HashMap::new(), poisoned: HashMap::new(), limit, evicted: 0 }
    }

    /// Takes in what a dump showed. When there is no room, the routes that used the fewest ports go.
    pub(super) fn note(&mut self, namespace: &NetnsCensus, account: &Accounting) {
        let Some(space) = &account.space else { return };
        let usable = space.usable();
        let has_room = self.poisoned.len() < self.limit || self.poisoned.contains_key(&namespace.netns);
        if has_room {
            let most = self.poisoned.entry(namespace.netns).or_default();
            *most = (*most).max(space.open() - usable);
        } else {
            self.evicted += 1;
        }
        for (route, seen) in &account.routes {
            let now = Peak { used: seen.used(), usable, at: namespace.at };
            let peak = self.peaks.entry(*route).or_insert(now);
            if now.used > peak.used {
                *peak = now;
            }
        }
        if self.peaks.len() > self.limit {
            let mut all: Vec<_> = self.peaks.iter().map(|(route, peak)| (Reverse(peak.used), *route)).collect();
            all.sort_unstable();
            for (_, route) in all.drain(self.limit / 2..) {
                self.peaks.remove(&route);
                self.evicted += 1;
            }
        }
    }

    /// How many routes and namespaces the most that was seen is known of.
    pub(super) fn peaks(&self) -> usize {
        self.peaks.len() + self.poisoned.len()
    }

    /// Forgets the most that was seen. Rates stay: they are of the last while in any case.
    pub(super) fn forget_peaks(&mut self) {
        self.peaks.clear();
        self.poisoned.clear();
    }

    pub(super) fn peak(&self, route: &Route) -> Option<Peak> {
        self.peaks.get(route).copied()
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.peaks.keys()
    }

    pub(super) fn most_poisoned(&self, netns: Netns) -> u32 {
        self.poisoned.get(&netns).copied().unwrap_or_default()
    }

    /// Routes that found no room, for their rates or their peaks.
    pub(super) const fn evicted(&self) -> u64 {
        self.rates.evicted() + self.evicted
    }
}

impl State {
    /// The ephemeral ports of a namespace of a census.
    #[must_use]
    pub fn account(&self, namespace: &NetnsCensus) -> Accounting {
        accounting::account(namespace, |row| self.ledger.find(row, namespace.at)?.opened)
    }

    /// Where the census has the sockets of an account, of the routes that are `wanted`.
    #[must_use]
    pub fn port_sockets(
        &self,
        namespace: &NetnsCensus,
        space: &PortSpace,
        wanted: impl Fn(&Route) -> bool,
    ) -> FastMap<Route, Vec<RowPlace>> {
        accounting::sockets(namespace, space, |row| self.ledger.find(row, namespace.at)?.opened, wanted)
    }

    /// How fast connections of a route entered TIME_WAIT lately.
    #[must_use]
    pub fn rate(&self, route: &Route, now: Timestamp) -> Option<Rate> {
        self.ports.rates.of(route, now)
    }

    /// The most ports of a route that a census of the window showed in use.
    #[must_use]
    pub fn peak(&self, route: &Route) -> Option<Peak> {
        self.ports.peak(route)
    }

    /// Routes towards which a connect() found no port, of those that a census showed in use.
    pub fn exhausted_routes(&self) -> impl Iterator<Item = Route> {
        let failed: HashSet<(Netns, Place)> = self
            .connects
            .iter()
            .filter(|(key, _)| key.cause == ConnectFailure::NoFreePort)
            .map(|(key, _)| (key.netns, key.remote))
            .collect();
        let routes = self.ports.routes().copied();
        routes.filter(move |route| failed.contains(&(route.netns, Place::Outbound(route.remote))))
    }

    /// Namespaces in which a connect(), a bind() to port 0 or a listen() found no port.
    pub fn out_of_ports(&self) -> impl Iterator<Item = Netns> {
        let connects = self.connects.iter();
        let connects = connects.filter(|(key, _)| key.cause == ConnectFailure::NoFreePort).map(|(key, _)| key.netns);
        let calls = self.refused.iter().filter(|(key, _)| key.local.is_some_and(|local| local.port() == 0));
        connects.chain(calls.map(|(key, _)| key.netns))
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_run_out_of_ports(&self) -> bool {
        self.out_of_ports().next().is_some()
    }

    /// The most ephemeral ports of a namespace that a census of the window showed taken out by bound sockets.
    #[must_use]
    pub fn most_poisoned(&self, netns: Netns) -> u32 {
        self.ports.most_poisoned(netns)
    }

    /// Routes whose rate or peak found no room since the window began: their ports are counted all the same.
    #[must_use]
    pub const fn evicted_routes(&self) -> u64 {
        self.ports.evicted() - self.window.evicted_routes
    }
}
