//! What came and went: connections that closed, and timewait sockets that were made and left, by process.

use std::collections::BTreeMap;

use super::ledger::Owner;
use crate::{
    hash::FastMap,
    model::{Leaving, ProcessKey},
};

/// Timewait sockets that left, by reason.
pub type Left = BTreeMap<Leaving, u64>;

/// What became of a process's connections during the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closes {
    /// Connections that entered TIME_WAIT (or FIN_WAIT2 minisockets)
    pub entered: u64,
    /// Connections for which it sent the first FIN
    pub closed_first: u64,
    /// Connections that should have entered, but were refused a timewait socket
    pub refused: u64,
    /// FIN_WAIT2 minisockets that became TIME_WAIT
    pub became: u64,
    /// Timewait sockets that left. Of those that entered during the session: `entered` is their sum and what is there
    pub left: Left,
}

/// [`Closes`] of everybody.
#[derive(Clone, Debug, Default)]
pub struct Turnover {
    of: FastMap<ProcessKey, Closes>,
    /// Of connections that are nobody's
    unowned: Closes,
    /// Timewait sockets older than the session
    older: Left,
}

impl Turnover {
    pub(super) fn of(&mut self, owner: Owner) -> &mut Closes {
        match owner {
            Owner::Process(key) => self.of.entry(key).or_default(),
            Owner::KernelThread | Owner::Agent | Owner::ClosedBefore => &mut self.unowned,
        }
    }

    pub(super) fn left(&mut self, owner: Owner, why: Leaving) {
        *self.of(owner).left.entry(why).or_default() += 1;
    }

    /// A timewait socket from before the session left.
    pub(super) fn older_left(&mut self, why: Leaving) {
        *self.older.entry(why).or_default() += 1;
    }

    /// Every process that closed connections, with what it did.
    pub fn by_process(&self) -> impl Iterator<Item = (ProcessKey, &Closes)> {
        self.of.iter().map(|(key, closes)| (*key, closes))
    }

    /// Everybody's, and nobody's.
    fn all(&self) -> impl Iterator<Item = &Closes> {
        self.of.values().chain([&self.unowned])
    }

    /// Connections that entered TIME_WAIT during the session, whoever's they are.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.all().map(|closes| closes.entered).sum()
    }

    /// FIN_WAIT2 minisockets of the session that became TIME_WAIT, where that is observed.
    #[must_use]
    pub fn became_time_wait(&self) -> u64 {
        self.all().map(|closes| closes.became).sum()
    }

    /// Timewait sockets that left during the session, by reason; of all that were there, also before it.
    #[must_use]
    pub fn all_left(&self) -> Left {
        let mut sum = self.older.clone();
        for (why, count) in self.all().flat_map(|closes| &closes.left) {
            *sum.entry(*why).or_default() += count;
        }
        sum
    }
}
