//! State, census and report -> what is shown at one moment. Pure.
//!
//! A [`Tick`] costs next to nothing and is made twice a second; a [`Look`] rests on a census, and comes as often as the host
//! can give one. In between, what entered and left by the ticks is added to what the last census showed.

use std::{collections::HashMap, rc::Rc, time::Duration};

use crate::{
    analysis,
    model::{Census, Leaving, ProcessKey, TimeWaitSubstate, Timestamp},
    report::{ProcessInfo, Report, SessionFacts, build},
    state::{Attribution, Closes, Left, State, TIME_WAIT_LENGTH},
};

/// Timewait sockets by age: up to 10, 20, 30, 40, 50, 60 seconds. Older ones, whose clock was started again, are in the last.
pub const AGES: usize = 6;
/// Seconds that one of these is wide.
pub const AGE_STEP_S: u64 = TIME_WAIT_LENGTH.as_secs() / AGES as u64;

/// What became of a process's connections since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Connections that entered TIME_WAIT, or FIN_WAIT2 minisockets
    pub entered: u64,
    /// Timewait sockets that were seen to leave, or whose place another one has taken
    pub left: u64,
    /// Connections for which it sent the first FIN
    pub closed_first: u64,
}

impl Flow {
    fn of(closes: &Closes) -> Self {
        // The others that were not seen to leave are found missing in a census: the look has left them out already.
        let left = seen_to_leave(&closes.left) + closes.replaced;
        Self { entered: closes.entered, left, closed_first: closes.closed_first }
    }
}

/// What the events so far say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Until when
    pub at: Timestamp,
    /// Events taken in
    pub events: u64,
    /// Everybody's and nobody's
    pub all: Flow,
    /// By process
    pub processes: Vec<(ProcessInfo, ProcessKey, Flow)>,
}

impl Tick {
    /// What the state knows at `at`.
    #[must_use]
    pub fn of(state: &State, at: Timestamp) -> Self {
        let turnover = state.turnover();
        let left = seen_to_leave(&turnover.all_left()) + turnover.all_replaced();
        let mut all = Flow { entered: turnover.entered(), left, closed_first: 0 };
        let processes: Vec<_> = turnover
            .by_process()
            .map(|(key, closes)| {
                let flow = Flow::of(closes);
                all.closed_first += flow.closed_first;
                (info(state, key), key, flow)
            })
            .collect();
        Self { at, events: state.received(), all, processes }
    }
}

fn seen_to_leave(left: &Left) -> u64 {
    left.total() - left.get(Leaving::Unseen)
}

fn info(state: &State, key: ProcessKey) -> ProcessInfo {
    state
        .process(key)
        .map_or_else(|| ProcessInfo { pid: key.tgid, comm: "?".into(), ..ProcessInfo::default() }, ProcessInfo::from)
}

/// Timewait sockets of a process in a census.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many, FIN_WAIT2 minisockets among them
    pub sockets: u64,
    /// FIN_WAIT2 minisockets, whose age is not known
    pub fin_wait2: u64,
    /// The others by age
    pub ages: [u64; AGES],
}

/// What a look at every socket found, and what was known then.
#[derive(Clone, Debug)]
pub struct Look {
    /// When the sockets were looked at
    pub at: Timestamp,
    /// Timewait sockets by process
    pub held: HashMap<ProcessKey, (ProcessInfo, Held)>,
    /// How much of the turnover was known by then
    pub tick: Tick,
    /// Processes that do not run any more
    pub gone: Vec<ProcessKey>,
    /// Everything else
    pub report: Rc<Report>,
}

impl Look {
    /// What is known at `at`, shortly after the census.
    #[must_use]
    pub fn of(state: &State, census: &Census, facts: &SessionFacts, at: Timestamp) -> Self {
        let mut held: HashMap<ProcessKey, (ProcessInfo, Held)> = HashMap::new();
        for namespace in &census.namespaces {
            for row in namespace.rows.iter() {
                let Some(substate) = row.substate() else { continue };
                let Attribution::Process(key, _) = state.attribute(&row, namespace.at, false) else { continue };
                let (_, held) = held.entry(key).or_insert_with(|| (info(state, key), Held::default()));
                held.sockets += 1;
                match (substate, row.time_wait_left) {
                    (TimeWaitSubstate::TimeWait, Some(left)) => {
                        if let Some(count) = held.ages.get_mut(age(left)) {
                            *count += 1;
                        }
                    }
                    (TimeWaitSubstate::TimeWait, None) => {}
                    (TimeWaitSubstate::FinWait2, _) => held.fin_wait2 += 1,
                }
            }
        }
        let gone = state.mentioned().into_iter().filter(|key| !facts.alive.contains(key)).collect();
        let report = Rc::new(build(state, census, facts));
        Self { at: census.at, held, tick: Tick::of(state, at), gone, report }
    }

    /// Takes over what a later report of the same census has from events alone. What it says of sockets is not true any
    /// more: those that have left since are nobody's in it.
    pub(super) fn refresh(&mut self, mut report: Report) {
        report.time_wait.clone_from(&self.report.time_wait);
        report.ports.clone_from(&self.report.ports);
        report.findings = analysis::findings(&report);
        self.report = Rc::new(report);
    }
}

/// Which of the ages a timewait socket has that the kernel keeps for `left` still.
fn age(left: Duration) -> usize {
    let age = TIME_WAIT_LENGTH.saturating_sub(left).as_secs();
    usize::try_from(age / AGE_STEP_S).unwrap_or(AGES).min(AGES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_what_has_passed_of_a_minute() {
        for (left, expected) in [(60, 0), (51, 0), (50, 1), (31, 2), (1, 5), (0, 5), (75, 0)] {
            assert_eq!(age(Duration::from_secs(left)), expected, "{left} s left");
        }
    }
}
