//! Windows and the minutes they make.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    history::tests::{LIMITS, THREE, at, finding, process, window},
    report::{Report, Severity},
};

fn row<'minute>(minute: &'minute Minute, comm: &str) -> &'minute ProcessMinute {
    let is_it = |it: &&ProcessMinute| matches!(&it.who, Who::Known(identity) if identity.comm.as_str() == comm);
    minute.processes.iter().find(is_it).unwrap()
}

#[test]
fn a_minute_has_sums_of_what_happened_and_the_most_of_what_was_there() {
    let mut rollup = Rollup::new(LIMITS);
    assert!(rollup.take_in(&window(&[("a", 1, 10, 3), ("b", 2, 1, 1)]), at(THREE + 10)).is_none());
    assert!(rollup.take_in(&window(&[("a", 1, 30, 4)]), at(THREE + 20)).is_none());
    assert!(rollup.take_in(&window(&[("a", 9, 20, 5)]), at(THREE + 60)).is_none());
    let minute = rollup.take_in(&window(&[]), at(THREE + 70)).unwrap();
    assert_eq!((minute.start, minute.windows, minute.observed_ms), (THREE, 3, 30_000));
    assert_eq!((minute.host.time_wait, minute.host.entered, minute.host.events_received), (30, 13, 21));
    let a = row(&minute, "a");
    assert_eq!((a.pid, a.figures.sockets, a.figures.entered, a.processes), (9, 30, 12, 1));
    assert_eq!(row(&minute, "b").figures.sockets, 1);
    assert_eq!(rollup.finish().unwrap().start, THREE + 60);
    assert!(rollup.finish().is_none());
}

#[test]
fn workers_of_one_service_are_one_row() {
    let mut rollup = Rollup::new(LIMITS);
    rollup.take_in(&window(&[("worker", 1, 10, 1), ("worker", 2, 12, 1), ("worker", 3, 2, 1)]), at(THREE + 10));
    let minute = rollup.finish().unwrap();
    let it = row(&minute, "worker");
    assert_eq!((it.pid, it.processes, it.figures.sockets, it.figures.entered), (2, 3, 24, 3));
}

#[test]
fn a_clock_that_is_set_back_begins_a_minute_of_its_own() {
    let mut rollup = Rollup::new(LIMITS);
    rollup.take_in(&window(&[("a", 1, 10, 3)]), at(THREE + 3_610));
    let first = rollup.take_in(&window(&[("a", 1, 10, 3)]), at(THREE + 10)).unwrap();
    assert_eq!((first.start, rollup.finish().unwrap().start), (THREE + 3_600, THREE));
}

#[test]
fn rows_beyond_the_limit_are_summed_up() {
    let mut rollup = Rollup::new(Limits { processes: 2, destinations: 1 });
    rollup.take_in(
        &window(&[("small", 1, 1, 2), ("busy", 2, 0, 50), ("large", 3, 60, 1), ("tiny", 4, 1, 1)]),
        at(THREE + 10),
    );
    let minute = rollup.finish().unwrap();
    assert_eq!((row(&minute, "large").pid, row(&minute, "busy").pid), (3, 2));
    let others = minute.processes.last().unwrap();
    assert_eq!((minute.processes.len(), &others.who, others.processes), (3, &Who::Others, 2));
    assert_eq!((others.figures.sockets, others.figures.entered), (2, 3));
}

#[test]
fn more_names_than_are_held_are_counted_and_not_lost() {
    let names: Vec<_> = (0..5_000).map(|number| format!("p{number}")).collect();
    let processes: Vec<_> = names.iter().map(|name| (name.as_str(), 1, 1, 2)).collect();
    let mut rollup = Rollup::new(LIMITS);
    rollup.take_in(&window(&processes), at(THREE + 10));
    let minute = rollup.finish().unwrap();
    assert_eq!(minute.processes.len(), LIMITS.processes + 1);
    let entered: u64 = minute.processes.iter().map(|it| it.figures.entered).sum();
    assert_eq!((entered, minute.host.entered), (10_000, 10_000));
    assert_eq!(minute.processes.last().unwrap().processes, 4_900);
}

fn with_finding(pid: u32, sockets: u64, severity: Severity) -> Report {
    let mut report = window(&[("a", pid, sockets, 1)]);
    report.findings = vec![finding("TimeWaitBuildup", process("a", pid), severity, &format!("{sockets} sockets"))];
    report
}

#[test]
fn a_finding_is_one_episode_with_the_evidence_of_its_worst_moment() {
    let mut rollup = Rollup::new(LIMITS);
    rollup.take_in(&with_finding(1, 100, Severity::Warning), at(THREE + 10));
    rollup.take_in(&with_finding(1, 900, Severity::Warning), at(THREE + 20));
    // Restarted, a little less of it, then over.
    rollup.take_in(&with_finding(2, 300, Severity::Warning), at(THREE + 30));
    let minute = rollup.take_in(&window(&[]), at(THREE + 100)).unwrap();
    let [episode] = &minute.findings[..] else { panic!("{:?}", minute.findings) };
    assert_eq!((episode.opened, episode.last_seen), (at(THREE).wall, at(THREE + 30).wall));
    assert_eq!((episode.closed, episode.windows), (None, 3));
    assert_eq!((episode.worst.finding.summary.as_str(), episode.worst.at), ("900 sockets", at(THREE + 20).wall));
    // Severity comes before numbers; 70 s without it are a pause.
    rollup.take_in(&with_finding(2, 5, Severity::Critical), at(THREE + 110));
    let minute = rollup.take_in(&window(&[]), at(THREE + 300)).unwrap();
    assert_eq!(minute.findings[0].worst.finding.summary, "5 sockets");
    assert_eq!(minute.findings[0].opened, at(THREE).wall);
    let closed = rollup.finish().unwrap().findings;
    assert_eq!((closed.len(), closed[0].closed), (1, Some(at(THREE + 300).wall)));
    assert!(rollup.take_in(&window(&[]), at(THREE + 400)).is_none());
    assert_eq!(rollup.finish().unwrap().findings, []);
}

#[test]
fn an_episode_goes_on_over_a_restart_of_the_agent() {
    let mut rollup = Rollup::new(LIMITS);
    rollup.take_in(&with_finding(1, 900, Severity::Warning), at(THREE + 10));
    let earlier = rollup.finish().unwrap().findings;
    for (pause, opened) in [(30, THREE), (3_600, THREE + 3_600)] {
        let mut next = Rollup::new(LIMITS);
        next.take_in(&with_finding(1, 100, Severity::Warning), at(THREE + 10 + pause));
        next.resume(earlier.clone());
        let episodes = next.finish().unwrap().findings;
        let last = episodes.last().unwrap();
        assert_eq!(last.opened, at(opened).wall, "{pause}");
        if pause == 30 {
            assert_eq!((episodes.len(), last.windows, last.worst.weight), (1, 2, 900));
        } else {
            assert_eq!((episodes.len(), episodes[0].closed, last.worst.weight), (2, Some(last.opened), 100));
        }
    }
    // Nothing like it was seen again: it is closed in time.
    let mut next = Rollup::new(LIMITS);
    next.resume(earlier);
    next.take_in(&window(&[]), at(THREE + 400));
    assert!(next.finish().unwrap().findings[0].closed.is_some());
}

#[test]
fn there_is_an_end_to_findings() {
    let mut report = window(&[]);
    for number in 0..1_000 {
        report.findings.push(finding("BindConflict", process(&format!("p{number}"), 1), Severity::Info, "x"));
    }
    let mut rollup = Rollup::new(LIMITS);
    rollup.take_in(&report, at(THREE + 10));
    let minute = rollup.finish().unwrap();
    assert_eq!((minute.findings.len(), minute.findings_omitted), (512, 488));
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

type Window = Vec<(usize, u64, u64)>;

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let process = (0..NAMES.len(), 0_u64..50, 0_u64..50);
    prop::collection::vec(prop::collection::vec(process, 0..8), 1..7)
}

fn made(window_of: &Window) -> Report {
    let processes: Vec<_> =
        window_of.iter().map(|&(name, sockets, entered)| (NAMES[name], 1, sockets, entered)).collect();
    window(&processes)
}

/// By name: the most sockets, the sum of what entered.
fn figures<'minute>(minutes: impl IntoIterator<Item = &'minute Minute>) -> BTreeMap<String, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for it in minutes.into_iter().flat_map(|minute| &minute.processes) {
        let name = match &it.who {
            Who::Known(identity) => identity.comm.to_string(),
            Who::Unknown | Who::Others => "others".to_owned(),
        };
        let (sockets, entered): &mut (u64, u64) = sums.entry(name).or_default();
        *sockets = (*sockets).max(it.figures.sockets);
        *entered += it.figures.entered;
    }
    sums
}

proptest! {
    /// The minute is what a recount of its windows gives, and the same whether it was written in one piece or, because the
    /// agent was restarted, in several.
    #[test]
    fn a_minute_is_the_sum_of_its_windows_however_it_is_split(windows in windows(), cuts in prop::collection::vec(any::<bool>(), 6)) {
        let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for window in &windows {
            let mut now: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
            for &(name, sockets, entered) in window {
                let it = now.entry(name).or_default();
                *it = (it.0 + sockets, it.1 + entered);
            }
            for (name, (sockets, entered)) in now {
                let it = expected.entry(NAMES[name].to_owned()).or_default();
                *it = (it.0.max(sockets), it.1 + entered);
            }
        }
        let (mut whole, mut pieces) = (Rollup::new(LIMITS), Rollup::new(LIMITS));
        let mut split = Vec::new();
        for ((window, number), cut) in windows.iter().zip(1..).zip(cuts) {
            let (report, moment) = (made(window), at(THREE + number * 10));
            prop_assert_eq!(whole.take_in(&report, moment), None);
            prop_assert_eq!(pieces.take_in(&report, moment), None);
            if cut {
                split.extend(pieces.finish());
            }
        }
        split.extend(pieces.finish());
        let whole = whole.finish().unwrap();
        prop_assert_eq!(&figures([&whole]), &expected);
        prop_assert_eq!(&figures(&split), &expected);
        prop_assert_eq!(split.iter().map(|it| it.windows).sum::<u32>(), whole.windows);
        prop_assert_eq!(split.iter().map(|it| it.host.entered).sum::<u64>(), whole.host.entered);
        prop_assert_eq!(split.iter().map(|it| it.host.time_wait).max(), Some(whole.host.time_wait));
    }

    /// Whatever the limit: nothing that entered is lost, and what is kept is what has most.
    #[test]
    fn limits_lose_nothing(windows in windows(), limit in 1_usize..6) {
        let (mut limited, mut free) =
            (Rollup::new(Limits { processes: limit, destinations: 1 }), Rollup::new(LIMITS));
        for (window, number) in windows.iter().zip(1..) {
            limited.take_in(&made(window), at(THREE + number * 10));
            free.take_in(&made(window), at(THREE + number * 10));
        }
        let (limited, free) = (limited.finish().unwrap(), free.finish().unwrap());
        let (kept, all) = (figures([&limited]), figures([&free]));
        let entered = |sums: &BTreeMap<String, (u64, u64)>| sums.values().map(|it| it.1).sum::<u64>();
        prop_assert_eq!(entered(&kept), entered(&all));
        prop_assert!(limited.processes.len() <= limit + 1);
        for (name, figures) in kept.iter().filter(|(name, _)| *name != "others") {
            prop_assert_eq!(figures, &all[name]);
        }
        let rest = all.iter().filter(|(name, _)| !kept.contains_key(*name)).map(|(_, it)| it.0.max(it.1)).max();
        let least = kept.iter().filter(|(name, _)| *name != "others").map(|(_, it)| it.0.max(it.1)).min();
        prop_assert!(rest.unwrap_or(0) <= least.unwrap_or(u64::MAX));
    }
}
