use proptest::prelude::*;

use super::*;
use crate::model::Netns;

fn route(number: u16) -> Route {
    Route { netns: Netns(1), local: [10, 0, 0, 1].into(), remote: ([10, 0, 0, 2], number).into() }
}

fn at(ms: u64) -> Timestamp {
    Timestamp((1_000_000 + ms) * 1_000_000)
}

/// `per_s` connections a second from `from` until `to`, in ms.
fn churn(rates: &mut Rates, number: u16, per_s: u64, (from, to): (u64, u64)) {
    for ms in (from..to).step_by(usize::try_from(1_000 / per_s).unwrap()) {
        rates.note(route(number), at(ms), true);
    }
}

#[test]
fn a_steady_rate_is_seen_from_its_first_connection_on() {
    let mut rates = Rates::new(10);
    churn(&mut rates, 80, 50, (3_000, 13_000));
    let rate = rates.of(&route(80), at(13_000)).unwrap();
    assert_eq!((rate.connections, rate.over), (500, Duration::from_secs(10)));
    assert!((rate.per_s - 50.0).abs() < 1e-9 && (rate.ended_per_s - 50.0).abs() < 1e-9, "{rate:?}");
    assert!(rate.low > 45.0 && rate.high < 55.0, "{rate:?}");
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let mut rates = Rates::new(10);
    churn(&mut rates, 80, 100, (0, 30_000));
    churn(&mut rates, 80, 10, (30_000, 60_000));
    let rate = rates.of(&route(80), at(60_000)).unwrap();
    assert!((rate.per_s - 10.0).abs() < 0.5, "{rate:?}");
    let idle = rates.of(&route(80), at(100_000));
    assert_eq!(idle, None, "a load that stopped is no load");
    let stopping = rates.of(&route(80), at(75_000)).unwrap();
    assert!(stopping.per_s < 6.0 && stopping.low < stopping.per_s - 1.0, "{stopping:?}");
}

#[test]
fn bursts_make_it_uncertain() {
    let mut rates = Rates::new(10);
    for burst in [0, 10_000, 20_000] {
        churn(&mut rates, 80, 100, (burst, burst + 1_000));
        churn(&mut rates, 81, 10, (burst, burst + 10_000));
    }
    let (bursts, steady) = (rates.of(&route(80), at(29_000)).unwrap(), rates.of(&route(81), at(29_000)).unwrap());
    assert!((bursts.per_s - steady.per_s).abs() < 1.0, "{bursts:?} {steady:?}");
    assert!(bursts.high - bursts.low > 3.0 * (steady.high - steady.low), "{bursts:?} {steady:?}");
}

#[test]
fn only_what_entered_counts_as_in() {
    let mut rates = Rates::new(10);
    for ms in 0..100 {
        rates.note(route(80), at(ms * 100), ms % 2 == 0);
    }
    rates.take_back(&route(80));
    rates.take_back(&route(81));
    let rate = rates.of(&route(80), at(10_000)).unwrap();
    assert_eq!(rate.connections, 49);
    assert!((rate.ended_per_s - 10.0).abs() < 1e-9 && (rate.per_s - 4.9).abs() < 1e-9, "{rate:?}");
}

#[test]
fn one_connection_has_no_rate() {
    let mut rates = Rates::new(10);
    rates.note(route(80), at(0), true);
    assert_eq!(rates.of(&route(80), at(1_000)), None);
    assert_eq!(rates.of(&route(81), at(1_000)), None);
}

#[test]
fn idle_routes_make_room_uncounted_and_busy_ones_counted() {
    let mut rates = Rates::new(4);
    for number in 0..4 {
        rates.note(route(number), at(0), true);
    }
    rates.note(route(9), at(40_000), true);
    assert_eq!((rates.routes.len(), rates.evicted()), (1, 0));
    for number in 0..4 {
        churn(&mut rates, number, 10 * (u64::from(number) + 1), (41_000, 42_000));
    }
    // The fifth of them found no room: the two busiest stayed.
    assert_eq!(rates.evicted(), 2);
    assert!(rates.of(&route(2), at(42_000)).is_some() && rates.of(&route(3), at(42_000)).is_some());
}

proptest! {
    #[test]
    fn there_are_never_more_routes_than_allowed(
        notes in prop::collection::vec((0_u16..50, 0_u64..100_000), 0..300), limit in 2_usize..10,
    ) {
        let mut rates = Rates::new(limit);
        for (number, ms) in notes {
            rates.note(route(number), at(ms), true);
            prop_assert!(rates.routes.len() <= limit);
            if let Some(rate) = rates.of(&route(number), at(ms + 1)) {
                prop_assert!(rate.low <= rate.per_s && rate.per_s <= rate.high && rate.per_s.is_finite());
            }
        }
    }
}
