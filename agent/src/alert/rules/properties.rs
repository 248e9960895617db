//! What holds for any rounds, with a restart anywhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    tests::{at, exhausted, settings},
    *,
};

/// Which of four problems a round has, how bad each is, and how many seconds it is after the one before.
fn rounds() -> impl Strategy<Value = Vec<(u8, bool, u64)>> {
    prop::collection::vec((0_u8..16, any::<bool>(), prop::sample::select(vec![1, 10, 10, 10, 35, 130])), 1..80)
}

fn findings(which: u8, is_critical: bool) -> Vec<Finding> {
    let there = (0..4).filter(|bit| which & (1 << bit) != 0);
    there
        .map(|bit| {
            let severity = if is_critical { Severity::Critical } else { Severity::Warning };
            Finding { severity, ..exhausted("crawler", u32::from(which) + 1, &format!("10.0.0.{bit}:80")) }
        })
        .collect()
}

proptest! {
    #[test]
    fn whoever_is_told_that_it_fires_is_told_that_it_is_over_before_it_fires_again(rounds in rounds()) {
        let (mut rules, settings) = (Rules::default(), settings());
        let mut told = BTreeMap::<String, bool>::new();
        let mut now = 0;
        for (which, is_critical, step) in rounds {
            now += step;
            let round = rules.round(at(now), &findings(which, is_critical), &settings);
            for transition in &round.transitions {
                let alert = &transition.alert;
                let remote = alert.identity.remote.clone().unwrap();
                let is_told = told.get(&remote).copied().unwrap_or_default();
                match transition.change {
                    Change::Fired => {
                        prop_assert!(!is_told, "fires twice");
                        prop_assert!(at(now).since(alert.started_at) >= settings.hold, "fires before its hold");
                        prop_assert_eq!(alert.last_seen, at(now), "fires while it is not there");
                    }
                    Change::Worsened | Change::Repeated => prop_assert!(is_told, "repeats what was never told"),
                    Change::Resolved => {
                        prop_assert!(is_told, "is over and was never told");
                        let ended_at = alert.ended_at.unwrap();
                        prop_assert!(at(now).since(ended_at) >= settings.resolve_after, "over too soon");
                        prop_assert!(ended_at > alert.last_seen);
                    }
                }
                told.insert(remote, transition.change != Change::Resolved);
            }
            let firing = told.values().filter(|is_told| **is_told).count();
            prop_assert_eq!(round.firing.len(), firing);
            prop_assert!(round.firing.len() <= settings.max_active + 1);
        }
    }

    #[test]
    fn a_restart_anywhere_tells_nothing_twice(rounds in rounds(), restart in any::<prop::sample::Index>()) {
        let settings = settings();
        let restart = restart.index(rounds.len());
        let mut rules = Rules::default();
        let mut fires = BTreeMap::<String, i32>::new();
        let mut now = 0;
        for (number, (which, is_critical, step)) in rounds.into_iter().enumerate() {
            if number == restart {
                let bytes = serde_json::to_vec(&rules).unwrap();
                let loaded: Rules = serde_json::from_slice(&bytes).unwrap();
                prop_assert_eq!(&loaded, &rules, "everything is saved");
                rules = loaded;
                rules.resume();
            }
            now += step;
            for transition in rules.round(at(now), &findings(which, is_critical), &settings).transitions {
                let balance = fires.entry(transition.alert.identity.remote.clone().unwrap()).or_default();
                match transition.change {
                    Change::Fired => *balance += 1,
                    Change::Resolved => *balance -= 1,
                    Change::Worsened | Change::Repeated => {}
                }
                prop_assert!((0..=1).contains(balance), "{balance} at {now}");
            }
        }
    }

    #[test]
    fn any_rounds_with_a_clock_that_jumps_stay_within_bounds(rounds in prop::collection::vec((0_u64..50_000, 0_u8..40), 1..60)) {
        let mut settings = settings();
        settings.hold = Duration::ZERO;
        let mut rules = Rules::default();
        for (second, count) in rounds {
            let findings: Vec<_> = (0..count).map(|host| exhausted("scanner", 7, &format!("10.0.0.{host}:80"))).collect();
            let round = rules.round(at(second), &findings, &settings);
            let (pending, firing) = rules.counts();
            prop_assert!(pending + firing <= settings.max_active + 1);
            prop_assert!(round.overflowed <= usize::from(count));
            for (_, alert) in &round.firing {
                prop_assert!(alert.started_at <= alert.last_seen && alert.last_seen <= at(second));
            }
        }
    }
}
