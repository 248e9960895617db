//! By what the lists are sorted.

use std::cmp::Ordering;

use super::model::Row;
use crate::report::{PortOutcome, PortUse};

/// How a list is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort<C> {
    /// The column
    pub by: C,
    /// The other way round than the column is meant
    pub is_reversed: bool,
}

impl<C> Sort<C> {
    /// An order, or the opposite one.
    pub(super) const fn turn(&self, order: Ordering) -> Ordering {
        if self.is_reversed { order.reverse() } else { order }
    }

    /// What stands behind the title of the column.
    #[must_use]
    pub const fn mark(&self) -> &'static str {
        if self.is_reversed { "^" } else { "v" }
    }
}

/// Columns of the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessColumn {
    /// Most timewait sockets first
    #[default]
    TimeWait,
    /// Most connections that enter a second first
    Rate,
    /// Most connections closed first, first
    ClosedFirst,
    /// By name
    Name,
}

impl ProcessColumn {
    pub(super) const fn next(self) -> Self {
        match self {
            Self::TimeWait => Self::Rate,
            Self::Rate => Self::ClosedFirst,
            Self::ClosedFirst => Self::Name,
            Self::Name => Self::TimeWait,
        }
    }

    pub(super) fn compare(self, a: &Row, b: &Row) -> Ordering {
        let rate = |row: &Row| row.per_second.unwrap_or_default();
        let order = match self {
            Self::TimeWait => b.sockets.cmp(&a.sockets),
            Self::Rate => rate(b).total_cmp(&rate(a)),
            Self::ClosedFirst => b.flow.closed_first.cmp(&a.flow.closed_first),
            Self::Name => a.process.comm.cmp(&b.process.comm),
        };
        // The rest decides where the column does not, so that a list does not dance.
        order.then(b.sockets.cmp(&a.sockets)).then(b.flow.entered.cmp(&a.flow.entered)).then(a.key.cmp(&b.key))
    }
}

/// Columns of the ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortColumn {
    /// Largest share in use first
    #[default]
    Share,
    /// Soonest exhausted first
    Lasts,
    /// Highest rate first
    Rate,
    /// By destination
    Destination,
}

impl PortColumn {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Share => "share in use",
            Self::Lasts => "time left",
            Self::Rate => "rate",
            Self::Destination => "destination",
        }
    }

    pub(super) const fn next(self) -> Self {
        match self {
            Self::Share => Self::Lasts,
            Self::Lasts => Self::Rate,
            Self::Rate => Self::Destination,
            Self::Destination => Self::Share,
        }
    }

    pub(super) fn compare(self, a: &PortUse, b: &PortUse) -> Ordering {
        let rate = |it: &PortUse| it.rate.map_or(0.0, |rate| rate.time_wait_per_s);
        let order = match self {
            Self::Share => share(b).total_cmp(&share(a)),
            Self::Lasts => lasts(a).total_cmp(&lasts(b)),
            Self::Rate => rate(b).total_cmp(&rate(a)),
            Self::Destination => Ordering::Equal,
        };
        order.then_with(|| a.remote.cmp(&b.remote)).then_with(|| a.local.cmp(&b.local)).then(a.netns.cmp(&b.netns))
    }
}

/// Which part of the usable ports is in use, 0 to 1.
#[must_use]
pub(super) fn share(it: &PortUse) -> f64 {
    if it.usable == 0 { 1.0 } else { (it.used as f64 / it.usable as f64).min(1.0) }
}

/// Seconds until there is no port; those that last come last.
fn lasts(it: &PortUse) -> f64 {
    match it.forecast {
        Some(forecast) if forecast.outcome == PortOutcome::Exhausted => 0.0,
        Some(forecast) => forecast.seconds.unwrap_or(f64::INFINITY),
        None => f64::INFINITY,
    }
}
