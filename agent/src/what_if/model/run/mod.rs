//! Event by event through a workload.

mod keeping;
mod sharing;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use super::{
    Lane,
    choice::{LanePorts, Slot},
    host::Host,
    pool::{Key, Pools},
    tally::Run,
};
use crate::{
    hash::FastMap,
    model::{Connection, Netns, TimeWaitSubstate, Timestamp},
    ports::{
        Route,
        accounting::TIME_WAIT_LENGTH,
        forecast::{Situation, forecast},
        rates::Rates,
    },
    what_if::{
        change::Changes,
        workload::{Close, End, Exchange, Lingering, PortBy, Workload},
    },
};

/// Routes whose rate is kept for a forecast.
const MAX_RATES: usize = 4096;

/// Something that happens at a time. What happens at the same time happens in this order: ports come back before they are
/// asked for, and a dump sees what was done before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// Settings were read
    Look(usize),
    /// connect() may take a timewait socket over from now on
    Reusable(usize),
    /// A timewait socket goes
    Over(usize),
    /// A connection's client, or its server, has closed
    ClientEnds(usize),
    ServerEnds(usize),
    /// A request over a connection that stays open is done
    Served(usize),
    /// Nobody has used a connection since it was used that often
    IdleOver(usize, u64),
    /// A connection is wanted
    Wanted(usize),
    /// There was a dump
    Sample(usize),
}

/// Where a timewait socket keeps four numbers: in a lane's port, or anywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Port(Lane, u16),
    Numbers(Connection, (u16, u16)),
}

/// A connection that the model made.
#[derive(Clone, Debug)]
struct Made {
    /// The last one it stood for
    exchange: usize,
    client: Option<Place>,
    server: Option<Place>,
    /// The port it took out by bind()
    bound: Option<u16>,
    key: Option<Key>,
    uses: u64,
}

#[derive(Clone, Debug)]
struct TimeWait {
    netns: Netns,
    place: Place,
    bound: Option<u16>,
    is_reusable: bool,
    is_gone: bool,
    /// When its port can be had again
    frees: Timestamp,
}

/// Runs a workload with changes.
pub(in crate::what_if) fn run(workload: &Workload, changes: &Changes) -> Run {
    let mut model = Model {
        workload,
        changes,
        queue: BinaryHeap::new(),
        hosts: FastMap::default(),
        lanes: FastMap::default(),
        numbers: FastMap::default(),
        time_waits: Vec::new(),
        made: Vec::new(),
        pools: Pools::default(),
        at_once: FastMap::default(),
        turns: FastMap::default(),
        rates: Rates::new(MAX_RATES),
        total: 0,
        run: Run::default(),
    };
    model.set_up();
    while let Some(Reverse((at, happening))) = model.queue.pop() {
        if at > workload.ended {
            break;
        }
        model.happen(at, happening);
    }
    model.finish()
}

struct Model<'a> {
    workload: &'a Workload,
    changes: &'a Changes,
    queue: BinaryHeap<Reverse<(Timestamp, Happening)>>,
    hosts: FastMap<Netns, Host>,
    lanes: FastMap<Lane, LanePorts>,
    /// Timewait sockets that are in no lane
    numbers: FastMap<Place, usize>,
    time_waits: Vec<TimeWait>,
    made: Vec<Made>,
    pools: Pools,
    /// Connections of a key that are open
    at_once: FastMap<Key, u32>,
    /// How often each route was asked for: addresses take turns
    turns: FastMap<Route, u32>,
    rates: Rates,
    total: u64,
    run: Run,
}

impl<'a> Model<'a> {
    fn set_up(&mut self) {
        let workload = self.workload;
        for (place, look) in workload.looks.iter().enumerate() {
            if self.hosts.contains_key(&look.netns) {
                self.push(look.at, Happening::Look(place));
            } else {
                self.hosts.entry(look.netns).or_default().set(look, self.changes);
            }
        }
        for older in &workload.older {
            let route = Route::of(&older.connection);
            let lane = Lane { route, local: 0, remote: 0 };
            let place = if older.is_outbound {
                Place::Port(lane, older.connection.local.port())
            } else {
                Place::Numbers(older.connection, (0, 0))
            };
            let began = older.until.minus(TIME_WAIT_LENGTH);
            let began = (older.substate == TimeWaitSubstate::TimeWait).then_some(began);
            self.keep(workload.begun, place, None, began, older.until);
        }
        for (place, exchange) in workload.exchanges.iter().enumerate() {
            self.push(exchange.begun.max(workload.begun), Happening::Wanted(place));
        }
        for (place, sample) in workload.samples.iter().enumerate() {
            self.push(sample.at.min(workload.ended), Happening::Sample(place));
        }
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.queue.push(Reverse((at, happening)));
    }

    fn exchange(&self, place: usize) -> Option<&'a Exchange> {
        self.workload.exchanges.get(place)
    }

    fn happen(&mut self, at: Timestamp, happening: Happening) {
        match happening {
            Happening::Look(place) => {
                if let Some(look) = self.workload.looks.get(place) {
                    self.hosts.entry(look.netns).or_default().set(look, self.changes);
                }
            }
            Happening::Reusable(id) => self.reusable(id),
            Happening::Over(id) => self.over(id),
            Happening::ClientEnds(place) => self.client_ends(place, at),
            Happening::ServerEnds(place) => self.server_ends(place, at),
            Happening::Served(place) => self.served(place, at),
            Happening::IdleOver(place, uses) => self.idle_over(place, uses, at),
            Happening::Wanted(place) => self.wanted(place, at),
            Happening::Sample(place) => self.sample(place),
        }
    }

    /// Somebody wants a connection.
    fn wanted(&mut self, place: usize, at: Timestamp) {
        let Some(exchange) = self.exchange(place) else { return };
        let began_before =
            exchange.client.as_ref().or(exchange.server.as_ref()).is_some_and(|end| end.port == PortBy::Fixed);
        let shares = self.changes.reuses_connections()
            && !began_before
            && self.changes.is_for(exchange, &self.workload.programs);
        if let (true, Some(key)) = (shares, Key::of(exchange)) {
            self.requested(place, key, at);
            return;
        }
        let Some(made) = self.open(place, at) else { return };
        for (end, happening) in
            [(&exchange.client, Happening::ClientEnds(made)), (&exchange.server, Happening::ServerEnds(made))]
        {
            if let Some(lasted) = end.as_ref().and_then(|end| end.lasted) {
                self.push(at.plus(lasted), happening);
            }
        }
    }

    /// Makes a connection, if there is a port for it.
    fn open(&mut self, place: usize, at: Timestamp) -> Option<usize> {
        let exchange = self.exchange(place)?;
        let (mut client, mut bound, mut port, mut addresses) = (None, None, None, (0, 0));
        if let Some(end) = &exchange.client {
            let lane = self.lane(exchange, end);
            addresses = (lane.local, lane.remote);
            let got = self.port(exchange, end, lane, at)?;
            (client, port) = (Some(got), Some(port_of(&got)));
            if end.port == PortBy::Bind {
                bound = port;
                self.hosts.entry(lane.netns()).or_default().bind(port_of(&got));
            }
        }
        let server = exchange.server.as_ref().map(|end| {
            let mut connection = end.connection;
            connection.remote.set_port(port.unwrap_or(connection.remote.port()));
            Place::Numbers(connection, addresses)
        });
        // A SYN of the same four numbers ends the TIME_WAIT of their last connection.
        if let Some(id) = server.and_then(|server| self.numbers.get(&server).copied()) {
            self.leave(id);
        }
        let key = Key::of(exchange);
        if let Some(key) = key {
            let count = self.at_once.entry(key).or_default();
            *count += 1;
            self.run.most_at_once = self.run.most_at_once.max(*count);
        }
        self.run.connections += 1;
        self.made.push(Made { exchange: place, client, server, bound, key, uses: 0 });
        Some(self.made.len() - 1)
    }

    fn lane(&mut self, exchange: &Exchange, end: &End) -> Lane {
        let route = Route::of(&end.connection);
        let (locals, remotes) = (self.changes.local_addresses.unwrap_or(1), self.changes.remote_addresses.unwrap_or(1));
        if u32::from(locals) * u32::from(remotes) <= 1
            || end.port != PortBy::Connect
            || !self.changes.is_for(exchange, &self.workload.programs)
        {
            return Lane { route, local: 0, remote: 0 };
        }
        let turn = self.turns.entry(route).or_default();
        let number = *turn % (u32::from(locals) * u32::from(remotes));
        *turn = turn.wrapping_add(1);
        let part = |number: u32| u16::try_from(number).unwrap_or_default();
        Lane { route, local: part(number % u32::from(locals)), remote: part(number / u32::from(locals)) }
    }

    /// Gives a client its port; none if there is none.
    fn port(&mut self, exchange: &Exchange, end: &End, lane: Lane, at: Timestamp) -> Option<Place> {
        let recorded = end.connection.local.port();
        let host = self.hosts.entry(lane.netns()).or_default();
        let Some(space) = &host.space else {
            // Nothing is known: it went as it went.
            if exchange.failed {
                self.run.failed(&lane, at, 0);
                return None;
            }
            return Some(Place::Numbers(end.connection, (0, 0)));
        };
        let ports = self.lanes.entry(lane).or_default();
        let (port, before) = match end.port {
            PortBy::Connect => {
                // Where nothing changes what connect() chooses from, it chooses what it chose.
                let first = (recorded != 0 && self.changes.keep_ports()).then_some(recorded);
                let is_bound = |port| host.bound.contains_key(&port);
                let Some(chosen) = ports.connect(space, host.usable, first, is_bound) else {
                    self.run.failed(&lane, at, host.usable);
                    return None;
                };
                (chosen.port, chosen.taken_over)
            }
            PortBy::Fixed | PortBy::Bind if !space.is_usable(recorded) => {
                let place = Place::Numbers(end.connection, (0, 0));
                if let Some(id) = self.numbers.get(&place).copied() {
                    self.leave(id);
                }
                return Some(place);
            }
            PortBy::Fixed | PortBy::Bind => match ports.put(recorded, Slot::Live) {
                Some(Slot::TimeWait { id, .. }) => (recorded, Some(id)),
                _ => (recorded, None),
            },
        };
        self.run.ports(&lane, ports.used(), host.usable);
        if let Some(id) = before {
            self.run.taken_over += 1;
            self.leave(id);
        }
        Some(Place::Port(lane, port))
    }

    fn client_ends(&mut self, made: usize, at: Timestamp) {
        let Some((connection, exchange)) = self.last(made) else { return };
        let (client, bound, key) = (connection.client, connection.bound, connection.key);
        if let Some(count) = key.and_then(|key| self.at_once.get_mut(&key)) {
            *count = count.saturating_sub(1);
        }
        let Some(place) = client else { return };
        let (close, _) = self.changes.closes(exchange, &self.workload.programs);
        let has_entered = matches!(close, Some(Close::First(_)));
        if let Place::Port(lane @ Lane { local: 0, remote: 0, .. }, _) = place {
            self.rates.note(lane.route, at, has_entered);
        }
        self.close(at, place, bound, close);
    }

    fn server_ends(&mut self, made: usize, at: Timestamp) {
        let Some((connection, exchange)) = self.last(made) else { return };
        let (server, key, is_all) = (connection.server, connection.key, connection.client.is_none());
        if let Some(count) = key.filter(|_| is_all).and_then(|key| self.at_once.get_mut(&key)) {
            *count = count.saturating_sub(1);
        }
        let (_, close) = self.changes.closes(exchange, &self.workload.programs);
        if let Some(place) = server {
            self.close(at, place, None, close);
        }
    }

    fn last(&self, made: usize) -> Option<(&Made, &'a Exchange)> {
        let connection = self.made.get(made)?;
        Some((connection, self.exchange(connection.exchange)?))
    }

    /// An end is closed: it leaves a timewait socket, or nothing.
    fn close(&mut self, at: Timestamp, place: Place, bound: Option<u16>, close: Option<Close>) {
        if let Some(Close::First(Lingering { becomes, cut })) = close {
            let host = self.hosts.entry(netns_of(&place)).or_default();
            if host.time_wait < host.max_time_wait {
                let began = becomes.map(|becomes| at.plus(becomes));
                let until = began.map_or(at.plus(host.fin_timeout), |began| began.plus(self.workload.time_wait));
                let until = cut.map_or(until, |cut| until.min(at.plus(cut)));
                self.keep(at, place, bound, began, until);
                return;
            }
            self.run.refused += 1;
        }
        if let Place::Port(lane, port) = place {
            self.lanes.entry(lane).or_default().free(port, Slot::Live);
        }
        if let Some(port) = bound {
            self.hosts.entry(netns_of(&place)).or_default().unbind(port);
        }
    }

    fn sample(&mut self, place: usize) {
        let Some(sample) = self.workload.samples.get(place) else { return };
        let time_wait = self.hosts.get(&sample.netns).map_or(0, |host| host.time_wait);
        let used = |route: &Route| {
            let lane = Lane { route: *route, local: 0, remote: 0 };
            self.lanes.get(&lane).map_or(0, LanePorts::used)
        };
        let used = sample.used.iter().map(|(route, _)| used(route)).collect();
        self.run.samples.push((time_wait, used));
    }

    fn finish(mut self) -> Run {
        let end = self.workload.ended;
        let waiting = self.pools.values().map(|pool| pool.waiting.len());
        self.run.unserved = waiting.sum::<usize>() as u64;
        for since in self.pools.values().filter_map(|pool| VecDeque::front(&pool.waiting)).map(|(_, since)| *since) {
            self.run.longest_wait = self.run.longest_wait.max(end.since(since));
        }
        for (lane, ports) in &self.lanes {
            let (Some(route), Some(host)) = (self.run.routes.get_mut(&lane.route), self.hosts.get(&lane.netns()))
            else {
                continue;
            };
            let Some(rate) = self.rates.of(&lane.route, end).filter(|_| (lane.local, lane.remote) == (0, 0)) else {
                continue;
            };
            let time_waits = ports.time_waits().filter_map(|id| self.time_waits.get(id));
            let mut frees: Vec<Duration> = time_waits.map(|it| it.frees.since(end)).collect();
            frees.sort_unstable();
            let hold = host.reuse.hold(&lane.route);
            let situation = Situation { used: ports.used(), usable: host.usable, frees: &frees, hold };
            route.forecast = Some(forecast(&situation, &rate).likely);
        }
        self.run
    }
}

const fn netns_of(place: &Place) -> Netns {
    match place {
        Place::Port(lane, _) => lane.netns(),
        Place::Numbers(connection, _) => connection.netns,
    }
}

const fn port_of(place: &Place) -> u16 {
    match place {
        Place::Port(_, port) => *port,
        Place::Numbers(connection, _) => connection.local.port(),
    }
}
