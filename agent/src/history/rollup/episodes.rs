//! Findings over time: when one was first seen, when last, and what it looked like when it was worst.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::Identity;
use crate::{
    model::Netns,
    report::{Finding, Report, Severity},
};

/// A finding that was not seen for so long is over. Shorter gaps are its own: a burst every minute is one story.
pub const CLOSES_AFTER: SignedDuration = SignedDuration::from_secs(120);

/// Open at the same time. A host with more of them has one problem, and it is in the first ones.
const OPEN: usize = 512;

/// What makes two findings the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EpisodeKey {
    /// Kind of problem, `BindConflict`
    pub id: String,
    /// The process it is about, whichever its pid
    pub who: Option<Identity>,
    /// The network namespace it is about
    pub netns: Option<Netns>,
    /// The local address it is about
    pub local: Option<String>,
    /// The remote address it is about
    pub remote: Option<String>,
}

impl From<&Finding> for EpisodeKey {
    fn from(finding: &Finding) -> Self {
        Self {
            id: finding.id.clone(),
            who: finding.process.as_ref().map(Identity::from),
            netns: finding.netns,
            local: finding.local.clone(),
            remote: finding.remote.clone(),
        }
    }
}

/// A finding from its first window to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// Which
    pub key: EpisodeKey,
    /// Beginning of the first window that had it
    pub opened: Timestamp,
    /// End of the last one
    pub last_seen: Timestamp,
    /// When it was known to be over: [`CLOSES_AFTER`] after it was last seen, or later; none while it is open
    pub closed: Option<Timestamp>,
    /// Windows that had it
    pub windows: u64,
    /// The window in which it was worst
    pub worst: Worst,
}

/// A finding at its worst: of the highest severity, then of the largest number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worst {
    /// End of that window
    pub at: Timestamp,
    /// What was compared within a severity: the largest number in the report that is about this finding's process and address
    pub weight: u64,
    /// The finding itself, with its evidence
    pub finding: Finding,
}

#[derive(Debug, Default)]
pub(super) struct Episodes {
    open: HashMap<EpisodeKey, Episode>,
    /// Seen since the minute began
    seen: HashSet<EpisodeKey>,
    closed: Vec<Episode>,
    omitted: u64,
}

impl Episodes {
    pub(super) fn take_in(&mut self, report: &Report, now: Timestamp, window_ms: i64) {
        self.close(now);
        for finding in &report.findings {
            let key = EpisodeKey::from(finding);
            let worst = Worst { at: now, weight: weight(report, finding), finding: finding.clone() };
            let has_room = self.open.len() < OPEN;
            match self.open.get_mut(&key) {
                Some(episode) => {
                    episode.windows += u64::from(episode.last_seen != now);
                    episode.last_seen = now;
                    if worst.rank() > episode.worst.rank() {
                        episode.worst = worst;
                    }
                }
                None if has_room => {
                    let opened = now.checked_sub(SignedDuration::from_millis(window_ms)).unwrap_or(now);
                    let episode = Episode { key: key.clone(), opened, last_seen: now, closed: None, windows: 1, worst };
                    self.open.insert(key.clone(), episode);
                }
                None => {
                    self.omitted += 1;
                    continue;
                }
            }
            self.seen.insert(key);
        }
    }

    /// Those that are over. If the wall clock was set, forth or back, they are so too, and begin anew.
    fn close(&mut self, now: Timestamp) {
        let over = |episode: &Episode| now.duration_since(episode.last_seen).abs() > CLOSES_AFTER;
        let keys: Vec<_> = self.open.iter().filter(|(_, it)| over(it)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.seen.remove(&key);
            if let Some(mut episode) = self.open.remove(&key) {
                episode.closed = Some(now);
                self.closed.push(episode);
            }
        }
    }

    /// What was seen or closed since it was asked for the last time, and how many found no room.
    pub(super) fn touched(&mut self) -> (Vec<Episode>, u64) {
        let mut touched = std::mem::take(&mut self.closed);
        touched.extend(self.seen.drain().filter_map(|key| self.open.get(&key).cloned()));
        touched.sort_by(|a, b| {
            (a.opened, &a.key.id, &a.worst.finding.summary).cmp(&(b.opened, &b.key.id, &b.worst.finding.summary))
        });
        (touched, std::mem::take(&mut self.omitted))
    }

    pub(super) fn resume(&mut self, earlier: Vec<Episode>) {
        for earlier in earlier {
            let has_room = self.open.len() < OPEN;
            match self.open.get_mut(&earlier.key) {
                Some(now) if now.opened.duration_since(earlier.last_seen).abs() <= CLOSES_AFTER => {
                    now.opened = earlier.opened;
                    now.windows += earlier.windows;
                    if earlier.worst.rank() > now.worst.rank() {
                        now.worst = earlier.worst;
                    }
                }
                // The same again, after a pause: what was open before is over.
                Some(now) => self.closed.push(Episode { closed: Some(now.opened), ..earlier }),
                None if has_room => {
                    self.open.insert(earlier.key.clone(), earlier);
                }
                None => self.omitted += 1,
            }
        }
    }
}

impl Worst {
    const fn rank(&self) -> (Severity, u64) {
        (self.finding.severity, self.weight)
    }
}

/// The largest number of the report that is about the finding: it tells the worse of two windows. Evidence is text, and cannot
/// be compared.
fn weight(report: &Report, finding: &Finding) -> u64 {
    let who = finding.process.as_ref().map(Identity::from);
    let is_its = |process: Option<&crate::report::ProcessInfo>| match (&who, process) {
        (None, _) => true,
        (Some(who), Some(process)) => *who == Identity::from(process),
        (Some(_), None) => false,
    };
    let is_at = |remote: &str| finding.remote.as_deref().is_none_or(|wanted| wanted == remote);
    let sockets = report.time_wait.by_process.iter().filter(|it| is_its(Some(&it.process)));
    let sockets = sockets.map(|it| it.sockets.max(it.overflowed));
    let ports = report.ports.destinations.iter();
    let ports = ports.filter(|it| finding.remote.is_some() && is_at(&it.remote)).map(|it| it.used);
    let binds = report
        .bind_failures
        .iter()
        .filter(|it| is_its(Some(&it.process)) && (finding.local.is_none() || finding.local == it.local));
    let connects = report.connect_failures.iter().filter(|it| is_its(it.process.as_ref()) && is_at(&it.remote));
    let resets = report.resets.iter().filter(|it| is_its(it.process.as_ref()) && is_at(&it.remote));
    let counts = binds.map(|it| it.count).chain(connects.map(|it| it.count)).chain(resets.map(|it| it.count));
    let largest = sockets.chain(ports).chain(counts).max().unwrap_or(0);
    if who.is_none() && finding.remote.is_none() && finding.local.is_none() {
        return largest.max(report.time_wait.unattributed).max(report.session.events.lost);
    }
    largest
}
