//! What a receiver knows, and what it is still owed: the newest state of each alert, and no more.
//!
//! A receiver that is down for long does not get everything that happened meanwhile, one by one, but what is true when it
//! is back: an alert that fires is told once, with the numbers of now. What fired *and* ended meanwhile is told, too, first
//! that it fired and then that it is over. So the queue never holds more than two messages an alert, and of alerts no more
//! than are active plus those that are over and not told; beyond a limit the oldest of those that are over are dropped, and
//! counted.
//!
//! Pure: it is asked what to send now, and told how that went.

mod style;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::style::{Next, Style};
use super::{
    identity::AlertId,
    moment::Moment,
    rules::{Alert, Change, Transition},
};
use crate::report::Severity;

/// What a receiver is owed of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Owed {
    Nothing,
    Fire,
    /// It fired and ended, and the receiver knows of neither
    FireAndResolve,
    Resolve,
}

/// That a receiver was told that an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// With which severity
    severity: Severity,
    /// When it was told so first
    first: Moment,
    /// When last; none after a restart
    #[serde(skip)]
    at: Option<Moment>,
}

/// An alert as a receiver sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    alert: Arc<Alert>,
    owed: Owed,
    /// Since when something is owed
    since: Moment,
    /// What is owed longest has the least
    number: u64,
    told: Option<Told>,
    /// The receiver does not take it: nothing is sent until there is something else to tell of it
    refused: bool,
    /// A message with others was refused: it goes alone, so that only the one that is at fault is dropped
    alone: bool,
    /// It was over before it could be told, and has to be seen to fire until then
    fires_until: Option<Moment>,
    /// Counts what was told of it, so that an answer is not taken for one to what came meanwhile
    #[serde(skip)]
    revision: u64,
}

/// What one element of a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// It fires
    Fire,
    /// It fires still, as was told before
    Renew,
    /// It is over
    Resolve,
}

/// One element of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which alert
    pub id: AlertId,
    /// What is said
    pub kind: StepKind,
    /// The alert as it is now
    pub alert: Arc<Alert>,
    /// The severity it was told with before, if that was another one
    pub replaces: Option<Severity>,
    /// When the receiver was told first that it fires; none if it was not
    pub first_told: Option<Moment>,
    revision: u64,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What it tells
    pub steps: Vec<Step>,
    /// Others of the same group that fire, and of which the receiver knows
    pub others: Vec<Arc<Alert>>,
    /// Those among them that had no room
    pub left_out: usize,
}

/// What a receiver knows and is owed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    lines: BTreeMap<AlertId, Line>,
    next_number: u64,
    /// Alerts that were dropped: refused by the receiver, or beyond the limit
    dropped: u64,
}

impl Queue {
    /// Takes in something to tell. `limit`: alerts it may hold.
    pub fn tell(&mut self, transition: &Transition, now: Moment, limit: usize) {
        let id = transition.alert.identity.id();
        if transition.change == Change::Resolved {
            self.tell_resolved(&id, &transition.alert, now);
            return;
        }
        if !self.lines.contains_key(&id) {
            self.make_room(limit);
        }
        let number = self.number();
        let line = self.lines.entry(id).or_insert_with(|| Line {
            alert: Arc::clone(&transition.alert),
            owed: Owed::Nothing,
            since: now,
            number,
            told: None,
            refused: false,
            alone: false,
            fires_until: None,
            revision: 0,
        });
        line.alert = Arc::clone(&transition.alert);
        line.owe(Owed::Fire, now, number);
        line.refused = false;
        line.fires_until = None;
    }

    fn tell_resolved(&mut self, id: &AlertId, alert: &Arc<Alert>, now: Moment) {
        let number = self.number();
        let Some(line) = self.lines.get_mut(id) else { return };
        if line.refused && line.told.is_none() {
            self.lines.remove(id);
            return;
        }
        line.alert = Arc::clone(alert);
        line.refused = false;
        let owed = if line.told.is_some() { Owed::Resolve } else { Owed::FireAndResolve };
        line.owe(owed, now, number);
    }

    /// Takes in how an alert that fires is now, which is nothing to tell by itself.
    pub fn refresh(&mut self, id: &AlertId, alert: &Arc<Alert>) {
        if let Some(line) = self.lines.get_mut(id)
            && matches!(line.owed, Owed::Nothing | Owed::Fire)
        {
            line.alert = Arc::clone(alert);
        }
    }

    /// Makes it agree with what fires, once after both were loaded: a receiver may be new, and what one process wrote last
    /// may be of different moments.
    pub fn reconcile(&mut self, firing: &[(AlertId, Arc<Alert>)], now: Moment, limit: usize) {
        for (id, alert) in firing {
            if !self.lines.contains_key(id) {
                self.tell(&Transition { change: Change::Fired, alert: Arc::clone(alert) }, now, limit);
            }
        }
        let over: Vec<_> = self
            .lines
            .iter()
            .filter(|(id, line)| {
                matches!(line.owed, Owed::Nothing | Owed::Fire) && !firing.iter().any(|(other, _)| other == *id)
            })
            .map(|(_, line)| Transition { change: Change::Resolved, alert: Arc::clone(&line.alert) })
            .collect();
        over.iter().for_each(|transition| self.tell(transition, now, limit));
    }

    /// What to send now, or when to ask again. `group_of` names the group of an alert. `is_last`: the process ends, so
    /// nothing waits for others.
    #[must_use]
    pub fn next(&self, now: Moment, style: Style, group_of: &dyn Fn(&Alert) -> String, is_last: bool) -> Next {
        style::next(&self.lines, now, style, group_of, is_last)
    }

    /// The receiver took a message.
    pub fn delivered(&mut self, batch: &Batch, now: Moment, style: Style) {
        for step in &batch.steps {
            let Some(line) = self.lines.get_mut(&step.id) else { continue };
            if line.delivered(step, now, style) {
                self.lines.remove(&step.id);
            }
        }
    }

    /// The receiver will never take this message. One alert is dropped, and counted; of several, each is sent alone. How
    /// many were dropped.
    pub fn refused(&mut self, batch: &Batch) -> u64 {
        if batch.steps.len() > 1 {
            for step in &batch.steps {
                if let Some(line) = self.lines.get_mut(&step.id) {
                    line.alone = true;
                }
            }
            return 0;
        }
        let Some(step) = batch.steps.first() else { return 0 };
        let Some(line) = self.lines.get_mut(&step.id).filter(|line| line.revision == step.revision) else { return 0 };
        self.dropped += 1;
        if matches!(line.owed, Owed::Resolve | Owed::FireAndResolve) {
            self.lines.remove(&step.id);
        } else {
            line.owed = Owed::Nothing;
            line.refused = true;
            line.alone = false;
        }
        1
    }

    /// Alerts of which something is owed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.lines.values().filter(|line| line.owed != Owed::Nothing).count()
    }

    /// Alerts that were dropped since the queue was made, over restarts.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Drops what is over and was not told, the oldest first, and never what fires.
    fn make_room(&mut self, limit: usize) {
        while self.lines.len() >= limit {
            let over = |owed: Owed| {
                let lines = self.lines.iter().filter(move |(_, line)| line.owed == owed);
                lines.min_by_key(|(_, line)| line.number).map(|(id, _)| id.clone())
            };
            // Whoever never heard that it fired does not miss that it is over.
            let Some(id) = over(Owed::FireAndResolve).or_else(|| over(Owed::Resolve)) else { return };
            self.lines.remove(&id);
            self.dropped += 1;
        }
    }
}

impl Line {
    fn owe(&mut self, owed: Owed, now: Moment, number: u64) {
        if self.owed == Owed::Nothing {
            self.since = now;
            self.number = number;
        }
        self.owed = owed;
        self.revision += 1;
    }

    /// Whether nothing is left to keep.
    fn delivered(&mut self, step: &Step, now: Moment, style: Style) -> bool {
        self.alone = false;
        let is_newest = self.revision == step.revision;
        match step.kind {
            StepKind::Resolve => {
                self.told = None;
                return is_newest;
            }
            StepKind::Renew => {
                self.told = self.told.map(|told| Told { at: Some(now), ..told });
                return false;
            }
            StepKind::Fire => {
                let severity = step.alert.severity;
                let known = self.told.filter(|told| told.severity == severity);
                self.told = Some(Told { severity, first: known.map_or(now, |told| told.first), at: Some(now) });
            }
        }
        self.owed = match self.owed {
            Owed::FireAndResolve => {
                self.fires_until = style.shortest().map(|shortest| now.plus(shortest));
                Owed::Resolve
            }
            Owed::Fire if is_newest => Owed::Nothing,
            newer => newer,
        };
        false
    }

    fn step(&self, id: &AlertId, kind: StepKind) -> Step {
        let told = self.told.map(|told| told.severity);
        Step {
            id: id.clone(),
            kind,
            alert: Arc::clone(&self.alert),
            replaces: told.filter(|&told| told != self.alert.severity),
            first_told: self.told.map(|told| told.first),
            revision: self.revision,
        }
    }
}

#[cfg(test)]
mod tests;
