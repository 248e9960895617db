//! Today and what-if, side by side.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    change::Changes,
    model::{RouteRun, Run, run},
    rank, words,
    workload::Workload,
};
use crate::{
    hash::FastMap,
    model::{Netns, Timestamp},
    ports::{Route, forecast::Outcome},
};

/// Version of the JSON form.
pub const SCHEMA: &str = "firstfin.what-if/1";

/// Destinations listed, at most.
const MAX_DESTINATIONS: usize = 20;

/// What a change would have made of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// `firstfin.what-if/1`
    pub schema: String,
    /// What was played
    pub recording: Recorded,
    /// What is different, in words; empty if nothing is
    pub changes: Vec<String>,
    /// The model without a change
    pub today: Figures,
    /// The model with the changes; null if there is none, or remedies were asked for
    pub what_if: Option<Figures>,
    /// Ephemeral ports by destination, those first that used the largest share
    pub destinations: Vec<Difference>,
    /// Destinations left out
    pub destinations_omitted: u64,
    /// Each remedy by itself, the one with the largest effect first; empty unless asked for
    pub remedies: Vec<Remedy>,
    /// How far the model without a change is what the recording counted
    pub check: Check,
    /// What the changes cost or need, and what the model cannot tell of them
    pub cautions: Vec<String>,
    /// What the recording does not tell
    pub gaps: Vec<String>,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recorded {
    /// Wall clock at its beginning, RFC 3339 in UTC
    pub started_at: String,
    /// Seconds
    pub duration_s: f64,
    /// Connections that were there or were made; both ends on this host count as one
    pub connections: u64,
    /// connect() calls that found no port
    pub connect_failures: u64,
    /// Seconds that TIME_WAIT lasted here: the kernel's timer for 60 s may be late
    pub time_wait_s: f64,
}

/// What a run of the model came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// The most timewait sockets at once, FIN_WAIT2 minisockets among them
    pub peak_time_wait: u64,
    /// Seconds from the beginning until there were that many
    pub peak_time_wait_after_s: f64,
    /// connect() calls that found no port
    pub connect_failures: u64,
    /// Connections that were made
    pub connections: u64,
    /// The most connections of a process to a destination at once
    pub most_at_once: u64,
    /// The largest share of the usable ports in use towards a destination, in percent
    pub peak_ports_percent: f64,
    /// When no port was or will be left towards the destination where that is first
    pub exhaustion: Exhaustion,
    /// TIME_WAITs whose port connect() took over (`tcp_tw_reuse`)
    pub time_wait_taken_over: u64,
    /// Timewait sockets that were not made because of `tcp_max_tw_buckets`
    pub time_wait_refused: u64,
    /// Requests that waited for a connection of the pool
    pub requests_waited: u64,
    /// Seconds of the longest wait
    pub longest_wait_s: f64,
    /// Requests that still waited at the end
    pub requests_unserved: u64,
}

/// Until when ports last, if it goes on as it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exhaustion {
    /// Seconds from the beginning of the recording until no port is left; null if they last, or nothing can be said
    pub after_s: Option<f64>,
    /// It happened during the recording
    pub is_past: bool,
    /// Ports in use when as many come back as are taken; null if they do not last, or nothing can be said
    pub level: Option<u64>,
}

/// Ports of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortFigures {
    /// The most ports that connect() could not have; with several addresses, from the one that used the most
    pub peak_used: u64,
    /// Ports it could choose from; with several addresses, from each of them
    pub usable: u64,
    /// connect() calls that found none
    pub connect_failures: u64,
    /// Until when they last
    pub exhaustion: Exhaustion,
}

/// A destination, today and with the changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Inode number of the network namespace
    pub netns: Netns,
    /// Local address
    pub local: String,
    /// Remote address and port
    pub remote: String,
    /// Without a change
    pub today: PortFigures,
    /// With the changes; null as in [`Answer`]
    pub what_if: Option<PortFigures>,
    /// The most ports in use whenever the recording looked; null if it never showed the destination
    pub check: Option<Pair>,
}

/// The same figure twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// As it was counted
    pub recorded: u64,
    /// As the model has it
    pub modelled: u64,
}

/// The model without a change against the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// How often the recording looked at a namespace
    pub looks: u64,
    /// The most timewait sockets it showed, the sum over the namespaces
    pub peak_time_wait: Pair,
    /// The most ports in use that it showed towards a destination
    pub peak_used: Pair,
    /// connect() calls that found no port
    pub connect_failures: Pair,
}

impl Pair {
    /// By how much the model is off, in percent of what was counted.
    #[must_use]
    pub fn percent_off(&self) -> f64 {
        100.0 * self.recorded.abs_diff(self.modelled) as f64 / self.recorded.max(1) as f64
    }
}

/// A remedy by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    /// The option that tries it
    pub option: String,
    /// In words
    pub change: String,
    /// It may lose data, or break what works
    pub is_unsafe: bool,
    /// connect() calls that would have found a port; negative: more of them would not
    pub failures_avoided: i64,
    /// What it came to
    pub what_if: Figures,
}

/// Plays a workload with changes; or, with `all`, with each remedy by itself, those that `changes` name with its values.
#[must_use]
pub fn answer(workload: &Workload, changes: &Changes, all: bool) -> Answer {
    let today = run(workload, &Changes::default());
    let changed = (!all && !changes.is_none()).then(|| run(workload, changes));
    let remedies = if all { rank::remedies(workload, changes, &today) } else { Vec::new() };
    let (destinations, destinations_omitted) = destinations(workload, &today, changed.as_ref());
    let failed = workload.failures();
    let check = check(workload, &today);
    let mut cautions = if all { Vec::new() } else { words::cautions(workload, changes, changed.as_ref()) };
    cautions.extend(words::attempts(workload));
    cautions.extend(words::distance(&check));
    Answer {
        schema: SCHEMA.to_owned(),
        recording: Recorded {
            started_at: workload.started_at.clone(),
            duration_s: round(workload.ended.since(workload.begun).as_secs_f64()),
            connections: workload.exchanges.len() as u64 - failed,
            connect_failures: failed,
            time_wait_s: round(workload.time_wait.as_secs_f64()),
        },
        changes: if all { Vec::new() } else { words::changes(changes) },
        what_if: changed.as_ref().map(|run| figures(workload, run)),
        today: figures(workload, &today),
        destinations,
        destinations_omitted,
        remedies,
        check,
        cautions,
        gaps: words::gaps(&workload.gaps).into_iter().chain(workload.blind_spots.iter().cloned()).collect(),
    }
}

pub(super) fn figures(workload: &Workload, run: &Run) -> Figures {
    let exhaustions = run.routes.values().map(|route| exhaustion(workload, route));
    let soonest = exhaustions.min_by(|a, b| {
        let after = |it: &Exhaustion| it.after_s.unwrap_or(f64::INFINITY);
        after(a).total_cmp(&after(b)).then_with(|| b.level.cmp(&a.level))
    });
    Figures {
        peak_time_wait: run.peak_time_wait,
        peak_time_wait_after_s: round(run.peak_at.since(workload.begun).as_secs_f64()),
        connect_failures: run.failures,
        connections: run.connections,
        most_at_once: run.most_at_once.into(),
        peak_ports_percent: round(run.routes.values().map(percent).fold(0.0, f64::max)),
        exhaustion: soonest.unwrap_or_default(),
        time_wait_taken_over: run.taken_over,
        time_wait_refused: run.refused,
        requests_waited: run.waited,
        longest_wait_s: round(run.longest_wait.as_secs_f64()),
        requests_unserved: run.unserved,
    }
}

/// Ports in use of those usable; all of them where there is none.
fn percent(route: &RouteRun) -> f64 {
    match route.usable {
        0 if route.failures > 0 => 100.0,
        0 => 0.0,
        usable => 100.0 * f64::from(route.peak) / f64::from(usable),
    }
}

fn exhaustion(workload: &Workload, route: &RouteRun) -> Exhaustion {
    let since = |at: Timestamp| round(at.since(workload.begun).as_secs_f64());
    if let Some(at) = route.first_failure {
        return Exhaustion { after_s: Some(since(at)), is_past: true, level: None };
    }
    match route.forecast {
        Some(Outcome::Exhausted(after)) => {
            Exhaustion { after_s: Some(since(workload.ended.plus(after))), is_past: false, level: None }
        }
        Some(Outcome::LevelsOff(level)) => {
            Exhaustion { after_s: None, is_past: false, level: Some(level.round() as u64) }
        }
        None => Exhaustion::default(),
    }
}

fn destinations(workload: &Workload, today: &Run, changed: Option<&Run>) -> (Vec<Difference>, u64) {
    let routes: BTreeSet<Route> =
        today.routes.keys().chain(changed.into_iter().flat_map(|run| run.routes.keys())).copied().collect();
    let seen = seen(workload, today);
    let of = |run: &Run, route: &Route| {
        let it = run.routes.get(route).copied().unwrap_or_default();
        let exhaustion = exhaustion(workload, &it);
        let (peak_used, usable) = (it.peak.into(), it.usable.into());
        PortFigures { peak_used, usable, connect_failures: it.failures, exhaustion }
    };
    let mut all: Vec<_> = routes
        .into_iter()
        .map(|route| Difference {
            netns: route.netns,
            local: route.local.to_string(),
            remote: route.remote.to_string(),
            today: of(today, &route),
            what_if: changed.map(|run| of(run, &route)),
            check: seen.get(&route).copied(),
        })
        .collect();
    // Stable: those of the same share stay in the order of their routes.
    all.sort_by_key(|it| {
        let share = it.today.peak_used.saturating_mul(10_000) / it.today.usable.max(1);
        Reverse((it.today.connect_failures, share, it.today.peak_used))
    });
    let omitted = all.len().saturating_sub(MAX_DESTINATIONS) as u64;
    all.truncate(MAX_DESTINATIONS);
    (all, omitted)
}

/// The most ports of each route that the recording's looks showed, and the model at the same times.
fn seen(workload: &Workload, today: &Run) -> FastMap<Route, Pair> {
    let mut seen: FastMap<Route, Pair> = FastMap::default();
    for (sample, (_, modelled)) in workload.samples.iter().zip(&today.samples) {
        for ((route, recorded), modelled) in sample.used.iter().zip(modelled) {
            let pair = seen.entry(*route).or_default();
            pair.recorded = pair.recorded.max((*recorded).into());
            pair.modelled = pair.modelled.max((*modelled).into());
        }
    }
    seen
}

fn check(workload: &Workload, today: &Run) -> Check {
    let mut time_wait: BTreeMap<Netns, Pair> = BTreeMap::new();
    for (sample, (modelled, _)) in workload.samples.iter().zip(&today.samples) {
        let pair = time_wait.entry(sample.netns).or_default();
        pair.recorded = pair.recorded.max(sample.time_wait);
        pair.modelled = pair.modelled.max(*modelled);
    }
    let peak_time_wait = time_wait.values().fold(Pair::default(), |sum, pair| Pair {
        recorded: sum.recorded + pair.recorded,
        modelled: sum.modelled + pair.modelled,
    });
    let seen = seen(workload, today);
    let busiest = seen.iter().max_by_key(|(route, pair)| (pair.recorded, Reverse(**route)));
    Check {
        looks: workload.samples.len() as u64,
        peak_time_wait,
        peak_used: busiest.map(|(_, pair)| *pair).unwrap_or_default(),
        connect_failures: Pair { recorded: workload.failures(), modelled: today.failures },
    }
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
