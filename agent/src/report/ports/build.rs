//! The ports of the last census, with who uses them and how long they last.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{NetnsPorts, PoisonedBy, PortForecast, PortOutcome, PortRate, PortUse, PortUser, Ports};
use crate::{
    hash::FastMap,
    model::{Census, Inode, Netns, NetnsCensus, ProcessKey, RowPlace, SocketRow},
    ports::{
        Route,
        accounting::{Accounting, PortSpace, Reuse, RouteUse, frees},
        forecast::{Forecast, Outcome, Situation, forecast},
        rates::Rate,
    },
    report::{
        HolderKind, PortSearch, SessionFacts,
        build::{Namer, round, truncate},
        conflicts::holder_kind,
    },
    state::{Attribution, State},
};

/// Destinations listed, at most.
const MAX_DESTINATIONS: usize = 20;
/// Processes listed for a destination or a namespace, at most.
const MAX_PROCESSES: usize = 10;
/// Of how many ports one must be in use towards a destination, or taken out, for their owners to be looked for: a walk
/// over every process's open files costs more than a report of a quiet host is worth.
const ONE_IN: u32 = 10;

/// A namespace with its account.
struct Counted<'a> {
    namespace: &'a NetnsCensus,
    account: Accounting,
    /// Where the sockets of the routes are that are listed
    places: FastMap<Route, Vec<RowPlace>>,
}

/// Every namespace, and the routes that are listed, worst first.
struct Selection<'a> {
    namespaces: Vec<Counted<'a>>,
    omitted: u64,
}

impl<'a> Selection<'a> {
    fn of(state: &State, census: &'a Census) -> Self {
        let namespaces = census.namespaces.iter();
        let counted = |namespace| Counted { namespace, account: state.account(namespace), places: FastMap::default() };
        let mut namespaces: Vec<_> = namespaces.map(counted).collect();
        // Of those that ran out nothing may be left: they are listed for what they were.
        for route in state.exhausted_routes() {
            let counted = namespaces.iter_mut().find(|counted| counted.namespace.netns == route.netns);
            if let Some(counted) = counted {
                counted.account.routes.entry(route).or_default();
            }
        }
        let usable = |counted: &Counted<'_>| counted.account.space.as_ref().map_or(0, PortSpace::usable);
        let most = |route: &Route, used: &RouteUse| state.peak(route).map_or(0, |peak| peak.used).max(used.used());
        let mut ranked = Vec::new();
        for counted in &namespaces {
            // In ten thousandths: what has no port at all comes first. What takes none is ranked by its TIME_WAITs.
            let share = |used: u32| u64::from(used).saturating_mul(10_000) / u64::from(usable(counted).max(1));
            let routes = counted.account.routes.iter();
            ranked.extend(routes.map(|(route, used)| {
                let most = most(route, used);
                (Reverse((share(most), most, used.reusable)), *route)
            }));
        }
        ranked.sort_unstable();
        let omitted = truncate(&mut ranked, MAX_DESTINATIONS);
        let listed: HashSet<Route> = ranked.into_iter().map(|(.., route)| route).collect();
        for counted in &mut namespaces {
            counted.account.routes.retain(|route, _| listed.contains(route));
            if let Some(space) = counted.account.space.as_ref().filter(|_| !counted.account.routes.is_empty()) {
                counted.places = state.port_sockets(counted.namespace, space, |route| listed.contains(route));
            }
        }
        Self { namespaces, omitted }
    }
}

/// The sockets whose owners a report would name: those of the destinations listed and those that take ports out, where
/// ports run short. None where nothing does.
pub(in crate::report) fn sockets_to_name(state: &State, census: &Census) -> HashSet<Inode> {
    let failed: HashSet<Netns> = state.out_of_ports().collect();
    let mut inodes = HashSet::new();
    for Counted { namespace, account, places } in Selection::of(state, census).namespaces {
        let Some(space) = &account.space else { continue };
        let has_failed = failed.contains(&namespace.netns);
        let is_short = |ports: u32, of: u32| has_failed || ports > 0 && ports.saturating_mul(ONE_IN) >= of;
        let mut want = |places: &[RowPlace]| {
            inodes.extend(places.iter().filter_map(|&place| namespace.rows.get(place)?.inode));
        };
        for (route, _) in account.routes.iter().filter(|(_, used)| is_short(used.used(), space.usable())) {
            want(places.get(route).map(Vec::as_slice).unwrap_or_default());
        }
        if is_short(space.open() - space.usable(), space.open()) {
            space.poisoned.values().for_each(|places| want(places));
        }
    }
    inodes
}

/// Makes the section.
pub(in crate::report) fn build(state: &State, census: &Census, facts: &SessionFacts, namer: &Namer<'_>) -> Ports {
    let selection = Selection::of(state, census);
    let mut ports = Ports {
        destinations_omitted: selection.omitted,
        search: facts.port_searches.as_deref().and_then(PortSearch::of),
        rates_evicted: state.evicted_routes(),
        ..Ports::default()
    };
    for counted in &selection.namespaces {
        let end = state.window_began().plus(facts.duration);
        let since = end.since(counted.namespace.at);
        let builder = Builder { state, namer, counted, since };
        ports.namespaces.push(builder.namespace());
        let routes = counted.account.routes.iter();
        ports.destinations.extend(routes.filter_map(|(route, used)| builder.destination(route, used)));
    }
    ports.destinations.sort_by(|a, b| {
        let share = |it: &PortUse| it.used.saturating_mul(10_000) / it.usable.max(1);
        (share(b), b.used, b.reusable)
            .cmp(&(share(a), a.used, a.reusable))
            .then_with(|| (a.netns, &a.remote, &a.local).cmp(&(b.netns, &b.remote, &b.local)))
    });
    ports
}

struct Builder<'a> {
    state: &'a State,
    namer: &'a Namer<'a>,
    counted: &'a Counted<'a>,
    /// How long ago, at the end of the session, the namespace was looked into
    since: Duration,
}

impl Builder<'_> {
    fn namespace(&self) -> NetnsPorts {
        let Counted { namespace, account, .. } = self.counted;
        let settings = &namespace.settings;
        let space = account.space.as_ref();
        let all = settings.port_range.map(|(low, high)| u64::from(high.saturating_sub(low)) + 1);
        NetnsPorts {
            netns: namespace.netns,
            range: settings.port_range,
            reserved: all.zip(space).map(|(all, space)| all.saturating_sub(space.open().into())),
            poisoned: space.map(|space| space.poisoned.len() as u64),
            peak_poisoned: space.map(|space| {
                let most = self.state.most_poisoned(namespace.netns);
                (space.poisoned.len() as u64).max(most.into())
            }),
            usable: space.map(|space| space.usable().into()),
            taken: space.map(|_| account.taken.into()),
            tw_reuse: settings.tw_reuse,
            tw_reuse_delay_ms: settings.tw_reuse_delay_ms,
            timestamps: settings.timestamps,
            poisoned_by: space.map(|space| self.poisoned_by(space)).unwrap_or_default(),
        }
    }

    /// A port that several sockets share is the first one's.
    fn poisoned_by(&self, space: &PortSpace) -> Vec<PoisonedBy> {
        let mut groups: Vec<PoisonedBy> = Vec::new();
        let mut places: HashMap<(HolderKind, Option<ProcessKey>), usize> = HashMap::new();
        let rows = space.poisoned.values().filter_map(|places| self.row(*places.first()?));
        for row in rows {
            let Some(kind) = holder_kind(&row) else { continue };
            let owner = self.namer.open_by(&row);
            let at = *places.entry((kind, owner)).or_insert_with(|| {
                groups.push(PoisonedBy {
                    process: owner.map(|owner| self.namer.name(owner, Some(self.counted.namespace.netns))),
                    kind,
                    ports: 0,
                    example: row.connection.local.to_string(),
                });
                groups.len() - 1
            });
            if let Some(group) = groups.get_mut(at) {
                group.ports += 1;
            }
        }
        groups.sort_by(|a, b| b.ports.cmp(&a.ports).then_with(|| a.example.cmp(&b.example)));
        groups.truncate(MAX_PROCESSES);
        groups
    }

    /// None of a namespace whose ports are not known: it has no routes.
    fn destination(&self, route: &Route, used: &RouteUse) -> Option<PortUse> {
        let Counted { namespace, account, places } = self.counted;
        let places = places.get(route).map(Vec::as_slice).unwrap_or_default();
        let frees = frees(namespace, route, places);
        let usable = account.space.as_ref()?.usable();
        let situation =
            Situation { used: used.used(), usable, frees: &frees, hold: Reuse::of(&namespace.settings).hold(route) };
        let rate = self.state.rate(route, namespace.at);
        let (processes, processes_omitted) = self.processes(places);
        let peak = self.state.peak(route).map_or(0, |peak| peak.used);
        Some(PortUse {
            netns: route.netns,
            local: route.local.to_string(),
            remote: route.remote.to_string(),
            used: used.used().into(),
            usable: usable.into(),
            peak_used: peak.max(used.used()).into(),
            live: used.live.into(),
            time_wait: used.time_wait.into(),
            reusable: used.reusable.into(),
            second_choice: used.second_choice.into(),
            processes,
            processes_omitted,
            rate: rate.as_ref().map(port_rate),
            forecast: rate.map(|rate| port_forecast(&forecast(&situation, &rate), self.since)),
        })
    }

    fn processes(&self, places: &[RowPlace]) -> (Vec<PortUser>, u64) {
        let mut users: HashMap<Option<ProcessKey>, (u64, u64)> = HashMap::new();
        for row in places.iter().filter_map(|&place| self.row(place)) {
            if row.time_wait_left.is_none() {
                users.entry(self.namer.open_by(&row)).or_default().0 += 1;
            } else {
                users.entry(self.left_by(&row)).or_default().1 += 1;
            }
        }
        let mut users: Vec<_> = users.into_iter().collect();
        users.sort_by_key(|(key, (live, time_wait))| (Reverse(live + time_wait), key.map(|key| key.tgid)));
        let omitted = truncate(&mut users, MAX_PROCESSES);
        let netns = self.counted.namespace.netns;
        let named = users.into_iter().map(|(key, (live, time_wait))| PortUser {
            process: key.map(|key| self.namer.name(key, Some(netns))),
            live,
            time_wait,
        });
        (named.collect(), omitted)
    }

    fn row(&self, place: RowPlace) -> Option<SocketRow> {
        self.counted.namespace.rows.get(place)
    }

    fn left_by(&self, row: &SocketRow) -> Option<ProcessKey> {
        match self.state.attribute(row, self.counted.namespace.at, false) {
            Attribution::Process(key, _) => Some(key),
            Attribution::Unknown(_) => None,
        }
    }
}

fn port_rate(rate: &Rate) -> PortRate {
    PortRate {
        time_wait_per_s: round(rate.per_s),
        lowest_per_s: round(rate.low),
        highest_per_s: round(rate.high),
        ended_per_s: round(rate.ended_per_s),
        seconds: round(rate.over.as_secs_f64()),
    }
}

fn port_forecast(forecast: &Forecast, since: Duration) -> PortForecast {
    let seconds = |outcome: Outcome| match outcome {
        Outcome::Exhausted(after) => Some(round(after.saturating_sub(since).as_secs_f64())),
        Outcome::LevelsOff(_) => None,
    };
    PortForecast {
        outcome: match forecast.likely {
            Outcome::Exhausted(after) if after.is_zero() => PortOutcome::Exhausted,
            Outcome::Exhausted(_) => PortOutcome::RunsOut,
            Outcome::LevelsOff(_) => PortOutcome::LevelsOff,
        },
        seconds: seconds(forecast.likely),
        seconds_soonest: seconds(forecast.soonest),
        seconds_latest: seconds(forecast.latest),
        level: match forecast.likely {
            Outcome::Exhausted(_) => None,
            Outcome::LevelsOff(level) => Some(level.round() as u64),
        },
    }
}
