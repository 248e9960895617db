//! Windows: a report of the time since the last one. What is counted is counted from its beginning; whose a socket is, is
//! known from the beginning of the session.

use std::{collections::HashSet, time::Duration};

use super::{
    Sizes, State,
    failures::{HoldersSeen, RefusedKey},
};
use crate::{
    hash::FastMap,
    model::{Census, ProcessKey, Timestamp},
};

/// How long the answer to who has a refused port stands. Within a session it is the first refusal's for good; a daemon has
/// to look again, but not in each of its windows: it is a walk over the open files of every process.
const HOLDERS_STAND: Duration = Duration::from_secs(60);
/// How often the tables that lose an entry with its last record are held against a census. It takes a look at every row.
const SIFT: Duration = Duration::from_secs(60);
/// A timewait socket is gone by then, unless segments restart its clock.
const TIME_WAIT_IS_OVER: Duration = Duration::from_secs(3 * 60);

/// The window that is being counted.
#[derive(Debug)]
pub(super) struct Window {
    /// When it began
    began: Timestamp,
    /// When the tables were held against a census
    sifted: Timestamp,
    /// Entries that had found no room by then
    pub(super) evicted: u64,
    /// And routes
    pub(super) evicted_routes: u64,
    /// Who had ports that were refused in earlier windows, and when that was
    holders: FastMap<RefusedKey, (Timestamp, HoldersSeen)>,
}

impl Window {
    /// The one that begins with the session.
    pub(super) fn first(began: Timestamp) -> Self {
        Self { began, sifted: began, evicted: 0, evicted_routes: 0, holders: FastMap::default() }
    }

    /// Who has the port, if that was looked for a short while before `at`.
    pub(super) fn holders(&self, key: &RefusedKey, at: Timestamp) -> Option<(Timestamp, HoldersSeen)> {
        self.holders.get(key).filter(|(looked, _)| at.since(*looked) < HOLDERS_STAND).cloned()
    }
}

impl State {
    /// When the window began: with the session, unless there were others before.
    #[must_use]
    pub const fn window_began(&self) -> Timestamp {
        self.window.began
    }

    /// How much is remembered now.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            timewait_sockets: self.ledger.len(),
            processes: self.processes.keys().count(),
            process_places: self.processes.places(),
            owner_numbers: self.turnover.numbers(),
            failures: self.refused.len() + self.connects.len() + self.resets.len() + self.rejected_syns.len(),
            known_holders: self.window.holders.len(),
            listeners: self.listeners.len(),
            older_sockets: self.older.len(),
            routes: self.ports.rates.len(),
            peaks: self.ports.peaks(),
        }
    }

    /// Begins a window at `at`: counts from zero, and forgets what nothing refers to any more. `census` is what the report
    /// of the one that ends was made from, `gone` are processes that do not run any more. [`Input::Window`] does this, and
    /// then takes the census in as any other.
    ///
    /// [`Input::Window`]: super::Input::Window
    pub fn begin_window(&mut self, at: Timestamp, census: &Census, gone: &[ProcessKey]) {
        self.remember_holders(at);
        self.turnover.begin_window();
        self.refused.clear();
        self.connects.clear();
        self.resets.clear();
        self.rejected_syns.clear();
        self.ports.forget_peaks();
        self.older.count_overflow_from(census);
        self.received = 0;
        self.window.began = at;
        self.window.evicted = self.evicted_ever();
        self.window.evicted_routes = self.ports.evicted();
        if at.since(self.window.sifted) >= SIFT {
            self.window.sifted = at;
            self.listeners.sift(census);
            if at.since(self.started) >= TIME_WAIT_IS_OVER {
                self.older.sift_timewait(census);
            }
            self.older.shrink();
        }
        self.forget(gone);
    }

    /// Keeps who had the refused ports, as long as that stands.
    fn remember_holders(&mut self, at: Timestamp) {
        let stands = |looked: Timestamp| at.since(looked) < HOLDERS_STAND;
        self.window.holders.retain(|_, (looked, _)| stands(*looked));
        let looked = self.refused.iter().filter_map(|(key, tally)| {
            let looked = tally.looked.filter(|looked| stands(*looked))?;
            Some((key.clone(), (looked, tally.holders.clone())))
        });
        self.window.holders.extend(looked);
        if self.window.holders.len() > self.limits.failures {
            self.window.holders.clear();
        }
    }

    /// Forgets processes that do not run any more, have no timewait socket, listener or connection left that is known, and
    /// are not named as holders of a port. Their numbers are given to others.
    fn forget(&mut self, gone: &[ProcessKey]) {
        if gone.is_empty() {
            return;
        }
        let holders = self.window.holders.values().flat_map(|(_, seen)| seen.processes());
        let kept: HashSet<ProcessKey> = self.listeners.owners().chain(holders).collect();
        for key in gone.iter().filter(|key| !kept.contains(key) && !self.older.names(**key)) {
            self.processes.forget(*key, |number| self.turnover.give_up(number));
        }
    }
}

#[cfg(test)]
mod tests;
