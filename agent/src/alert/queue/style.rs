//! What goes into one message, and when: each kind of receiver has its way.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{AlertId, Batch, Line, Owed, Step, StepKind};
use crate::alert::{moment::Moment, rules::Alert};

/// Alerts in one message: some 4 KiB each.
const LARGEST: usize = 100;

/// The way of a kind of receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// All that is owed in one message, and what fires again before its lease ends (Alertmanager)
    Lease {
        /// How often
        resend: Duration,
    },
    /// One alert a message, oldest first (PagerDuty, journal)
    Single,
    /// The alerts of a group in one message, which waits for others (webhook)
    Grouped {
        /// How long
        wait: Duration,
    },
}

impl Style {
    /// How long an alert has to be seen to fire to be noticed. Alertmanager tells nobody of one that is over before it
    /// would have told it.
    pub(super) const fn shortest(self) -> Option<Duration> {
        match self {
            Self::Lease { resend } => Some(resend),
            Self::Single | Self::Grouped { .. } => None,
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this
    Send(Batch),
    /// Ask again then, or when there is something new
    Wait(Moment),
    /// Ask again when there is something new
    Idle,
}

pub(super) fn next(
    lines: &BTreeMap<AlertId, Line>,
    now: Moment,
    style: Style,
    group_of: &dyn Fn(&Alert) -> String,
    is_last: bool,
) -> Next {
    let mut ready: Vec<_> = lines.iter().filter_map(|(id, line)| Some((line, line.owed_step(id, now)?))).collect();
    ready.sort_by_key(|(line, _)| line.number);
    if let Some((_, step)) = ready.iter().find(|(line, _)| line.alone) {
        return Next::Send(Batch { steps: vec![step.clone()], ..Batch::default() });
    }
    match style {
        Style::Single => match ready.into_iter().next() {
            Some((_, step)) => Next::Send(Batch { steps: vec![step], ..Batch::default() }),
            None => Next::Idle,
        },
        // Whoever ends renews nothing: the lease is long enough for a restart.
        Style::Lease { resend } => leased(lines, ready, now, if is_last { Duration::MAX } else { resend }),
        Style::Grouped { wait } => grouped(lines, ready, now, if is_last { Duration::ZERO } else { wait }, group_of),
    }
}

fn leased(lines: &BTreeMap<AlertId, Line>, ready: Vec<(&Line, Step)>, now: Moment, resend: Duration) -> Next {
    let renewable = || lines.iter().filter(|(_, line)| line.told.is_some() && !line.refused);
    let is_due = |line: &Line, after: Duration| {
        // After a restart, or when the clock was set back, at once.
        let at = line.told.and_then(|told| told.at).filter(|&at| at <= now);
        at.is_none_or(|at| now.since(at) >= after)
    };
    let mut steps: Vec<Step> = ready.into_iter().map(|(_, step)| step).collect();
    if renewable().any(|(_, line)| is_due(line, resend)) {
        // Those that would be due soon come along, so that they stay together.
        let due = renewable().filter(|(id, line)| is_due(line, resend / 2) && !steps.iter().any(|it| it.id == **id));
        let due: Vec<_> = due.map(|(id, line)| (line.alone, line.step(id, StepKind::Renew))).collect();
        if let Some((_, step)) = due.iter().find(|(alone, _)| *alone) {
            return Next::Send(Batch { steps: vec![step.clone()], ..Batch::default() });
        }
        steps.extend(due.into_iter().map(|(_, step)| step));
    }
    if !steps.is_empty() {
        steps.truncate(LARGEST);
        return Next::Send(Batch { steps, ..Batch::default() });
    }
    let renewed = renewable().filter_map(|(_, line)| line.told?.at).map(|at| at.plus(resend));
    let over = lines.values().filter(|line| line.owed == Owed::Resolve).filter_map(|line| line.fires_until);
    renewed.chain(over).min().map_or(Next::Idle, Next::Wait)
}

fn grouped(
    lines: &BTreeMap<AlertId, Line>,
    ready: Vec<(&Line, Step)>,
    now: Moment,
    wait: Duration,
    group_of: &dyn Fn(&Alert) -> String,
) -> Next {
    let mut groups = BTreeMap::<String, Vec<(&Line, Step)>>::new();
    for (line, step) in ready {
        groups.entry(group_of(&line.alert)).or_default().push((line, step));
    }
    // A clock that was set back makes nothing wait longer than its turn.
    let due_at = |group: &[(&Line, Step)]| group.iter().map(|(line, _)| line.since.min(now).plus(wait)).min();
    let first = groups.iter().filter_map(|(key, group)| Some((due_at(group)?, key))).min();
    let Some((due, key)) = first else { return Next::Idle };
    if due > now {
        return Next::Wait(due);
    }
    let mut steps: Vec<Step> = groups.get(key).into_iter().flatten().map(|(_, step)| step.clone()).collect();
    steps.truncate(LARGEST);
    let others: Vec<Arc<Alert>> = lines
        .iter()
        .filter(|(id, line)| {
            line.told.is_some()
                && matches!(line.owed, Owed::Nothing | Owed::Fire)
                && !steps.iter().any(|it| it.id == **id)
                && group_of(&line.alert) == *key
        })
        .map(|(_, line)| Arc::clone(&line.alert))
        .collect();
    let room = LARGEST - steps.len().min(LARGEST);
    let left_out = others.len().saturating_sub(room);
    Next::Send(Batch { steps, others: others.into_iter().take(room).collect(), left_out })
}

impl Line {
    /// What can be said of what is owed.
    fn owed_step(&self, id: &AlertId, now: Moment) -> Option<Step> {
        match self.owed {
            Owed::Nothing => None,
            Owed::Fire | Owed::FireAndResolve => Some(self.step(id, StepKind::Fire)),
            Owed::Resolve if self.fires_until.is_some_and(|until| now < until) => None,
            Owed::Resolve => Some(self.step(id, StepKind::Resolve)),
        }
    }
}
