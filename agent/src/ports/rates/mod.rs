//! How fast connections of a route end, and how many of them enter TIME_WAIT: counts by the second over the last while,
//! for as many routes as have room.

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use super::Route;
use crate::{hash::Index, model::Timestamp};

/// Seconds that are remembered of a route: half of what a TIME_WAIT lasts, so that a change of load shows in time.
const SECONDS: u64 = 30;
/// How far a rate may be off, in standard errors: two leave one time in twenty.
const SPREAD: f64 = 2.0;
const NANOSECONDS: u64 = 1_000_000_000;

/// How many connections a second entered TIME_WAIT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// As many as were seen, over the time they were seen in
    pub per_s: f64,
    /// The lowest rate that what was seen allows for
    pub low: f64,
    /// The highest
    pub high: f64,
    /// Connections that ended in any way, per second
    pub ended_per_s: f64,
    /// What it rests on: connections that entered TIME_WAIT
    pub connections: u64,
    /// In this time
    pub over: Duration,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Second {
    number: u64,
    ended: u64,
    entered: u64,
}

/// The last [`SECONDS`] of a route. Seconds in which nothing happened take no room.
#[derive(Clone, Debug)]
struct Window {
    seconds: VecDeque<Second>,
    /// When the first connection of a row of seconds without a long pause ended
    since: Timestamp,
}

impl Window {
    /// Forgets what is too old at `at`.
    fn advance(&mut self, at: Timestamp) {
        let oldest = (at.0 / NANOSECONDS).saturating_sub(SECONDS - 1);
        while self.seconds.front().is_some_and(|second| second.number < oldest) {
            self.seconds.pop_front();
        }
    }

    fn note(&mut self, at: Timestamp, has_entered: bool) {
        self.advance(at);
        if self.seconds.is_empty() {
            self.since = at;
        }
        let number = at.0 / NANOSECONDS;
        let entered = u64::from(has_entered);
        match self.seconds.back_mut() {
            // An event of another CPU may come late: it counts as of the newest second.
            Some(newest) if newest.number >= number => {
                newest.ended += 1;
                newest.entered += entered;
            }
            _ => self.seconds.push_back(Second { number, ended: 1, entered }),
        }
    }

    fn ended(&self) -> u64 {
        self.seconds.iter().map(|second| second.ended).sum()
    }

    /// None before anything can be said: with a single connection, or in no time.
    fn rate(&self, now: Timestamp) -> Option<Rate> {
        let this_second = now.0 / NANOSECONDS;
        let oldest = this_second.saturating_sub(SECONDS - 1);
        let begin = self.since.max(Timestamp(oldest * NANOSECONDS));
        let over = now.since(begin);
        let seen = || self.seconds.iter().filter(|second| second.number >= oldest);
        let entered: u64 = seen().map(|second| second.entered).sum();
        let ended: u64 = seen().map(|second| second.ended).sum();
        let time = over.as_secs_f64();
        if time <= 0.0 || ended < 2 {
            return None;
        }
        let per_s = entered as f64 / time;
        // Connections that come independently of each other are off by the square root of their number. If the counts of
        // whole seconds differ by more than that, they come in bursts.
        let independent = (entered as f64).sqrt() / time;
        let error = independent.max(self.scatter(begin, this_second));
        Some(Rate {
            per_s,
            low: (per_s - SPREAD * error).max(0.0),
            high: per_s + SPREAD * error,
            ended_per_s: ended as f64 / time,
            connections: entered,
            over,
        })
    }

    /// The standard error of the mean of the counts of whole seconds; 0 if there are too few to tell.
    fn scatter(&self, begin: Timestamp, this_second: u64) -> f64 {
        let first = begin.0.div_ceil(NANOSECONDS);
        let whole = this_second.saturating_sub(first);
        if whole < 3 {
            return 0.0;
        }
        let count = whole as f64;
        let counts = || {
            let within = self.seconds.iter().filter(|second| (first..this_second).contains(&second.number));
            within.map(|second| second.entered as f64)
        };
        let mean = counts().sum::<f64>() / count;
        let squares = counts().map(|entered| (entered - mean).powi(2)).sum::<f64>();
        let empty = count - counts().count() as f64;
        let variance = (squares + empty * mean.powi(2)) / (count - 1.0);
        (variance / count).sqrt()
    }
}

/// Rates by route.
///
/// When there is no room for another route, those that have been idle go, and if that is not enough the half that ended
/// the fewest connections, which is counted. So noting a connection costs the same however many routes there are.
#[derive(Debug, Default)]
pub struct Rates {
    index: Index,
    /// In the order in which they came
    routes: Vec<(Route, Window)>,
    limit: usize,
    evicted: u64,
}

impl Rates {
    /// An empty table of at most `limit` routes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Notes that a connection ended at `at`, and whether it entered TIME_WAIT.
    pub fn note(&mut self, route: Route, at: Timestamp, has_entered: bool) {
        if let Some(place) = self.find(&route) {
            if let Some((_, window)) = self.routes.get_mut(place) {
                window.note(at, has_entered);
            }
            return;
        }
        if self.routes.len() >= self.limit {
            self.make_room(at);
        }
        let mut window = Window { seconds: VecDeque::new(), since: at };
        window.note(at, has_entered);
        let place = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
        self.routes.push((route, window));
        Self::put(&mut self.index, &self.routes, &route, place);
    }

    /// Takes back that a connection entered TIME_WAIT: its newest second stands for it.
    pub fn take_back(&mut self, route: &Route) {
        let place = self.find(route);
        let window = place.and_then(|place| self.routes.get_mut(place));
        if let Some(newest) = window.and_then(|(_, window)| window.seconds.back_mut()) {
            newest.entered = newest.entered.saturating_sub(1);
        }
    }

    /// The rate of a route at `now`; none if nothing is known of it.
    #[must_use]
    pub fn of(&self, route: &Route, now: Timestamp) -> Option<Rate> {
        self.routes.get(self.find(route)?)?.1.rate(now)
    }

    /// How many routes have a rate.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether none has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Routes that had to go although they were not idle.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn find(&self, route: &Route) -> Option<usize> {
        let is_at = |place| self.routes.get(place as usize).is_some_and(|(known, _)| known == route);
        self.index.find(route, is_at).map(|place| place as usize)
    }

    fn put(index: &mut Index, routes: &[(Route, Window)], route: &Route, place: u32) {
        index.insert(route, place, || (0..).zip(routes).map(|(place, (route, _))| (place, *route)));
    }

    fn make_room(&mut self, now: Timestamp) {
        self.routes.retain_mut(|(_, window)| {
            window.advance(now);
            !window.seconds.is_empty()
        });
        let kept = self.limit / 2;
        if self.routes.len() > kept {
            // Of those that ended as many, the ones that came first stay. Which they are does not depend on the hash.
            let counts = self.routes.iter().enumerate();
            let mut busiest: Vec<_> = counts.map(|(place, (_, window))| (Reverse(window.ended()), place)).collect();
            let (_, first_to_go, _) = busiest.select_nth_unstable(kept);
            let first_to_go = *first_to_go;
            let mut place = 0..;
            let before = self.routes.len();
            self.routes
                .retain(|(_, window)| place.next().is_some_and(|place| (Reverse(window.ended()), place) < first_to_go));
            self.evicted += (before - self.routes.len()) as u64;
        }
        self.index.clear();
        for (place, (route, _)) in (0..).zip(&self.routes) {
            Self::put(&mut self.index, &self.routes, route, place);
        }
    }
}

#[cfg(test)]
mod tests;
