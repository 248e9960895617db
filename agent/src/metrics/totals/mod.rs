//! Reports of windows -> counters that never fall. Pure.
//!
//! A report counts its window; a counter counts since the start. Everything here is bounded: the busiest groups of
//! processes have counters of their own, everybody else is in the group `other`, and what a group counted goes there when
//! it loses its place. So a series can vanish, but the sum of a counter over all its series never falls.

mod counts;
mod expose;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use self::counts::{Activity, Counts, HostCounts};
use super::labels::{Group, Place, ProcessLabel};
use crate::{model::Netns, report::Report};

/// A group that no report spoke of for this long loses its series: its processes are dead, or do nothing.
const QUIET: Duration = Duration::from_secs(300);
/// In this time what a group did counts half as much for its place among the busiest.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Groups that have series of their own, at most
    pub top: usize,
    /// What makes a group
    pub labels: Vec<ProcessLabel>,
}

/// What a round was like, apart from its report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// When it was done, since 1970
    pub done_at: Duration,
    /// From the end of the window until the report was there
    pub took: Duration,
    /// Entries of each table
    pub tables: Vec<(&'static str, u64)>,
}

/// What firstfin says of itself at the moment of a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SelfStats {
    /// CPU time used
    pub cpu: Duration,
    /// Resident memory
    pub resident_bytes: u64,
    /// Open descriptors
    pub open_fds: u64,
    /// Descriptors that may be open
    pub max_fds: u64,
    /// Start, since 1970
    pub started_at: Duration,
    /// How long the scrape before took; none if there was none
    pub last_scrape: Option<Duration>,
    /// `uname -r`
    pub kernel: String,
    /// The last configuration that was read was taken over
    pub is_config_current: bool,
    /// When one was taken over last, since 1970
    pub config_read_at: Duration,
}

/// A group that has series of its own.
#[derive(Debug, Default)]
struct Member {
    counts: Counts,
    /// How busy it is
    score: f64,
    /// When it was spoken of last, as `Totals::clock`
    seen: Duration,
    /// In the last window
    now: Activity,
}

/// What was counted since the start.
#[derive(Debug)]
pub struct Totals {
    settings: Settings,
    own_netns: Option<Netns>,
    members: HashMap<Group, Member>,
    other: Member,
    omitted: u64,
    host: HostCounts,
    rounds: u64,
    rounds_failed: u64,
    /// Length of all windows
    clock: Duration,
}

impl Totals {
    /// Nothing counted. `own_netns`: the one that is called `host`.
    #[must_use]
    pub fn new(settings: Settings, own_netns: Option<Netns>) -> Self {
        Self {
            settings,
            own_netns,
            members: HashMap::new(),
            other: Member::default(),
            omitted: 0,
            host: HostCounts::default(),
            rounds: 0,
            rounds_failed: 0,
            clock: Duration::ZERO,
        }
    }

    /// Takes over other settings. Where the labels change, no group is what it was: all counts go to `other`.
    pub fn set(&mut self, settings: Settings) {
        if settings.labels != self.settings.labels {
            for (_, member) in self.members.drain() {
                self.other.counts.add(&member.counts);
            }
        }
        self.settings = settings;
    }

    /// A round gave no report.
    pub const fn fail(&mut self) {
        self.rounds_failed += 1;
    }

    /// Takes in the report of a window.
    pub fn take_in(&mut self, report: &Report) {
        // What is not a length of time (a report is input) counts as none.
        let length = Duration::try_from_secs_f64(report.session.duration_s).unwrap_or_default();
        self.rounds += 1;
        self.clock += length;
        self.host.take_in(report, self.own_netns);

        let (groups, rest) = counts::by_group(report, &self.settings.labels);
        let fading = 0.5_f64.powf(length.as_secs_f64() / HALF_LIFE.as_secs_f64());
        for member in self.members.values_mut().chain([&mut self.other]) {
            member.now = Activity::default();
            member.score *= fading;
        }
        for (group, activity) in groups {
            let member = self.members.entry(group).or_default();
            member.counts.add(&activity.counts);
            member.score += activity.weight();
            member.seen = self.clock;
            member.now = activity;
        }
        self.other.counts.add(&rest.counts);
        self.other.now = rest;
        self.retire();
    }

    /// Moves into `other` who is quiet, and who has no place.
    fn retire(&mut self) {
        let (clock, other) = (self.clock, &mut self.other);
        self.members.retain(|_, member| {
            let stays = clock.saturating_sub(member.seen) < QUIET;
            if !stays {
                other.counts.add(&member.counts);
            }
            stays
        });
        self.omitted = 0;
        let excess = self.members.len().saturating_sub(self.settings.top);
        if excess == 0 {
            return;
        }
        let mut ranked: Vec<(f64, Group)> =
            self.members.iter().map(|(group, member)| (member.score, group.clone())).collect();
        // The least busy first; by name where that is equal, so that the same input gives the same output.
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        for (_, group) in ranked.into_iter().take(excess) {
            if let Some(member) = self.members.remove(&group) {
                self.omitted += 1;
                self.other.counts.add(&member.counts);
                self.other.now.add(&member.now);
            }
        }
    }

    /// Groups with series of their own, in a fixed order.
    fn ranked(&self) -> BTreeMap<&Group, &Member> {
        self.members.iter().collect()
    }
}

/// Whose a number is, as far as a report's entry says.
const fn place<'a>(
    process: Option<&'a crate::report::ProcessInfo>,
    netns: Option<Netns>,
    local: Option<&'a str>,
    remote: Option<&'a str>,
) -> Place<'a> {
    Place { process, netns, local, remote }
}
