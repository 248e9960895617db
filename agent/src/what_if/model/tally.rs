//! What is counted while a model runs.

use std::time::Duration;

use super::Lane;
use crate::{
    hash::FastMap,
    model::Timestamp,
    ports::{Route, forecast::Outcome},
};

/// The ports of a route, in the lane that used the most of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::what_if) struct RouteRun {
    /// The most ports that connect() could not have
    pub(in crate::what_if) peak: u32,
    /// Ports there were then, in each lane
    pub(in crate::what_if) usable: u32,
    /// connect() calls that found none, in all lanes
    pub(in crate::what_if) failures: u64,
    /// When the first one did
    pub(in crate::what_if) first_failure: Option<Timestamp>,
    /// What becomes of the ports after the end, if it goes on like this; none if nothing ended of late
    pub(in crate::what_if) forecast: Option<Outcome>,
}

/// What a run of the model came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::what_if) struct Run {
    /// The most timewait sockets at once, in all namespaces
    pub(in crate::what_if) peak_time_wait: u64,
    /// When that was
    pub(in crate::what_if) peak_at: Timestamp,
    /// Timewait sockets that were not made, because of `tcp_max_tw_buckets`
    pub(in crate::what_if) refused: u64,
    /// Timewait sockets that connect() took over
    pub(in crate::what_if) taken_over: u64,
    /// Connections that were made
    pub(in crate::what_if) connections: u64,
    /// connect() calls that found no port
    pub(in crate::what_if) failures: u64,
    /// Requests that waited for a connection
    pub(in crate::what_if) waited: u64,
    /// The longest wait
    pub(in crate::what_if) longest_wait: Duration,
    /// Requests that still waited at the end
    pub(in crate::what_if) unserved: u64,
    /// The most connections of a process to a destination at once
    pub(in crate::what_if) most_at_once: u32,
    /// By route, as recorded
    pub(in crate::what_if) routes: FastMap<Route, RouteRun>,
    /// What a dump would have counted whenever there was one, in the same order: timewait sockets, and ports in use of each
    /// route of the sample
    pub(in crate::what_if) samples: Vec<(u64, Vec<u32>)>,
}

impl Run {
    pub(super) fn time_wait(&mut self, count: u64, at: Timestamp) {
        if count > self.peak_time_wait {
            (self.peak_time_wait, self.peak_at) = (count, at);
        }
    }

    pub(super) fn ports(&mut self, lane: &Lane, used: u32, usable: u32) {
        let route = self.routes.entry(lane.route).or_default();
        if used > route.peak || route.usable == 0 {
            (route.peak, route.usable) = (used.max(route.peak), usable);
        }
    }

    pub(super) fn failed(&mut self, lane: &Lane, at: Timestamp, usable: u32) {
        self.failures += 1;
        let route = self.routes.entry(lane.route).or_default();
        if route.usable == 0 {
            route.usable = usable;
        }
        route.failures += 1;
        route.first_failure.get_or_insert(at);
    }
}
