//! The model on workloads that are known to the last connection.

use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::{
    Changes, answer,
    model::{Run, run},
    workload::{Close, End, Exchange, Lingering, Look, PortBy, Program, Workload},
};
use crate::model::{Connection, Netns, NetnsSettings, ProcessKey, Timestamp};

const NETNS: Netns = Netns(1);
const CLIENT: usize = 0;
const SERVER: usize = 1;

fn ms(milliseconds: u64) -> Timestamp {
    Timestamp(milliseconds * 1_000_000)
}

fn server() -> SocketAddr {
    ([10, 0, 0, 2], 80).into()
}

/// A connection with both ends here.
fn exchange(begun: u64, lasted: u64, client_first: bool) -> Exchange {
    // Without a port of its own, so that it gets whatever connect() would choose.
    let client: SocketAddr = ([10, 0, 0, 1], 0).into();
    let lasted = Some(Duration::from_millis(lasted));
    let close = |is_first| if is_first { Close::FIRST } else { Close::Second };
    let end = |local, remote, program, is_first| End {
        connection: Connection { netns: NETNS, local, remote },
        program: Some(program),
        lasted,
        close: close(is_first),
        port: PortBy::Connect,
    };
    Exchange {
        begun: ms(begun),
        client: Some(end(client, server(), CLIENT, client_first)),
        server: Some(end(server(), client, SERVER, !client_first)),
        failed: false,
    }
}

fn settings(low: u16, high: u16) -> NetnsSettings {
    NetnsSettings {
        port_range: Some((low, high)),
        reserved_ports: Some(Vec::new()),
        max_tw_buckets: Some(1_000_000),
        tw_reuse: Some(0),
        timestamps: Some(1),
        fin_timeout_s: Some(60),
        ..NetnsSettings::default()
    }
}

fn workload(ports: u16, seconds: u64, exchanges: Vec<Exchange>) -> Workload {
    let program = |tgid, comm: &str| Program { key: ProcessKey { tgid, start_ticks: 1 }, comm: comm.into() };
    Workload {
        ended: ms(seconds * 1_000),
        time_wait: Duration::from_secs(60),
        programs: vec![program(100, "client"), program(200, "server")],
        exchanges,
        looks: vec![Look { netns: NETNS, settings: settings(40_000, 40_000 + ports - 1), ..Look::default() }],
        ..Workload::default()
    }
}

/// One after the other, each `every` milliseconds.
fn steady(count: u64, every: u64, lasted: u64, client_first: bool) -> Vec<Exchange> {
    (0..count).map(|number| exchange(number * every, lasted, client_first)).collect()
}

fn peak_ports(run: &Run) -> u32 {
    run.routes.values().map(|route| route.peak).max().unwrap_or_default()
}

#[test]
fn a_client_that_closes_first_uses_a_port_for_a_minute() {
    let run = run(&workload(200, 100, steady(100, 1_000, 10, true)), &Changes::default());
    assert_eq!((run.failures, run.connections), (0, 100));
    // Sixty in TIME_WAIT, and the one that is alive.
    assert_eq!((run.peak_time_wait, peak_ports(&run)), (60, 61));
}

#[test]
fn without_a_port_there_is_no_connection() {
    let load = workload(30, 100, steady(100, 1_000, 10, true));
    let today = run(&load, &Changes::default());
    // Thirty in the first minute, and as many when those come back.
    assert_eq!((today.failures, today.connections), (40, 60));
    let route = today.routes.values().next().unwrap();
    assert_eq!((route.peak, route.usable, route.first_failure), (30, 30, Some(ms(30_000))));
    let wider = run(&load, &Changes { port_range: Some((40_000, 40_099)), ..Changes::default() });
    assert_eq!((wider.failures, wider.routes.values().next().unwrap().usable), (0, 100));
    let spread = run(&load, &Changes { local_addresses: Some(3), ..Changes::default() });
    assert_eq!((spread.failures, peak_ports(&spread)), (0, 21), "a third from each address, and one alive");
}

#[test]
fn time_wait_is_where_it_is_closed_first() {
    let load = workload(30, 50, steady(50, 1_000, 10, false));
    let today = run(&load, &Changes::default());
    // The server's: the client's ports are free at once, and a SYN from a port ends the TIME_WAIT of its last connection.
    assert_eq!((today.failures, peak_ports(&today)), (0, 1));
    assert!((15..=30).contains(&today.peak_time_wait), "{today:?}");
    let moved = run(&load, &Changes { client_closes_first: true, ..Changes::default() });
    assert_eq!((moved.failures, moved.peak_time_wait), (20, 30));
    let others =
        Changes { process: Some(super::Who::Comm("nobody".into())), client_closes_first: true, ..Changes::default() };
    assert_eq!(run(&load, &others), today);
}

#[test]
fn tw_reuse_gives_a_port_back_after_a_second_if_there_are_timestamps() {
    let mut load = workload(10, 100, steady(100, 500, 10, true));
    let reuse = Changes { tw_reuse: Some(1), ..Changes::default() };
    assert!(run(&load, &Changes::default()).failures > 50);
    let with = run(&load, &reuse);
    assert_eq!(with.failures, 0);
    assert!(with.taken_over > 80 && with.peak_time_wait <= 10, "{with:?}");
    load.looks[0].settings.timestamps = Some(0);
    assert_eq!(run(&load, &reuse), run(&load, &Changes::default()));
}

#[test]
fn with_tw_reuse_the_first_half_of_the_range_is_enough() {
    let load = workload(100, 20, steady(200, 40, 1, true));
    assert_eq!(run(&load, &Changes::default()).failures, 100);
    let with = run(&load, &Changes { tw_reuse: Some(1), ..Changes::default() });
    assert_eq!(with.failures, 0);
    assert!((45..=50).contains(&with.peak_time_wait), "{with:?}");
}

#[test]
fn a_minisocket_lasts_as_long_as_its_fin_is_waited_for() {
    let mut load = workload(100, 100, steady(1, 1, 0, true));
    load.looks[0].settings.fin_timeout_s = Some(5);
    for (lingering, ends) in [
        (Lingering { becomes: None, cut: None }, 5_000),
        (Lingering { becomes: Some(Duration::from_secs(2)), cut: None }, 62_000),
        (Lingering { becomes: Some(Duration::ZERO), cut: Some(Duration::from_secs(9)) }, 9_000),
    ] {
        load.exchanges[0].client.as_mut().unwrap().close = Close::First(lingering);
        load.samples = [ends - 1, ends + 1]
            .into_iter()
            .map(|at| super::workload::Sample { at: ms(at), netns: NETNS, time_wait: 0, used: Vec::new() })
            .collect();
        let counts: Vec<_> = run(&load, &Changes::default()).samples.into_iter().map(|(count, _)| count).collect();
        assert_eq!(counts, [1, 0], "{lingering:?}");
    }
}

#[test]
fn no_more_than_tcp_max_tw_buckets_are_kept() {
    let mut load = workload(100, 50, steady(50, 100, 10, true));
    load.looks[0].settings.max_tw_buckets = Some(20);
    let run = run(&load, &Changes::default());
    assert_eq!((run.peak_time_wait, run.refused), (20, 30));
}

#[test]
fn a_keep_alive_uses_a_connection_again_and_closes_it_when_nobody_does() {
    // Two bursts, twenty seconds apart.
    let mut exchanges = steady(10, 100, 10, true);
    exchanges.extend((0..10).map(|number| exchange(20_000 + number * 100, 10, true)));
    let load = workload(100, 60, exchanges);
    let kept = run(&load, &Changes { keep_alive: Some(Duration::from_secs(5)), ..Changes::default() });
    assert_eq!((kept.connections, kept.peak_time_wait, kept.most_at_once), (2, 2, 1));
    let longer = run(&load, &Changes { keep_alive: Some(Duration::from_secs(30)), ..Changes::default() });
    assert_eq!((longer.connections, longer.peak_time_wait), (1, 1));
    let shorter = run(&load, &Changes { keep_alive: Some(Duration::from_millis(50)), ..Changes::default() });
    assert_eq!(shorter.connections, 20);
}

#[test]
fn a_pool_makes_requests_wait() {
    // Four a second, each for half a second: two at once.
    let load = workload(100, 60, steady(40, 250, 500, true));
    let of = |pool| run(&load, &Changes { pool: Some(pool), ..Changes::default() });
    let (two, one) = (of(2), of(1));
    assert_eq!((two.connections, two.waited, two.peak_time_wait, two.unserved), (2, 0, 0, 0));
    // Forty halves of a second take twenty seconds instead of ten.
    assert_eq!((one.connections, one.waited, one.unserved), (1, 39, 0));
    assert_eq!(one.longest_wait, Duration::from_millis(9_750));
}

#[test]
fn linger_leaves_nothing_and_is_called_unsafe() {
    let load = workload(100, 60, steady(40, 250, 100, true));
    let answer = answer(&load, &Changes { linger0: true, ..Changes::default() }, false);
    let what_if = answer.what_if.unwrap();
    assert_eq!((answer.today.peak_time_wait, what_if.peak_time_wait), (40, 0));
    assert!(
        answer.cautions.iter().any(|caution| caution.starts_with("SO_LINGER 0 is unsafe")),
        "{:?}",
        answer.cautions
    );
}

#[test]
fn an_attempt_that_failed_is_made_if_there_is_a_port() {
    let mut exchanges = steady(20, 100, 10, true);
    for exchange in exchanges.iter_mut().skip(10) {
        exchange.failed = true;
    }
    let load = workload(10, 10, exchanges);
    let answer = answer(&load, &Changes { port_range: Some((40_000, 40_019)), ..Changes::default() }, false);
    let what_if = answer.what_if.unwrap();
    assert_eq!((answer.check.connect_failures.recorded, answer.check.connect_failures.modelled), (10, 10));
    assert_eq!((answer.today.connect_failures, what_if.connect_failures, what_if.peak_time_wait), (10, 0, 20));
    assert_eq!((what_if.peak_ports_percent, answer.destinations[0].remote.as_str()), (100.0, "10.0.0.2:80"));
    assert!(answer.today.exhaustion.is_past && answer.today.exhaustion.after_s == Some(1.0), "{:?}", answer.today);
    assert!(answer.cautions.iter().any(|caution| caution.starts_with("10 connect() call(s) found no port")));
}

#[test]
fn remedies_are_ranked_by_what_is_left_to_suffer_from() {
    let load = workload(30, 100, steady(100, 1_000, 10, true));
    let answer = answer(&load, &Changes { tw_reuse: Some(0), ..Changes::default() }, true);
    let ranked: Vec<_> = answer.remedies.iter().map(|remedy| remedy.option.as_str()).collect();
    assert_eq!(ranked.len(), 8);
    let first = &answer.remedies[0];
    assert_eq!((first.what_if.connect_failures, first.failures_avoided), (0, 40));
    let last = &answer.remedies[7];
    assert!(["--tw-reuse 0", "--client-closes-first"].contains(&last.option.as_str()), "{ranked:?}");
    assert_eq!(last.failures_avoided, 0);
    let unsafe_ones = answer.remedies.iter().filter(|remedy| remedy.is_unsafe).map(|remedy| remedy.option.as_str());
    assert_eq!(unsafe_ones.collect::<Vec<_>>(), ["--linger0"]);
    assert!(answer.what_if.is_none() && answer.changes.is_empty());
}

fn load() -> impl Strategy<Value = Workload> {
    let one = (0_u64..120_000, 0_u64..20_000, any::<bool>());
    (prop::collection::vec(one, 1..150), 2_u16..60).prop_map(|(mut all, ports)| {
        all.sort_unstable();
        let exchanges = all.into_iter().map(|(begun, lasted, first)| exchange(begun, lasted, first)).collect();
        workload(ports & !1, 130, exchanges)
    })
}

proptest! {
    #[test]
    fn more_ports_never_make_more_calls_fail(load in load(), more in 0_u16..60) {
        let (low, high) = load.looks[0].settings.port_range.unwrap();
        let wider = Changes { port_range: Some((low, high + 2 * more)), ..Changes::default() };
        prop_assert!(run(&load, &wider).failures <= run(&load, &Changes::default()).failures);
    }

    #[test]
    fn tw_reuse_never_takes_more_ports_where_there_are_enough(load in load()) {
        let enough = Changes { port_range: Some((40_000, 41_001)), ..Changes::default() };
        let reuse = Changes { tw_reuse: Some(1), ..enough.clone() };
        let (without, with) = (run(&load, &enough), run(&load, &reuse));
        prop_assert!(peak_ports(&with) <= peak_ports(&without));
    }

    #[test]
    fn a_pool_never_has_more_at_once_than_it_may(load in load(), pool in 1_u32..20) {
        let run = run(&load, &Changes { pool: Some(pool), ..Changes::default() });
        prop_assert!(run.most_at_once <= pool, "{run:?}");
        prop_assert!(peak_ports(&run) <= pool);
    }

    #[test]
    fn what_changes_nothing_gives_the_same_figures(load in load()) {
        let range = load.looks[0].settings.port_range;
        let same = Changes { port_range: range, tw_reuse: Some(0), local_addresses: Some(1), ..Changes::default() };
        prop_assert_eq!(run(&load, &same), run(&load, &Changes::default()));
        prop_assert_eq!(run(&load, &Changes::default()).connections + run(&load, &Changes::default()).failures,
            load.exchanges.len() as u64);
    }

    #[test]
    fn nobody_has_more_ports_than_there_are(load in load()) {
        let run = run(&load, &Changes::default());
        prop_assert!(run.routes.values().all(|route| route.peak <= route.usable), "{run:?}");
    }
}
