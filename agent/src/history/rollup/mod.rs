//! Windows -> minutes: what the history keeps of a [`Report`].
//!
//! Pure: no clock and no I/O, the time of a window comes in with it. A *window* is one report of the daemon, ten seconds as a
//! rule. Counters of its windows add up to the minute's; of what is *there* (sockets, ports) the minute keeps the most that
//! was seen at the end of a window. A window belongs to the minute in which its middle lies, so that one which ends on the
//! full minute is part of the minute before.
//!
//! Processes are told apart by what they are (name, executable, unit, container), not by their pid: workers of one service
//! are one row, and so is the service after its restart.
//!
//! Everything is bounded. Rows beyond the limits are summed up in one row of [`Who::Others`], never dropped in silence.

mod episodes;
mod fold;
mod minute;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use self::{episodes::Episodes, fold::Folding};
pub use self::{
    episodes::{CLOSES_AFTER, Episode, EpisodeKey, Worst},
    minute::{
        DestinationMinute, FailureKind, FailureMinute, Figures, HostMinute, Identity, Minute, Place, ProcessMinute,
        RouteMinute, Who,
    },
};
use crate::report::Report;

/// How many rows a minute keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes
    pub processes: usize,
    /// Destinations, routes, failures: of each so many
    pub destinations: usize,
}

/// What the clocks showed at the end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, which can be set at any time
    pub wall: Timestamp,
    /// `CLOCK_BOOTTIME`, milliseconds: it never jumps, and starts anew with the host
    pub boottime_ms: i64,
}

/// Folds windows into minutes.
#[derive(Debug)]
pub struct Rollup {
    limits: Limits,
    folding: Option<Folding>,
    episodes: Episodes,
    /// No minute was finished yet
    is_fresh: bool,
}

impl Rollup {
    /// With nothing taken in.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, folding: None, episodes: Episodes::default(), is_fresh: true }
    }

    /// Other limits, from the minute on that is not finished yet.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes a window in. Gives the minute before, if the window begins another one: also when the wall clock was set back.
    pub fn take_in(&mut self, report: &Report, at: Moment) -> Option<Minute> {
        let window_ms = milliseconds(report.session.duration_s);
        let middle_ms = at.wall.as_millisecond().saturating_sub(window_ms / 2);
        let start = middle_ms.div_euclid(60_000) * 60;
        let before = match &self.folding {
            Some(folding) if folding.start() != start => self.finish(),
            _ => None,
        };
        let folding = self.folding.get_or_insert_with(|| Folding::new(start));
        folding.add(report, at, window_ms);
        self.episodes.take_in(report, at.wall, window_ms);
        before
    }

    /// Ends the minute that is going on, if there is one.
    pub fn finish(&mut self) -> Option<Minute> {
        let mut minute = self.folding.take()?.finish(self.limits);
        (minute.findings, minute.findings_omitted) = self.episodes.touched();
        self.is_fresh = false;
        Some(minute)
    }

    /// Goes on with the findings that were open when an earlier agent ended. Those that are here still keep the time they were
    /// opened; the others are closed in time. Too late once a minute was finished: then they stay what they are.
    pub fn resume(&mut self, open: Vec<Episode>) {
        if self.is_fresh {
            self.episodes.resume(open);
        }
    }
}

/// Seconds of a report as whole milliseconds, at most a day.
fn milliseconds(seconds: f64) -> i64 {
    const DAY_MS: f64 = 86_400_000.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is between 0 and a day, NaN becomes 0")]
    let whole = (seconds * 1e3).round().clamp(0.0, DAY_MS) as i64;
    whole
}
