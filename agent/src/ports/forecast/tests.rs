//! The forecast against a simulation that takes one connection after the other.

use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_secs(60);

fn seconds(values: &[f64]) -> Vec<Duration> {
    values.iter().map(|&value| Duration::from_secs_f64(value)).collect()
}

fn situation(used: u32, usable: u32, frees: &[Duration]) -> Situation<'_> {
    Situation { used, usable, frees, hold: HOLD }
}

#[test]
fn steady_churn_runs_out_or_levels_off() {
    assert_eq!(situation(0, 600, &[]).at_rate(20.0), Outcome::Exhausted(Duration::from_secs(30)));
    assert_eq!(situation(0, 600, &[]).at_rate(9.0), Outcome::LevelsOff(540.0));
    assert_eq!(situation(100, 600, &[]).at_rate(9.0), Outcome::Exhausted(Duration::from_secs_f64(500.0 / 9.0)));
    assert_eq!(situation(100, 600, &[]).at_rate(0.0), Outcome::LevelsOff(100.0));
    assert_eq!(situation(600, 600, &[]).at_rate(0.0), Outcome::Exhausted(Duration::ZERO));
    assert_eq!(situation(0, 0, &[]).at_rate(0.0), Outcome::Exhausted(Duration::ZERO));
}

/// 100 in TIME_WAIT that all leave in 10 s make room for 100 more, if there is time enough for them to leave.
#[test]
fn known_expiries_put_it_off() {
    let frees = seconds(&[10.0; 100]);
    assert_eq!(situation(100, 200, &frees).at_rate(20.0), Outcome::Exhausted(Duration::from_secs(5)));
    assert_eq!(situation(100, 200, &frees).at_rate(5.0), Outcome::Exhausted(Duration::from_secs(40)));
    assert_eq!(situation(100, 200, &frees).at_rate(3.0), Outcome::LevelsOff(180.0));
    assert_eq!(situation(110, 200, &frees).at_rate(3.0), Outcome::LevelsOff(190.0), "ten never leave");
}

/// With `tcp_tw_reuse` a port comes back after a second.
#[test]
fn a_short_hold_takes_a_higher_rate() {
    let reused = Situation { hold: Duration::from_secs(1), ..situation(0, 600, &[]) };
    assert_eq!(reused.at_rate(500.0), Outcome::LevelsOff(500.0));
    assert_eq!(reused.at_rate(1_000.0), Outcome::Exhausted(Duration::from_millis(600)));
}

#[test]
fn three_answers_in_order() {
    let rate = Rate { per_s: 20.0, low: 9.0, high: 30.0, ended_per_s: 20.0, connections: 200, over: HOLD };
    let forecast = forecast(&situation(0, 600, &[]), &rate);
    assert_eq!(forecast.soonest, Outcome::Exhausted(Duration::from_secs(20)));
    assert_eq!(forecast.likely, Outcome::Exhausted(Duration::from_secs(30)));
    assert_eq!(forecast.latest, Outcome::LevelsOff(540.0));
}

/// Connection number k comes after k/rate seconds and keeps its port for the hold. When all ports are in use first.
fn simulate(situation: &Situation<'_>, per_s: f64) -> Option<f64> {
    let hold = situation.hold.as_secs_f64();
    let mut leaves: Vec<f64> = situation.frees.iter().map(Duration::as_secs_f64).collect();
    let mut used = i64::from(situation.used);
    if used >= i64::from(situation.usable) {
        return Some(0.0);
    }
    for number in 1..100_000 {
        let now = f64::from(number) / per_s;
        if now > hold {
            return None;
        }
        let gone = leaves.iter().filter(|&&leave| leave <= now).count();
        leaves.retain(|&leave| leave > now);
        used += 1 - gone as i64;
        leaves.push(now + hold);
        if used >= i64::from(situation.usable) {
            return Some(now);
        }
    }
    None
}

proptest! {
    /// Whole connections cannot be ahead of a steady flow, nor more than one behind it: so with as many ports the
    /// simulation is never sooner, and with one port fewer never later.
    #[test]
    fn the_forecast_is_what_a_simulation_shows(
        frees in prop::collection::vec(0.0_f64..60.0, 0..80),
        live in 0_u32..40,
        room in 1_u32..200,
        per_s in 0.2_f64..20.0,
        hold in prop::sample::select(vec![1.0_f64, 60.0]),
    ) {
        let mut frees = seconds(&frees.iter().map(|free| free * hold / 60.0).collect::<Vec<_>>());
        frees.sort_unstable();
        let used = live + u32::try_from(frees.len()).unwrap();
        let here = Situation { used, usable: used + room, frees: &frees, hold: Duration::from_secs_f64(hold) };
        let fewer = Situation { usable: used + room - 1, ..here };
        let simulated = simulate(&here, per_s);
        match here.at_rate(per_s) {
            Outcome::Exhausted(at) => {
                let at = at.as_secs_f64();
                prop_assert!(simulated.is_none_or(|simulated| at <= simulated + 1e-6), "{at} and {simulated:?}");
                let sooner = simulate(&fewer, per_s);
                prop_assert!(sooner.is_some_and(|sooner| sooner <= at + 1e-6), "{at} and {sooner:?}");
            }
            Outcome::LevelsOff(level) => {
                prop_assert_eq!(simulated, None);
                let expected = f64::from(live) + per_s * hold;
                prop_assert!((level - expected).abs() < 1e-6);
                prop_assert!(level < f64::from(here.usable) + 1e-6);
            }
        }
    }

    #[test]
    fn more_load_is_never_later(
        frees in prop::collection::vec(0_u64..60_000, 0..60),
        room in 0_u32..100,
        (slow, more) in (0.0_f64..20.0, 0.0_f64..20.0),
    ) {
        let mut frees: Vec<_> = frees.into_iter().map(Duration::from_millis).collect();
        frees.sort_unstable();
        let used = u32::try_from(frees.len()).unwrap();
        let here = situation(used, used + room, &frees);
        match (here.at_rate(slow), here.at_rate(slow + more)) {
            (Outcome::Exhausted(late), Outcome::Exhausted(soon)) => prop_assert!(soon <= late),
            (Outcome::Exhausted(_), Outcome::LevelsOff(_)) => prop_assert!(false, "more load, and it lasts"),
            _ => {}
        }
    }
}
