//! What came and went during a window: connections that closed, and timewait sockets that were made and left, by process.

use std::{collections::BTreeMap, fmt};

use crate::model::{Leaving, ProcessKey};

/// Whose a timewait socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The process that ended the sending side; where a kernel thread did it for one, the process that connected
    Process(ProcessKey),
    /// A kernel thread, on nobody's visible behalf
    KernelThread,
    /// Somebody, but who that was got lost on the way
    Lost,
    /// The agent itself, which looked at the descriptor when its process closed it
    Agent,
    /// The connection began to close before the session
    ClosedBefore,
}

impl Owner {
    /// The process, if it is one's.
    pub(super) const fn process(self) -> Option<ProcessKey> {
        match self {
            Self::Process(key) => Some(key),
            Self::KernelThread | Self::Lost | Self::Agent | Self::ClosedBefore => None,
        }
    }
}

/// An [`Owner`] by its number, which says where the turnover has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerId(u32);

impl OwnerId {
    pub(super) const KERNEL_THREAD: Self = Self(u32::MAX);
    pub(super) const AGENT: Self = Self(u32::MAX - 1);
    pub(super) const LOST: Self = Self(u32::MAX - 2);
    pub(super) const CLOSED_BEFORE: Self = Self(u32::MAX - 3);

    /// The number.
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    /// What has this number, which was [one's](Self::number).
    pub(super) const fn numbered(number: u32) -> Self {
        Self(number)
    }
}

/// Timewait sockets that left, by reason.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Left([u64; Leaving::ALL.len()]);

impl Left {
    /// Counts one more.
    fn add(&mut self, why: Leaving) {
        // The reasons are numbered as they are listed, so there is a place for each.
        if let Some(count) = self.0.get_mut(why as usize) {
            *count += 1;
        }
    }

    /// How many left for this reason.
    #[must_use]
    pub fn get(&self, why: Leaving) -> u64 {
        self.0.get(why as usize).copied().unwrap_or_default()
    }

    /// How many left.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons for which any left, with how many.
    #[must_use]
    pub fn by_reason(&self) -> BTreeMap<Leaving, u64> {
        Leaving::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0).collect()
    }

    fn include(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

impl<const N: usize> From<[(Leaving, u64); N]> for Left {
    fn from(counts: [(Leaving, u64); N]) -> Self {
        let mut left = Self::default();
        for (why, count) in counts {
            if let Some(known) = left.0.get_mut(why as usize) {
                *known += count;
            }
        }
        left
    }
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.by_reason().fmt(f)
    }
}

/// What became of a process's connections during the window; as long as none was begun, that is the session.
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
    /// Timewait sockets that left, also of those that had entered before. In the first window `entered` is their sum and what
    /// is there
    pub left: Left,
    /// Of those not seen to leave: a connection of the same four numbers entered, so they had left before
    pub replaced: u64,
}

/// [`Closes`] of everybody.
#[derive(Clone, Debug, Default)]
pub struct Turnover {
    /// Of processes, each in the place of its [`OwnerId`]
    of: Vec<(ProcessKey, Closes)>,
    /// Timewait sockets that each of them had when the window began, less those that were taken back
    carried: Vec<u64>,
    /// Numbers that were given up
    free: Vec<u32>,
    /// Of connections that are nobody's
    unowned: Closes,
    /// Timewait sockets older than the session
    older: Left,
}

impl Turnover {
    /// The number of a process that has none yet. Beyond four thousand million it is nobody's that is known.
    pub(super) fn add(&mut self, key: ProcessKey) -> OwnerId {
        let free = self.free.pop().and_then(|number| Some((number, self.of.get_mut(number as usize)?)));
        if let Some((number, (owner, _))) = free {
            *owner = key;
            return OwnerId(number);
        }
        let number = u32::try_from(self.of.len()).unwrap_or(u32::MAX);
        if number >= OwnerId::CLOSED_BEFORE.0 {
            return OwnerId::CLOSED_BEFORE;
        }
        self.of.push((key, Closes::default()));
        self.carried.push(0);
        OwnerId(number)
    }

    /// Whose number this is.
    pub(super) fn owner(&self, id: OwnerId) -> Owner {
        match id {
            OwnerId::KERNEL_THREAD => Owner::KernelThread,
            OwnerId::AGENT => Owner::Agent,
            OwnerId::LOST => Owner::Lost,
            OwnerId(number) => {
                self.of.get(number as usize).map_or(Owner::ClosedBefore, |(key, _)| Owner::Process(*key))
            }
        }
    }

    pub(super) fn of(&mut self, owner: OwnerId) -> &mut Closes {
        self.of.get_mut(owner.0 as usize).map_or(&mut self.unowned, |(_, closes)| closes)
    }

    pub(super) fn left(&mut self, owner: OwnerId, why: Leaving) {
        self.of(owner).left.add(why);
    }

    /// The place of one is taken by another, which cannot be while it is there.
    pub(super) fn replaced(&mut self, owner: OwnerId) {
        let closes = self.of(owner);
        closes.left.add(Leaving::Unseen);
        closes.replaced += 1;
    }

    /// One did not enter after all.
    pub(super) fn take_back(&mut self, owner: OwnerId) {
        let closes = self.of(owner);
        if closes.entered > 0 {
            closes.entered -= 1;
        } else if let Some(carried) = self.carried.get_mut(owner.0 as usize) {
            // It was counted in an earlier window.
            *carried = carried.saturating_sub(1);
        }
    }

    /// Counts from zero again.
    pub(super) fn begin_window(&mut self) {
        for ((_, closes), carried) in self.of.iter_mut().zip(&mut self.carried) {
            *carried = (*carried + closes.entered).saturating_sub(closes.left.total());
            *closes = Closes::default();
        }
        self.unowned = Closes::default();
        self.older = Left::default();
    }

    /// How many timewait sockets of a number there are, by what was added up.
    #[cfg(test)]
    pub(super) fn live(&self, id: OwnerId) -> u64 {
        let Some(((_, closes), carried)) = self.of.get(id.0 as usize).zip(self.carried.get(id.0 as usize)) else {
            return 0;
        };
        carried + closes.entered - closes.left.total()
    }

    /// How many timewait sockets each process has by what was seen of them: those that entered, less those that left. Where
    /// leaving is not observed, they leave when two censuses do not show them.
    pub fn live_by_process(&self) -> impl Iterator<Item = (ProcessKey, u64)> {
        let all = self.of.iter().zip(&self.carried);
        let live =
            all.map(|((key, closes), carried)| (*key, (carried + closes.entered).saturating_sub(closes.left.total())));
        live.filter(|(_, live)| *live > 0)
    }

    /// How many numbers there are, in use or not.
    pub(super) const fn numbers(&self) -> usize {
        self.of.len()
    }

    /// Gives a number up: another process may have it from now on. Not as long as something is counted for it, or a
    /// timewait socket bears it; then it answers with false.
    pub(super) fn give_up(&mut self, id: OwnerId) -> bool {
        let (of, carried) = (self.of.get(id.0 as usize), self.carried.get(id.0 as usize));
        // What entered less what left, and nothing else, is what the ledger has of it.
        let is_free = of.is_some_and(|(_, closes)| *closes == Closes::default()) && carried == Some(&0);
        if is_free {
            self.free.push(id.0);
        }
        is_free
    }

    /// A timewait socket from before the session left.
    pub(super) fn older_left(&mut self, why: Leaving) {
        self.older.add(why);
    }

    /// Every process whose connections closed or whose timewait sockets left during the window, with what it did.
    pub fn by_process(&self) -> impl Iterator<Item = (ProcessKey, &Closes)> {
        self.of.iter().filter(|(_, closes)| *closes != Closes::default()).map(|(key, closes)| (*key, closes))
    }

    /// These, and every process that has timewait sockets.
    pub(super) fn owners(&self) -> impl Iterator<Item = ProcessKey> {
        let all = self.of.iter().zip(&self.carried);
        all.filter(|((_, closes), carried)| **carried > 0 || *closes != Closes::default()).map(|((key, _), _)| *key)
    }

    /// Everybody's, and nobody's.
    fn all(&self) -> impl Iterator<Item = &Closes> {
        self.of.iter().map(|(_, closes)| closes).chain([&self.unowned])
    }

    /// Connections that entered TIME_WAIT during the window, whoever's they are.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.all().map(|closes| closes.entered).sum()
    }

    /// Those of [`Closes::replaced`], whoever's they are.
    #[must_use]
    pub fn all_replaced(&self) -> u64 {
        self.all().map(|closes| closes.replaced).sum()
    }

    /// FIN_WAIT2 minisockets that became TIME_WAIT during the window, where that is observed.
    #[must_use]
    pub fn became_time_wait(&self) -> u64 {
        self.all().map(|closes| closes.became).sum()
    }

    /// Timewait sockets that left during the window, by reason; of all that were there, also before it.
    #[must_use]
    pub fn all_left(&self) -> Left {
        let mut sum = self.older;
        self.all().for_each(|closes| sum.include(&closes.left));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_of_its_own() {
        let mut left = Left::default();
        for (count, why) in (1..).zip(Leaving::ALL) {
            (0..count).for_each(|_| left.add(why));
        }
        for (count, why) in (1..).zip(Leaving::ALL) {
            assert_eq!(left.get(why), count, "{why:?}");
        }
        assert_eq!((left.by_reason().len(), left.total()), (10, 55));
        assert_eq!(Left::from([(Leaving::Reset, 2)]).by_reason(), [(Leaving::Reset, 2)].into());
    }

    #[test]
    fn a_number_stands_for_its_owner() {
        let mut turnover = Turnover::default();
        let key = ProcessKey { tgid: 7, start_ticks: 9 };
        let id = turnover.add(key);
        assert_eq!(turnover.owner(OwnerId::numbered(id.number())), Owner::Process(key));
        assert_eq!(turnover.owner(OwnerId::KERNEL_THREAD), Owner::KernelThread);
        assert_eq!(turnover.owner(OwnerId::AGENT), Owner::Agent);
        assert_eq!(turnover.owner(OwnerId::CLOSED_BEFORE), Owner::ClosedBefore);
        turnover.of(OwnerId::AGENT).entered += 1;
        turnover.left(id, Leaving::Expired);
        assert_eq!((turnover.entered(), turnover.all_left().total()), (1, 1));
        turnover.replaced(id);
        assert_eq!((turnover.all_replaced(), turnover.all_left().get(Leaving::Unseen)), (1, 1));
        assert_eq!(turnover.by_process().count(), 1);
    }
}
