use std::time::Duration;

use super::*;
use crate::{
    model::{Name, Netns},
    report::ProcessInfo,
};

/// Seconds into a day in May.
pub(in crate::alert) fn at(seconds: u64) -> Moment {
    Moment("2026-05-09T03:00:00Z".parse().unwrap()).plus(Duration::from_secs(seconds))
}

/// Somebody is out of ports towards an address.
pub(in crate::alert) fn exhausted(process: &str, pid: u32, remote: &str) -> Finding {
    Finding {
        id: "EphemeralPortExhaustion".to_owned(),
        severity: Severity::Critical,
        summary: format!("{process}[{pid}] cannot connect to {remote}: no ephemeral port is free towards it"),
        process: Some(ProcessInfo {
            pid,
            comm: Name::from(process),
            exe: Some(Name::from("/usr/bin/crawler")),
            unit: Some(Name::from(format!("{process}.service").as_str())),
            netns: Some(Netns(4_026_531_840)),
            ..ProcessInfo::default()
        }),
        netns: Some(Netns(4_026_531_840)),
        remote: Some(remote.to_owned()),
        cause: "connect() wants a port that no connection has".to_owned(),
        evidence: vec![
            format!("connect() to {remote} failed 16 times with EADDRNOTAVAIL"),
            "in use: 64 of 64".to_owned(),
        ],
        remedy: vec!["keep connections open and use them again".to_owned(), "or more ports".to_owned()],
        avoid: vec!["tcp_fin_timeout: it does not change TIME_WAIT".to_owned()],
        documentation: "docs/findings.md#ephemeralportexhaustion".to_owned(),
        ..Finding::default()
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        minimum_severity: Severity::Warning,
        hold: Duration::from_secs(60),
        hold_of: BTreeMap::new(),
        resolve_after: Duration::from_secs(120),
        repeat: Duration::from_secs(3600),
        max_active: 5,
    }
}

/// What is told in a round, by the word and the process.
fn told(round: &Round) -> Vec<(Change, &str)> {
    round
        .transitions
        .iter()
        .map(|it| (it.change, it.alert.identity.process.as_ref().map_or("", Name::as_str)))
        .collect()
}

/// Has a finding in each round from one second to another, every ten seconds.
fn rounds(rules: &mut Rules, from: u64, to: u64, findings: &[Finding], settings: &Settings) -> Vec<(u64, Change)> {
    let mut all = Vec::new();
    for second in (from..=to).step_by(10) {
        let round = rules.round(at(second), findings, settings);
        all.extend(round.transitions.iter().map(|it| (second, it.change)));
    }
    all
}

#[test]
fn it_fires_once_after_its_hold_and_is_resolved_once_after_it_was_gone() {
    let (mut rules, settings) = (Rules::default(), settings());
    let finding = [exhausted("crawler", 7, "10.0.0.5:6379")];
    assert_eq!(rounds(&mut rules, 0, 300, &finding, &settings), [(60, Change::Fired)]);
    assert_eq!(rounds(&mut rules, 310, 420, &[], &settings), []);
    let round = rules.round(at(430), &[], &settings);
    assert_eq!(told(&round), [(Change::Resolved, "crawler")]);
    let alert = &round.transitions[0].alert;
    assert_eq!((alert.started_at, alert.last_seen, alert.ended_at), (at(0), at(300), Some(at(310))));
    assert!(rules.is_empty());
}

#[test]
fn a_restarted_process_with_other_numbers_is_the_same_alert() {
    let (mut rules, settings) = (Rules::default(), settings());
    rounds(&mut rules, 0, 60, &[exhausted("crawler", 7, "10.0.0.5:6379")], &settings);
    let mut other = exhausted("crawler", 4711, "10.0.0.5:6379");
    other.evidence = vec!["failed 9000 times".to_owned()];
    let round = rules.round(at(70), &[other.clone()], &settings);
    assert_eq!(round.transitions, []);
    assert_eq!(round.firing[0].1.finding, other, "receivers get the numbers of now");
    // Gone before it could be looked up: neither unit nor container is known.
    other.process.as_mut().unwrap().unit = None;
    let round = rules.round(at(80), &[other], &settings);
    assert_eq!((round.transitions.len(), round.firing.len()), (0, 1));
    assert_eq!(round.firing[0].1.identity.unit, Some(Name::from("crawler.service")));
}

#[test]
fn a_short_problem_is_told_to_nobody_and_one_that_comes_and_goes_is_told_once() {
    let (mut rules, settings) = (Rules::default(), settings());
    let finding = [exhausted("crawler", 7, "10.0.0.5:6379")];
    rounds(&mut rules, 0, 50, &finding, &settings);
    assert_eq!(rounds(&mut rules, 60, 600, &[], &settings), []);
    // A service that is started anew every half minute: refused in every third round.
    let mut changes = Vec::new();
    for second in (600..1800).step_by(10) {
        let found: &[Finding] = if second % 30 == 0 { &finding } else { &[] };
        changes.extend(rules.round(at(second), found, &settings).transitions.iter().map(|it| (second, it.change)));
    }
    assert_eq!(changes, [(660, Change::Fired)]);
    // Two that are a minute apart are no problem that holds.
    let mut rules = Rules::default();
    rules.round(at(0), &finding, &settings);
    for second in [10, 20, 30, 40, 50] {
        rules.round(at(second), &[], &settings);
    }
    assert_eq!(rules.round(at(60), &finding, &settings).transitions, []);
}

#[test]
fn what_goes_on_is_repeated_and_what_gets_worse_is_told_after_the_hold() {
    let (mut rules, settings) = (Rules::default(), settings());
    let mut finding = exhausted("crawler", 7, "10.0.0.5:6379");
    finding.severity = Severity::Warning;
    let told = rounds(&mut rules, 0, 7500, &[finding.clone()], &settings);
    assert_eq!(told, [(60, Change::Fired), (3660, Change::Repeated), (7260, Change::Repeated)]);
    finding.severity = Severity::Critical;
    assert_eq!(rounds(&mut rules, 7510, 7560, &[finding.clone()], &settings), []);
    let round = rules.round(at(7570), &[finding.clone()], &settings);
    assert_eq!(
        round.transitions.iter().map(|it| (it.change, it.alert.severity)).collect::<Vec<_>>(),
        [(Change::Worsened, Severity::Critical)]
    );
    // Better again: it stays what it was told as, and below the minimum it counts as gone.
    finding.severity = Severity::Warning;
    assert_eq!(rounds(&mut rules, 7580, 7800, &[finding.clone()], &settings), []);
    assert_eq!(rules.firing()[0].1.severity, Severity::Critical);
    finding.severity = Severity::Info;
    assert_eq!(rounds(&mut rules, 7810, 7930, &[finding], &settings), [(7930, Change::Resolved)]);
}

#[test]
fn a_kind_of_finding_can_have_a_hold_of_its_own() {
    let mut settings = settings();
    settings.hold_of.insert("EphemeralPortExhaustion".to_owned(), Duration::ZERO);
    let mut rules = Rules::default();
    let round = rules.round(at(0), &[exhausted("crawler", 7, "10.0.0.5:6379")], &settings);
    assert_eq!(told(&round), [(Change::Fired, "crawler")]);
}

#[test]
fn a_restart_is_silent_and_time_in_which_nobody_looked_proves_nothing() {
    let settings = settings();
    let finding = [exhausted("crawler", 7, "10.0.0.5:6379")];
    let restarted = |rules: &Rules| {
        let mut rules: Rules = serde_json::from_slice(&serde_json::to_vec(rules).unwrap()).unwrap();
        rules.resume();
        rules
    };
    let mut rules = Rules::default();
    rounds(&mut rules, 0, 40, &finding, &settings);
    // The hold goes on over a short restart.
    let mut rules = restarted(&rules);
    assert_eq!(rounds(&mut rules, 60, 100, &finding, &settings), [(60, Change::Fired)]);
    // It was missing in one round, then the agent was away for an hour.
    rules.round(at(110), &[], &settings);
    let mut gone = restarted(&rules);
    assert_eq!(rounds(&mut gone, 3710, 3820, &[], &settings), []);
    assert_eq!(rounds(&mut gone, 3830, 3900, &[], &settings), [(3830, Change::Resolved)]);
    let mut there = restarted(&rules);
    assert_eq!(rounds(&mut there, 3500, 3600, &finding, &settings), [], "it fires, as was told");
    // The hold of one that was seen an hour ago begins again.
    let mut rules = Rules::default();
    rounds(&mut rules, 0, 40, &finding, &settings);
    assert_eq!(rounds(&mut restarted(&rules), 3600, 3700, &finding, &settings), [(3660, Change::Fired)]);
}

#[test]
fn one_problem_of_many_processes_is_one_alert_that_names_them() {
    let mut settings = settings();
    settings.hold = Duration::ZERO;
    let mut findings: Vec<_> = (1..=6).map(|pid| exhausted("worker", pid, "10.0.0.5:6379")).collect();
    findings[0].severity = Severity::Warning;
    let round = Rules::default().round(at(0), &findings, &settings);
    assert_eq!(told(&round), [(Change::Fired, "worker")]);
    let alert = &round.transitions[0].alert;
    assert_eq!((alert.severity, alert.finding.process.as_ref().unwrap().pid), (Severity::Critical, 2), "the worst");
    assert_eq!((alert.others, alert.also.len()), (5, 3));
    assert!(alert.also[0].starts_with("worker[1] ") && alert.also[1].starts_with("worker[3] "), "{:?}", alert.also);
}

#[test]
fn more_problems_than_are_allowed_are_counted_and_told() {
    let mut settings = settings();
    settings.hold = Duration::ZERO;
    let remotes = |range: std::ops::Range<u32>| -> Vec<Finding> {
        range.map(|host| exhausted("scanner", 7, &format!("10.0.0.{host}:80"))).collect()
    };
    let mut rules = Rules::default();
    let round = rules.round(at(0), &remotes(0..20), &settings);
    assert_eq!((round.overflowed, round.firing.len()), (15, 6));
    let overflow = round.firing.iter().find(|(_, alert)| alert.identity.finding == OVERFLOW_ID).unwrap();
    assert_eq!(
        overflow.1.finding.summary,
        "15 more problems than the 5 alerts that are allowed at a time: nobody is told of them"
    );
    assert_eq!(overflow.1.finding.evidence, ["left out in the last round: 15 EphemeralPortExhaustion"]);
    // The next round has fewer, and in the end that is told, too.
    let changes = rounds(&mut rules, 10, 130, &remotes(0..5), &settings);
    assert_eq!(changes, [(130, Change::Resolved)]);
}

#[test]
fn what_is_worse_takes_the_place_of_what_is_not_told_yet() {
    let settings = settings();
    let mut lesser: Vec<_> = (0..5).map(|host| exhausted("scanner", 7, &format!("10.0.0.{host}:80"))).collect();
    lesser.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
    let mut rules = Rules::default();
    assert_eq!(rules.round(at(0), &lesser, &settings).overflowed, 0);
    let mut all = vec![exhausted("crawler", 8, "10.0.0.9:80")];
    all.extend(lesser);
    assert_eq!(rules.round(at(10), &all, &settings).overflowed, 1);
    rounds(&mut rules, 20, 70, &all, &settings);
    let firing = rules.firing();
    assert!(firing.iter().any(|(_, alert)| alert.identity.process == Some(Name::from("crawler"))), "{firing:?}");
}

#[test]
fn a_clock_that_is_set_back_changes_no_length_of_time() {
    let (mut rules, settings) = (Rules::default(), settings());
    let finding = [exhausted("crawler", 7, "10.0.0.5:6379")];
    rounds(&mut rules, 7200, 7230, &finding, &settings);
    assert_eq!(rounds(&mut rules, 0, 60, &finding, &settings), [(30, Change::Fired)]);
}
