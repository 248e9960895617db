//! Ends and attempts -> connections in the order of their beginning.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Close, End, Exchange, PortBy, Workload,
    collect::{Attempt, Collector, Told},
    destination,
    pair::pair,
};
use crate::{
    hash::FastMap,
    model::{Netns, OpenKind, Timestamp},
    ports::accounting::{PortSpace, TIME_WAIT_LENGTH, is_connection},
    recording::Played,
};

/// As many TIME_WAITs must have been seen to run out before it counts how long they lasted.
const ENOUGH: usize = 8;

pub(super) fn finish(mut collector: Collector, played: &Played) -> Workload {
    let begun = collector.begun.unwrap_or_default();
    let ended = played.state.window_began().plus(played.facts.duration);
    // Of a recording that is cut off more is told than its last facts know of.
    let told = collector.told.iter().filter_map(|told| told.ended).chain(collector.attempts.iter().map(|it| it.at));
    let ended = told.fold(ended, Timestamp::max);
    let facts = &played.facts;
    collector.gaps.lost = facts.lost.transitions
        + facts.lost.timewait
        + facts.lost.skipped_programs
        + facts.sockets_not_followed
        + facts.malformed;
    still_open(&mut collector, played);
    ranges_of_their_own(&mut collector);
    collector.told.sort_by_key(|told| (told.ended.is_none(), told.ended, told.begun));
    collector.gaps.births = collector.told.iter().filter(|told| told.begun.is_none()).count() as u64;
    let is_bound = |told: &&Told| told.port == PortBy::Bind;
    collector.gaps.bound = collector.told.iter().filter(is_bound).count() as u64;
    let mut exchanges = join(&collector.told);
    let (failed, without) = attempts(&collector.attempts, &exchanges);
    collector.gaps.without_example = without;
    exchanges.extend(failed);
    exchanges.sort_by_key(|exchange| exchange.begun);
    let unknown: BTreeSet<Netns> =
        exchanges.iter().filter_map(|it| Some(it.client.as_ref()?.connection.netns)).collect();
    let is_known =
        |netns: &Netns| collector.looks.iter().any(|look| look.netns == *netns && PortSpace::of(look).is_some());
    collector.gaps.namespaces = unknown.iter().filter(|netns| !is_known(netns)).count() as u64;
    let mut older: Vec<_> = collector.older.into_values().collect();
    older.sort_by_key(|older| (older.until, older.connection.netns, older.connection.local, older.connection.remote));
    collector.samples.sort_by_key(|sample| (sample.at, sample.netns));
    Workload {
        started_at: facts.started_at.clone(),
        begun,
        ended,
        time_wait: length(&mut collector.lengths),
        programs: collector.programs,
        exchanges,
        older,
        looks: collector.looks,
        samples: collector.samples,
        gaps: collector.gaps,
        blind_spots: facts.blind_spots.clone(),
    }
}

/// The median of what was seen to run out by itself.
fn length(lengths: &mut [Duration]) -> Duration {
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).filter(|_| lengths.len() >= ENOUGH).copied().unwrap_or(TIME_WAIT_LENGTH)
}

/// Adds the connections of which no end was told.
fn still_open(collector: &mut Collector, played: &Played) {
    for namespace in &played.census.namespaces {
        let served = namespace.served_ports();
        for row in namespace.rows.iter().filter(|row| is_connection(row.state) && row.time_wait_left.is_none()) {
            let connection = row.connection;
            let has_ended = collector.last_end.get(&connection).is_some_and(|end| *end >= namespace.at);
            if has_ended || collector.stock.contains_key(&connection) {
                continue;
            }
            let opened = if served.contains(&connection.local.port()) { OpenKind::Passive } else { OpenKind::Active };
            let begun = collector.seen.get(&connection).copied().unwrap_or(namespace.at);
            collector.gaps.open_at_end += 1;
            collector.gaps.begun_between += 1;
            collector.told.push(Told {
                connection,
                opened,
                program: None,
                begun: Some(begun),
                ended: None,
                close: Close::Neither,
                port: PortBy::Connect,
            });
        }
    }
    collector.gaps.open_at_end += collector.stock.len() as u64;
    let mut stock: Vec<_> = collector.stock.drain().map(|(_, told)| told).collect();
    stock.sort_by_key(|told| (told.connection.netns, told.connection.local, told.connection.remote));
    collector.told.extend(stock);
}

/// A port that the namespace's range never had is one of a range of the socket's own (IP_LOCAL_PORT_RANGE): no setting of
/// the namespace would have made it another.
fn ranges_of_their_own(collector: &mut Collector) {
    let ranges: Vec<_> =
        collector.looks.iter().filter_map(|look| Some((look.netns, look.settings.port_range?))).collect();
    for told in collector.told.iter_mut().filter(|told| told.opened == OpenKind::Active && told.port == PortBy::Connect)
    {
        let (netns, port) = (told.connection.netns, told.connection.local.port());
        let mut its = ranges.iter().filter(|(of, _)| *of == netns).peekable();
        if port != 0 && its.peek().is_some() && !its.any(|(_, (low, high))| (*low..=*high).contains(&port)) {
            told.port = PortBy::Fixed;
        }
    }
}

fn join(told: &[Told]) -> Vec<Exchange> {
    let partners = pair(told);
    let mut is_taken = vec![false; told.len()];
    for place in partners.iter().flatten() {
        if let Some(is_taken) = is_taken.get_mut(*place) {
            *is_taken = true;
        }
    }
    let mut exchanges = Vec::new();
    for ((end, partner), is_taken) in told.iter().zip(partners).zip(is_taken) {
        let other = partner.and_then(|place| told.get(place));
        let exchange = |client: Option<&Told>, server: Option<&Told>| {
            let begins = client.iter().chain(&server).filter_map(|told| told.begun.or(told.ended));
            let begun = begins.min().unwrap_or_default();
            let end = |told: &Told| self::end(told, begun);
            Exchange { begun, client: client.map(end), server: server.map(end), failed: false }
        };
        match end.opened {
            OpenKind::Active => exchanges.push(exchange(Some(end), other)),
            OpenKind::Passive if !is_taken => exchanges.push(exchange(None, Some(end))),
            OpenKind::Passive => {}
        }
    }
    exchanges
}

fn end(told: &Told, begun: Timestamp) -> End {
    End {
        connection: told.connection,
        program: told.program,
        lasted: told.ended.map(|ended| ended.since(begun)),
        close: told.close,
        port: told.port,
    }
}

type Kind = (Netns, Option<usize>, std::net::SocketAddr);

/// Attempts as connections: each like the one of median length of its process and destination, else of its destination.
/// And how many have no such example.
fn attempts(attempts: &[Attempt], made: &[Exchange]) -> (Vec<Exchange>, u64) {
    let mut kinds: FastMap<Kind, Vec<(Duration, usize)>> = FastMap::default();
    for (place, exchange) in made.iter().enumerate() {
        let Some((client, lasted)) = exchange.client.as_ref().and_then(|client| Some((client, client.lasted?))) else {
            continue;
        };
        let (netns, remote) = destination(client);
        kinds.entry((netns, client.program, remote)).or_default().push((lasted, place));
        if client.program.is_some() {
            kinds.entry((netns, None, remote)).or_default().push((lasted, place));
        }
    }
    let example = |examples: &mut Vec<(Duration, usize)>| {
        examples.sort_unstable();
        examples.get(examples.len() / 2).and_then(|(_, place)| made.get(*place))
    };
    let examples: FastMap<Kind, &Exchange> =
        kinds.iter_mut().filter_map(|(kind, examples)| Some((*kind, example(examples)?))).collect();
    let mut without = 0;
    let wanted = attempts.iter().map(|attempt| {
        let (netns, remote) = (attempt.connection.netns, attempt.connection.remote);
        let example = examples.get(&(netns, attempt.program, remote)).or_else(|| examples.get(&(netns, None, remote)));
        without += u64::from(example.is_none());
        let like = example.and_then(|example| example.client.as_ref());
        let mut connection = attempt.connection;
        if let Some(like) = like.filter(|_| connection.local.ip().is_unspecified()) {
            connection.local.set_ip(like.connection.local.ip());
        }
        Exchange {
            begun: attempt.at,
            client: Some(End {
                connection,
                program: attempt.program,
                lasted: Some(like.and_then(|like| like.lasted).unwrap_or_default()),
                close: like.map_or(Close::FIRST, |like| like.close),
                port: PortBy::Connect,
            }),
            server: example.and_then(|example| example.server.clone()),
            failed: true,
        }
    });
    let wanted = wanted.collect();
    (wanted, without)
}
