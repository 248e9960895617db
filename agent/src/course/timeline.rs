//! TIME_WAIT by process, and how much happened, over time: on a fixed grid of the time of events.
//!
//! The grid begins with the session, a second from point to point. When there are [`MAX_POINTS`], every other one goes
//! and the grid is twice as wide, so a session of any length takes the same room.
//!
//! Between two censuses, what a process has in TIME_WAIT is what was seen to enter less what was seen to leave, less what
//! the last census did not show any more. Where leaving is observed that is exact. Where it is not, what has expired
//! since the last census, ten seconds ago at most, still counts. Sockets without an owner are as many as the last census
//! showed. The last point is the last census itself, which is what the report is made from.

use crate::{
    hash::FastMap,
    model::{Census, Name, ProcessKey, Timestamp},
    state::{Attribution, State},
};

/// Points in time, the last one not among them: more than a page is pixels wide.
pub const MAX_POINTS: usize = 900;
/// Processes with numbers of their own. Beyond them the least are counted together.
pub const MAX_PROCESSES: usize = 512;
/// From point to point, at first, in nanoseconds.
const STEP: u64 = 1_000_000_000;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When
    pub at: Timestamp,
    /// Timewait sockets without an owner, as of the last census
    pub unattributed: u64,
    /// Connections that entered TIME_WAIT since the session began
    pub entered: u64,
    /// Connections that ended since the session began, as far as their ends are recorded
    pub ended: u64,
    /// Refused bind() and listen(), and failed connect(), since the session began
    pub failed: u64,
    /// Connections that were cut off since the session began
    pub reset: u64,
    /// Records of the kernel since the session began
    pub received: u64,
}

/// Timewait sockets, FIN_WAIT2 minisockets among them, of a process over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Whose; none for those that are counted together
    pub key: Option<ProcessKey>,
    /// Its name, once the session is over
    pub comm: Name,
    /// The most at any point
    pub peak: u64,
    /// The first point with any
    from: usize,
    /// From there on; zero after the last
    values: Vec<u64>,
}

impl Column {
    fn of(key: ProcessKey) -> Self {
        Self { key: Some(key), ..Self::default() }
    }

    /// How many at a point.
    #[must_use]
    pub fn at(&self, point: usize) -> u64 {
        point.checked_sub(self.from).and_then(|place| self.values.get(place)).copied().unwrap_or_default()
    }

    /// Sum over all points: what says who matters.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.values.iter().sum()
    }

    fn set(&mut self, point: usize, value: u64) {
        if value == 0 {
            return;
        }
        if self.values.is_empty() {
            self.from = point;
        }
        let place = point.saturating_sub(self.from);
        if self.values.len() <= place {
            self.values.resize(place + 1, 0);
        }
        if let Some(there) = self.values.get_mut(place) {
            *there = value;
        }
        self.peak = self.peak.max(value);
    }

    fn add(&mut self, point: usize, value: u64) {
        if value > 0 && point < self.from {
            let before = std::mem::take(self);
            (self.key, self.comm) = (before.key, before.comm.clone());
            self.set(point, value);
            before.each(|point, value| self.set(point, value));
        } else {
            self.set(point, self.at(point) + value);
        }
    }

    fn each(&self, mut tell: impl FnMut(usize, u64)) {
        self.values.iter().enumerate().for_each(|(place, value)| tell(self.from + place, *value));
    }

    /// Every other point goes.
    fn halve(&mut self) {
        let mut half = Self { key: self.key, comm: self.comm.clone(), ..Self::default() };
        self.each(|point, value| {
            if point.is_multiple_of(2) {
                half.set(point / 2, value);
            }
        });
        *self = half;
    }

    fn cut_off(&mut self, point: usize) {
        self.values.truncate(point.saturating_sub(self.from));
    }
}

/// A session over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Nanoseconds from point to point
    step: u64,
    points: Vec<Point>,
    columns: Vec<Column>,
    places: FastMap<ProcessKey, usize>,
    others: Column,
    /// Timewait sockets that a census showed, and when
    counted: Vec<(Timestamp, u64)>,
    unattributed: Option<u64>,
    ended: u64,
    /// Who had how many by the last census, until the state has taken it in
    shown: Option<FastMap<ProcessKey, u64>>,
    /// Sockets that the last census did not show, and that nobody saw leave
    gone: FastMap<ProcessKey, u64>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            step: STEP,
            points: Vec::new(),
            columns: Vec::new(),
            places: FastMap::default(),
            others: Column::default(),
            counted: Vec::new(),
            unattributed: None,
            ended: 0,
            shown: None,
            gone: FastMap::default(),
        }
    }
}

impl Timeline {
    /// Points in time, oldest first.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Processes that had timewait sockets at any point, in the order in which they came.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Processes beyond [`MAX_PROCESSES`], together.
    #[must_use]
    pub const fn others(&self) -> &Column {
        &self.others
    }

    /// Timewait sockets that each census showed, and when: what sock_diag lists, owner or not.
    #[must_use]
    pub fn counted(&self) -> &[(Timestamp, u64)] {
        &self.counted
    }

    /// Nanoseconds from point to point.
    #[must_use]
    pub const fn step(&self) -> u64 {
        self.step
    }

    /// Takes the samples of the points that `at` is past.
    pub(super) fn advance(&mut self, state: &State, at: Timestamp) {
        self.settle(state);
        while let next = self.next(state)
            && next < at
            && next < Timestamp(u64::MAX)
        {
            self.sample(state, next);
        }
    }

    /// The next point of the grid.
    fn next(&self, state: &State) -> Timestamp {
        Timestamp(state.started().0.saturating_add(self.step.saturating_mul(self.points.len() as u64)))
    }

    /// Takes a sample: what is known is as of `at`.
    pub fn sample(&mut self, state: &State, at: Timestamp) {
        self.settle(state);
        if self.points.len() >= MAX_POINTS {
            self.halve();
        }
        self.push(state, at);
        let gone = |key| self.gone.get(&key).copied().unwrap_or_default();
        let live: Vec<_> =
            state.turnover().live_by_process().map(|(key, live)| (key, live.saturating_sub(gone(key)))).collect();
        self.fill(live);
    }

    fn push(&mut self, state: &State, at: Timestamp) {
        let refused = state.refused().iter().map(|(_, tally)| tally.count);
        let connects = state.connects().iter().map(|(_, count)| *count);
        self.points.push(Point {
            at,
            unattributed: self.unattributed.unwrap_or_default(),
            entered: state.turnover().entered(),
            ended: self.ended,
            failed: refused.chain(connects).sum(),
            reset: state.resets().iter().map(|(_, count)| *count).sum(),
            received: state.received(),
        });
    }

    /// The numbers of the newest point.
    fn fill(&mut self, mut live: Vec<(ProcessKey, u64)>) {
        let point = self.points.len().saturating_sub(1);
        // Who comes first must not depend on a hash.
        live.sort_unstable_by_key(|(key, live)| (std::cmp::Reverse(*live), *key));
        for (key, live) in live {
            match self.column(key, live) {
                Some(column) => column.set(point, live),
                None => self.others.add(point, live),
            }
        }
    }

    /// The column of a process. When there is no room, the least one goes, if it is less than `live`.
    fn column(&mut self, key: ProcessKey, live: u64) -> Option<&mut Column> {
        if let Some(place) = self.places.get(&key) {
            return self.columns.get_mut(*place);
        }
        if live == 0 {
            return None;
        }
        let place = if self.columns.len() < MAX_PROCESSES {
            self.columns.push(Column::of(key));
            self.columns.len() - 1
        } else {
            let (place, least) = self.columns.iter_mut().enumerate().min_by_key(|(_, column)| column.peak)?;
            if least.peak >= live {
                return None;
            }
            let least = std::mem::replace(least, Column::of(key));
            least.each(|point, value| self.others.add(point, value));
            if let Some(key) = least.key {
                self.places.remove(&key);
            }
            place
        };
        self.places.insert(key, place);
        self.columns.get_mut(place)
    }

    fn halve(&mut self) {
        self.step = self.step.saturating_mul(2);
        keep_every_other(&mut self.points);
        self.others.halve();
        self.columns.iter_mut().for_each(Column::halve);
        self.columns.retain(|column| column.peak > 0);
        let keys = self.columns.iter().map(|column| column.key);
        self.places = keys.enumerate().filter_map(|(place, key)| Some((key?, place))).collect();
    }

    pub(super) const fn count_end(&mut self) {
        self.ended += 1;
    }

    /// Notes what a census shows, before the state takes it in.
    pub(super) fn count_sockets(&mut self, state: &State, census: &Census) {
        self.settle(state);
        let (owned, unattributed) = attributed(state, census);
        self.unattributed = Some(unattributed);
        self.note_count(census.at, owned.values().sum::<u64>() + unattributed);
        let not_shown = state.not_shown(census);
        let not_shown = |key| not_shown.get(&key).copied().unwrap_or_default();
        let live = state.turnover().live_by_process();
        self.shown = Some(live.map(|(key, live)| (key, live.saturating_sub(not_shown(key)))).collect());
    }

    fn note_count(&mut self, at: Timestamp, sockets: u64) {
        if self.counted.len() >= MAX_POINTS {
            keep_every_other(&mut self.counted);
        }
        self.counted.push((at, sockets));
    }

    /// Makes up for what could not be done when the state had not taken in the last census, or the first one.
    fn settle(&mut self, state: &State) {
        if self.unattributed.is_none() {
            let older = state.older_timewait();
            self.unattributed = Some(older);
            self.note_count(state.started(), older);
        }
        if let Some(shown) = self.shown.take() {
            let shown = |key| shown.get(&key).copied().unwrap_or_default();
            let live = state.turnover().live_by_process();
            self.gone = live.map(|(key, live)| (key, live.saturating_sub(shown(key)))).collect();
            self.gone.retain(|_, gone| *gone > 0);
        }
    }

    /// The last point, at `at`, is what the last census shows.
    pub(super) fn end(&mut self, state: &State, census: &Census, at: Timestamp) {
        self.advance(state, at);
        // A grid point just before it would make a rate out of nothing.
        let is_close = |point: &mut Point| at.0.saturating_sub(point.at.0) < self.step / 2;
        if self.points.len() > 1 && self.points.pop_if(is_close).is_some() {
            let point = self.points.len();
            self.others.cut_off(point);
            self.columns.iter_mut().for_each(|column| column.cut_off(point));
        }
        let (owned, unattributed) = attributed(state, census);
        self.unattributed = Some(unattributed);
        self.note_count(census.at, owned.values().sum::<u64>() + unattributed);
        self.push(state, at);
        self.fill(owned.into_iter().collect());
        for column in &mut self.columns {
            let process = column.key.and_then(|key| state.process(key));
            column.comm = process.map_or_else(|| Name::from("?"), |process| process.comm.clone());
        }
    }
}

/// Timewait sockets of a census by process, and those of nobody.
fn attributed(state: &State, census: &Census) -> (FastMap<ProcessKey, u64>, u64) {
    let (mut owned, mut unattributed) = (FastMap::<ProcessKey, u64>::default(), 0);
    for namespace in &census.namespaces {
        for row in namespace.rows.iter().filter(|row| row.substate().is_some()) {
            match state.attribute(&row, namespace.at, false) {
                Attribution::Process(key, _) => *owned.entry(key).or_default() += 1,
                Attribution::Unknown(_) => unattributed += 1,
            }
        }
    }
    (owned, unattributed)
}

fn keep_every_other<T>(list: &mut Vec<T>) {
    let mut place = 0_usize..;
    list.retain(|_| place.next().is_some_and(|place| place.is_multiple_of(2)));
}
