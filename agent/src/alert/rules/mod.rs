//! Findings of each round -> what is told: fired, worsened, repeated, resolved.
//!
//! Pure: the time comes in, and the same rounds give the same alerts. What it knows is what is in [`Rules`], which is
//! saved; a new process that loads it goes on where the last one stopped.
//!
//! A problem *holds* from the first round that has it. It may be missing for less than half its hold meanwhile (a service
//! that is started anew every half minute is refused in every third round only); longer, and the hold begins again. Once
//! told it fires until it was missing in every round of `resolve_after`. Time in which nobody looked proves nothing: after
//! a restart, a firing alert is missing from the first round on that does not have it.

mod sightings;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use self::sightings::Sighting;
use super::{
    config::Config,
    identity::{AlertId, Identity},
    moment::Moment,
};
use crate::report::{Finding, Severity};

/// The alert that there are more findings than alerts are allowed.
pub const OVERFLOW_ID: &str = "AlertOverflow";

/// What the rules go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Findings below this are no alerts
    pub minimum_severity: Severity,
    /// How long a finding has to be there
    pub hold: Duration,
    /// The same for some kinds of finding
    pub hold_of: BTreeMap<String, Duration>,
    /// How long a finding has to be gone
    pub resolve_after: Duration,
    /// How often an alert that goes on is told again
    pub repeat: Duration,
    /// Alerts at a time
    pub max_active: usize,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            minimum_severity: config.minimum_severity,
            hold: config.hold.0,
            hold_of: config.for_finding.iter().map(|(id, hold)| (id.clone(), hold.0)).collect(),
            resolve_after: config.resolve_after.0,
            repeat: config.repeat.0,
            max_active: config.max_active,
        }
    }
}

impl Settings {
    fn hold_of(&self, finding: &str) -> Duration {
        self.hold_of.get(finding).copied().unwrap_or(self.hold)
    }

    /// How long a problem may be missing before its hold begins again.
    fn gap_of(&self, finding: &str) -> Duration {
        (self.hold_of(finding) / 2).min(self.resolve_after)
    }
}

/// A problem that is, or was, told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Which one. Does not change while it is active
    pub identity: Identity,
    /// The worst it has been for as long as the hold, since it began
    pub severity: Severity,
    /// The finding as it was last seen
    pub finding: Finding,
    /// Summaries of others that are the same problem (processes of one name, for example), three at most
    pub also: Vec<String>,
    /// How many there were
    pub others: usize,
    /// When it was first seen
    pub started_at: Moment,
    /// When it was last seen
    pub last_seen: Moment,
    /// From when on it was gone; none while it fires
    pub ended_at: Option<Moment>,
}

/// What there is to tell of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It held long enough
    Fired,
    /// It is worse than was told, and has been for as long as the hold
    Worsened,
    /// It was told long ago and goes on
    Repeated,
    /// It is gone
    Resolved,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What
    pub change: Change,
    /// Of which alert
    pub alert: Arc<Alert>,
}

/// What came of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// What there is to tell, worst first
    pub transitions: Vec<Transition>,
    /// Every alert that fires now, as it was last seen
    pub firing: Vec<(AlertId, Arc<Alert>)>,
    /// Problems of this round that were not followed because there are too many
    pub overflowed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Waits for its hold
    Pending,
    /// Was told
    Firing { told_at: Moment },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    alert: Alert,
    phase: Phase,
    /// The first of the rounds without it, up to now
    absent_since: Option<Moment>,
    /// Since when it is worse than was told
    worse_since: Option<Moment>,
}

/// Every problem that holds or fires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    entries: BTreeMap<AlertId, Entry>,
    /// The last round
    latest: Option<Moment>,
}

impl Rules {
    /// Takes in what is wrong in a round.
    pub fn round(&mut self, now: Moment, findings: &[Finding], settings: &Settings) -> Round {
        self.follow_the_clock(now);
        let mut seen = sightings::merge(findings, settings.minimum_severity, |identity| self.known_as(identity));
        let overflowed = self.make_room(&mut seen, settings.max_active);
        let mut transitions = Vec::new();
        self.entries.retain(|id, entry| match seen.remove(id) {
            Some(sighting) => {
                transitions.extend(entry.seen(sighting, now, settings));
                true
            }
            None => entry.missing(now, settings, &mut transitions),
        });
        for (id, sighting) in seen {
            let mut entry = Entry::new(&sighting, now);
            transitions.extend(entry.seen(sighting, now, settings));
            self.entries.insert(id, entry);
        }
        transitions.sort_by_key(|it| (std::cmp::Reverse(it.alert.severity), it.change));
        Round { transitions, firing: self.firing(), overflowed }
    }

    /// To be called once when they were loaded: until the next round, nobody looked.
    pub fn resume(&mut self) {
        for entry in self.entries.values_mut() {
            entry.absent_since = match entry.phase {
                Phase::Firing { .. } => None,
                Phase::Pending => entry.absent_since.or(self.latest),
            };
        }
    }

    /// Every alert that fires.
    #[must_use]
    pub fn firing(&self) -> Vec<(AlertId, Arc<Alert>)> {
        let firing = self.entries.iter().filter(|(_, entry)| entry.is_firing());
        firing.map(|(id, entry)| (id.clone(), Arc::new(entry.alert.clone()))).collect()
    }

    /// Nothing holds or fires.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many wait for their hold, and how many fire.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let firing = self.entries.values().filter(|entry| entry.is_firing()).count();
        (self.entries.len() - firing, firing)
    }

    /// A wall clock that was set back takes all that was with it: lengths of time stay what they are.
    fn follow_the_clock(&mut self, now: Moment) {
        let back = self.latest.map_or(Duration::ZERO, |latest| latest.since(now));
        self.latest = Some(now);
        if back.is_zero() {
            return;
        }
        for entry in self.entries.values_mut() {
            let alert = &mut entry.alert;
            let moments = [Some(&mut alert.started_at), Some(&mut alert.last_seen), entry.absent_since.as_mut()];
            let told = match &mut entry.phase {
                Phase::Firing { told_at } => Some(told_at),
                Phase::Pending => None,
            };
            for moment in moments.into_iter().chain([told, entry.worse_since.as_mut()]).flatten() {
                *moment = moment.minus(back);
            }
        }
    }

    /// The identity under which a problem is followed already.
    fn known_as(&self, identity: &Identity) -> Option<Identity> {
        if self.entries.contains_key(&identity.id()) {
            return None;
        }
        let mut known = self.entries.values().map(|entry| &entry.alert.identity);
        known.find(|known| known.is_same_but_for_place(identity)).cloned()
    }

    /// Leaves out what there is no room for, the least bad first, and puts in its place that there is more.
    fn make_room(&mut self, seen: &mut BTreeMap<AlertId, Sighting>, limit: usize) -> usize {
        let overflow = Identity { finding: OVERFLOW_ID.to_owned(), ..Identity::default() };
        let mut held = self.entries.keys().filter(|&id| *id != overflow.id()).count();
        let mut new: Vec<_> = seen
            .iter()
            .filter(|(id, _)| !self.entries.contains_key(id))
            .map(|(id, it)| (std::cmp::Reverse(it.finding.severity), it.rank, id.clone()))
            .collect();
        new.sort();
        let mut left_out = BTreeMap::<String, usize>::new();
        let mut overflowed = 0;
        for (severity, _, id) in new {
            if held < limit {
                held += 1;
                continue;
            }
            // What is worse and new takes the place of what is not told yet.
            let lesser = self
                .entries
                .iter()
                .filter(|(id, entry)| {
                    **id != overflow.id() && !entry.is_firing() && entry.alert.finding.severity < severity.0
                })
                .min_by_key(|(_, entry)| entry.alert.finding.severity)
                .map(|(id, _)| id.clone());
            let gone = match lesser {
                Some(lesser) => {
                    self.entries.remove(&lesser);
                    // Should it be in this round, it is one of those left out.
                    lesser
                }
                None => id,
            };
            if let Some(sighting) = seen.remove(&gone) {
                overflowed += 1;
                *left_out.entry(sighting.finding.id).or_default() += 1;
            }
        }
        if overflowed > 0 {
            seen.insert(overflow.id(), sightings::overflow(overflow, overflowed, &left_out, limit));
        }
        overflowed
    }
}

impl Entry {
    fn new(sighting: &Sighting, now: Moment) -> Self {
        let alert = Alert {
            identity: sighting.identity.clone(),
            severity: sighting.finding.severity,
            finding: sighting.finding.clone(),
            also: Vec::new(),
            others: 0,
            started_at: now,
            last_seen: now,
            ended_at: None,
        };
        Self { alert, phase: Phase::Pending, absent_since: None, worse_since: None }
    }

    const fn is_firing(&self) -> bool {
        matches!(self.phase, Phase::Firing { .. })
    }

    fn transition(&self, change: Change) -> Transition {
        Transition { change, alert: Arc::new(self.alert.clone()) }
    }

    fn seen(&mut self, sighting: Sighting, now: Moment, settings: &Settings) -> Option<Transition> {
        let missed = self.absent_since.take().map(|since| now.since(since));
        let alert = &mut self.alert;
        alert.finding = sighting.finding;
        alert.also = sighting.also;
        alert.others = sighting.others;
        alert.last_seen = now;
        let hold = settings.hold_of(&alert.identity.finding);
        match &mut self.phase {
            Phase::Pending => {
                if missed.is_some_and(|missed| missed >= settings.gap_of(&alert.identity.finding)) {
                    alert.started_at = now;
                }
                alert.severity = alert.finding.severity;
                if now.since(alert.started_at) < hold {
                    return None;
                }
                self.phase = Phase::Firing { told_at: now };
                Some(self.transition(Change::Fired))
            }
            Phase::Firing { told_at } => {
                if alert.finding.severity > alert.severity {
                    let since = *self.worse_since.get_or_insert(now);
                    if now.since(since) >= hold {
                        alert.severity = alert.finding.severity;
                        self.worse_since = None;
                        *told_at = now;
                        return Some(self.transition(Change::Worsened));
                    }
                } else {
                    self.worse_since = None;
                }
                if now.since(*told_at) < settings.repeat {
                    return None;
                }
                *told_at = now;
                Some(self.transition(Change::Repeated))
            }
        }
    }

    /// Whether it is kept.
    fn missing(&mut self, now: Moment, settings: &Settings, transitions: &mut Vec<Transition>) -> bool {
        let since = *self.absent_since.get_or_insert(now);
        self.worse_since = None;
        let missed = now.since(since);
        match self.phase {
            Phase::Pending => missed < settings.gap_of(&self.alert.identity.finding),
            Phase::Firing { .. } if missed < settings.resolve_after => true,
            Phase::Firing { .. } => {
                self.alert.ended_at = Some(since);
                transitions.push(self.transition(Change::Resolved));
                false
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(super) mod tests;
