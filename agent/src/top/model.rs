//! What is known at a moment, with the last minutes of it: snapshots in, rows out. Pure.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use super::{
    series::{Growth, Level},
    snapshot::{Flow, Held, Look, Tick},
};
use crate::{
    model::{ProcessKey, Timestamp},
    output::words,
    report::{ProcessInfo, ProcessTimeWait, Report},
};

/// Processes that are shown, those with the most timewait sockets first; and that have a history.
const MAX_ROWS: usize = 1_000;

/// A process with timewait sockets, or that had some.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which one
    pub key: ProcessKey,
    /// What is known of it
    pub process: ProcessInfo,
    /// Timewait sockets now, FIN_WAIT2 minisockets among them
    pub sockets: u64,
    /// What became of its connections since the session began
    pub flow: Flow,
    /// Connections that enter TIME_WAIT per second, over the last two; none while not known
    pub per_second: Option<f64>,
    /// What the last look found of it
    pub held: Held,
    /// Where its connections go to or come from
    pub destinations: Vec<String>,
}

/// The last minutes of a process.
#[derive(Clone, Debug, Default)]
struct Past {
    sockets: Level,
    entered: Growth,
}

/// Everything a view can show.
#[derive(Clone, Debug, Default)]
pub struct Model {
    tick: Tick,
    look: Option<Rc<Look>>,
    began: Option<Timestamp>,
    rows: Vec<Row>,
    hidden: usize,
    past: HashMap<ProcessKey, Past>,
    sockets: Level,
    entered: Growth,
    left: Growth,
}

impl Model {
    /// Nothing is known of a session that began at `began`.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Self { began: Some(began), ..Self::default() }
    }

    /// Takes in what a look at every socket found.
    pub fn look(&mut self, look: Look) {
        self.look = Some(Rc::new(look));
    }

    /// Takes in what the events say.
    pub fn tick(&mut self, tick: Tick) {
        self.tick = tick;
        let at = self.tick.at;
        self.rows = self.make_rows();
        self.sockets.note(at, self.time_wait());
        self.entered.note(at, self.tick.all.entered);
        self.left.note(at, self.tick.all.left);
        let shown: HashSet<ProcessKey> = self.rows.iter().map(|row| row.key).collect();
        self.past.retain(|key, _| shown.contains(key));
        for row in &mut self.rows {
            let past = self.past.entry(row.key).or_default();
            past.sockets.note(at, row.sockets);
            past.entered.note(at, row.flow.entered);
            row.per_second = past.entered.per_second();
        }
    }

    fn make_rows(&mut self) -> Vec<Row> {
        let mut rows: HashMap<ProcessKey, Row> = HashMap::new();
        let row = |process: &ProcessInfo, key| Row {
            key,
            process: process.clone(),
            sockets: 0,
            flow: Flow::default(),
            per_second: None,
            held: Held::default(),
            destinations: Vec::new(),
        };
        let look = self.look.clone();
        let known: HashMap<ProcessKey, Flow> =
            look.iter().flat_map(|look| &look.tick.processes).map(|(_, key, flow)| (*key, *flow)).collect();
        for (key, (process, held)) in look.iter().flat_map(|look| &look.held) {
            rows.insert(*key, Row { held: *held, sockets: held.sockets, ..row(process, *key) });
        }
        for (process, key, flow) in &self.tick.processes {
            let row = rows.entry(*key).or_insert_with(|| row(process, *key));
            row.process.clone_from(process);
            row.flow = *flow;
            row.sockets = since(row.sockets, *flow, known.get(key).copied().unwrap_or_default());
        }
        let gone: HashSet<ProcessKey> = look.iter().flat_map(|look| &look.gone).copied().collect();
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_by_key(|row| (std::cmp::Reverse((row.sockets, row.flow.entered)), row.key));
        self.hidden = rows.len().saturating_sub(MAX_ROWS);
        rows.truncate(MAX_ROWS);
        for row in &mut rows {
            row.process.exited = gone.contains(&row.key);
            if let Some(reported) = self.reported(row) {
                // It knows the namespace of the sockets.
                row.process.netns = reported.process.netns;
                row.destinations = reported.destinations.iter().map(words::destination).collect();
            }
        }
        rows
    }

    /// The processes, those with the most timewait sockets first.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Processes that there was no room for.
    #[must_use]
    pub const fn hidden(&self) -> usize {
        self.hidden
    }

    /// What the report says of a process. A report names pids: of several processes that had one, the one that is as much
    /// alive as this one.
    #[must_use]
    pub fn reported(&self, row: &Row) -> Option<&ProcessTimeWait> {
        let all = &self.report()?.time_wait.by_process;
        let is_meant = |it: &&ProcessTimeWait| it.process.pid == row.key.tgid && it.process.comm == row.process.comm;
        let same = all.iter().find(|it| is_meant(it) && it.process.exited == row.process.exited);
        same.or_else(|| all.iter().find(is_meant))
    }

    /// The last report; none before the first look.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.look.as_ref().map(|look| look.report.as_ref())
    }

    /// How long ago the sockets were looked at.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.look.as_ref().map(|look| self.tick.at.since(look.at))
    }

    /// How long the session has lasted.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.tick.at.since(self.began.unwrap_or_default())
    }

    /// Events taken in.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.tick.events
    }

    /// Everybody's turnover.
    #[must_use]
    pub const fn all(&self) -> Flow {
        self.tick.all
    }

    /// Timewait sockets now, in all namespaces that were looked into, whoever's they are.
    #[must_use]
    pub fn time_wait(&self) -> u64 {
        let look = self.look.as_ref();
        let (seen, known) = look.map_or((0, Flow::default()), |look| (look.report.time_wait.total, look.tick.all));
        since(seen, self.tick.all, known)
    }

    /// Connections that enter, and timewait sockets that are seen to leave, per second.
    #[must_use]
    pub fn per_second(&self) -> (Option<f64>, Option<f64>) {
        (self.entered.per_second(), self.left.per_second())
    }

    /// The last samples of all timewait sockets, oldest first.
    #[must_use]
    pub fn trend(&self, samples: usize) -> Vec<u64> {
        self.sockets.last(samples)
    }

    /// The last samples of a process's.
    #[must_use]
    pub fn trend_of(&self, key: ProcessKey, samples: usize) -> Vec<u64> {
        self.past.get(&key).map(|past| past.sockets.last(samples)).unwrap_or_default()
    }
}

/// How many there are now, when there were `seen` at a look by which `known` had come and gone.
const fn since(seen: u64, now: Flow, known: Flow) -> u64 {
    (seen + now.entered.saturating_sub(known.entered)).saturating_sub(now.left.saturating_sub(known.left))
}
