//! Questions, on a database of a bad night.

use super::{
    super::{EpisodeState, Filter, Question, ReadError, Reader},
    *,
};
use crate::{
    model::{ConnectFailure, Netns},
    report::{ConnectFailures, Destination, Direction, PortUse},
};

pub(super) fn question(since: i64, until: i64) -> Question {
    Question {
        since: Timestamp::from_second(since).unwrap(),
        until: Timestamp::from_second(until).unwrap(),
        filter: Filter::default(),
        by_minute: false,
        top: 10,
    }
}

/// Half an hour with a buildup at 03:12, a gap from 03:20 to 03:25, and a clock set back by an hour after it.
fn night(path: &Path) {
    let mut store = Store::open(path).unwrap();
    let mut rollup = Rollup::new(LIMITS);
    let mut write = |minute: Option<Minute>| {
        if let Some(minute) = minute {
            store.write(&minute, &boot()).unwrap();
        }
    };
    for number in (0..30).filter(|number| !(20..25).contains(number)) {
        let crawler = if number == 12 { 28_000 } else { 100 };
        let mut report = window(&[("crawler", 4242, crawler, 900), ("web", 812, 40, 10)]);
        let to = |remote: &str, sockets| Destination {
            remote: remote.to_owned(),
            local: None,
            direction: Some(Direction::Outbound),
            sockets,
        };
        report.time_wait.by_process[0].destinations = vec![to("10.0.0.2:80", crawler - 50), to("10.0.0.3:80", 50)];
        if (11..14).contains(&number) {
            let summary = format!("crawler[4242] has {crawler} sockets in TIME_WAIT");
            report.findings = vec![finding("TimeWaitBuildup", process("crawler", 4242), Severity::Critical, &summary)];
        }
        if number == 12 {
            report.ports.destinations = vec![route(28_100)];
            report.connect_failures = vec![ConnectFailures {
                process: Some(process("crawler", 4242)),
                remote: "10.0.0.2:80".to_owned(),
                netns: Netns(4_026_531_840),
                cause: ConnectFailure::NoFreePort,
                errno: 99,
                error: "EADDRNOTAVAIL".to_owned(),
                count: 318,
            }];
        }
        let back = if number >= 25 { 3_600 } else { 0 };
        let moment = at(THREE + number * 60 + 40);
        let wall = at(THREE + number * 60 + 40 - back).wall;
        write(rollup.take_in(&report, Moment { wall, ..moment }));
    }
    write(rollup.finish());
}

fn route(used: u64) -> PortUse {
    PortUse {
        netns: Netns(4_026_531_840),
        local: "10.0.0.1".to_owned(),
        remote: "10.0.0.2:80".to_owned(),
        used,
        usable: 28_232,
        peak_used: used,
        live: 0,
        time_wait: used,
        reusable: 0,
        second_choice: 0,
        processes: Vec::new(),
        processes_omitted: 0,
        rate: None,
        forecast: None,
    }
}

#[test]
fn who_built_up_time_wait_at_12_past_3() {
    let folder = Folder::new();
    night(&folder.database());
    let reader = Reader::open(&folder.database()).unwrap();
    let now = at(THREE + 6 * 3_600).wall;
    let answer = reader.answer(&question(THREE + 10 * 60, THREE + 15 * 60), now).unwrap();
    let sum = answer.time_wait.unwrap();
    assert_eq!((sum.peak, sum.peak_at.to_string()), (28_040, "2026-05-09T03:12:00Z".to_owned()));
    assert_eq!((sum.entered, answer.period.recorded, answer.period.gaps.len()), (5 * 910, 5, 0));
    let first = &answer.processes[0];
    assert_eq!((first.process.comm.as_str(), first.pid, first.peak), ("crawler", 4242, 28_000));
    assert_eq!((first.entered, first.minutes), (4_500, 5));
    assert_eq!(answer.destinations[0].remote, "10.0.0.2:80");
    assert_eq!(answer.destinations[0].peak, 27_950);
    assert_eq!((answer.routes[0].peak, answer.routes[0].usable), (28_100, 28_232));
    assert_eq!((answer.failures[0].count, answer.failures[0].first), (318, sum.peak_at));
    assert_eq!(answer.findings.len(), 1);
    let found = &answer.findings[0];
    assert_eq!(found.finding.summary, "crawler[4242] has 28000 sockets in TIME_WAIT");
    assert_eq!((found.windows, found.state), (3, EpisodeState::Over));
    assert_eq!(found.opened.to_string(), "2026-05-09T03:11:30Z");
    assert_eq!(found.last_seen.to_string(), "2026-05-09T03:13:40Z");
    assert_eq!(answer.hosts[0].host.as_str(), "web-1");
}

#[test]
fn filters_leave_what_was_asked_for() {
    let folder = Folder::new();
    night(&folder.database());
    let reader = Reader::open(&folder.database()).unwrap();
    let now = at(THREE + 6 * 3_600).wall;
    let ask = |filter: Filter| {
        let question = Question { filter, by_minute: true, ..question(THREE, THREE + 1_200) };
        reader.answer(&question, now).unwrap()
    };
    let web = ask(Filter { process: Some("web".to_owned()), ..Filter::default() });
    assert_eq!(web.processes.iter().map(|it| it.process.comm.as_str()).collect::<Vec<_>>(), ["web"]);
    assert!(web.findings.is_empty() && web.failures.is_empty() && web.routes.is_empty());
    assert_eq!((web.minutes.len(), web.minutes_omitted, web.minutes[0].sockets), (10, 10, 40));
    let other = super::super::Address { ip: "10.0.0.3".parse().unwrap(), port: None };
    let other = ask(Filter { destination: Some(other), ..Filter::default() });
    assert_eq!(other.destinations.len(), 1);
    assert!(other.processes.is_empty() && other.failures.is_empty());
    let none = ask(Filter { finding: Some("BindConflict".to_owned()), ..Filter::default() });
    assert!(none.findings.is_empty() && !none.processes.is_empty());
    let minutes = ask(Filter::default()).minutes;
    let worst = minutes.iter().max_by_key(|it| it.sockets).unwrap();
    assert_eq!((worst.sockets, worst.largest_sockets), (28_040, 28_000));
    assert_eq!(worst.largest.as_ref().unwrap().comm.as_str(), "crawler");
}

#[test]
fn gaps_and_clocks_that_were_set_are_told() {
    let folder = Folder::new();
    night(&folder.database());
    let reader = Reader::open(&folder.database()).unwrap();
    let answer = reader.answer(&question(THREE - 3_600, THREE + 3_600), at(THREE + 6 * 3_600).wall).unwrap();
    let gaps: Vec<_> = answer.period.gaps.iter().map(|gap| format!("{} {}", gap.since, gap.until)).collect();
    assert_eq!(
        gaps,
        [
            "2026-05-09T02:00:00Z 2026-05-09T02:25:00Z",
            "2026-05-09T02:30:00Z 2026-05-09T03:00:00Z",
            "2026-05-09T03:20:00Z 2026-05-09T04:00:00Z",
        ]
    );
    let jumps: Vec<_> = answer.period.clock_jumps.iter().map(|it| (it.to.to_string(), it.seconds)).collect();
    assert_eq!(jumps, [("2026-05-09T02:25:40Z".to_owned(), -3_600)]);
    assert_eq!(answer.period.recorded, 25);
    // Not yet written is not missing.
    let answer = reader.answer(&question(THREE + 600, THREE + 1_280), at(THREE + 1_280).wall).unwrap();
    assert_eq!(answer.period.gaps, []);
}

#[test]
fn it_is_read_while_it_is_written_and_on_a_copy_that_may_not_be_written() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.database()).unwrap();
    store.write(&minute(THREE, &window(&[("crawler", 7, 5, 9)])), &boot()).unwrap();
    let reader = Reader::open(&folder.database()).unwrap();
    store.write(&minute(THREE + 60, &window(&[("crawler", 7, 6, 9)])), &boot()).unwrap();
    let now = at(THREE + 600).wall;
    let peak = |reader: &Reader| reader.answer(&question(THREE, THREE + 600), now).unwrap().time_wait.unwrap().peak;
    // One moment for all of an answer; the next reader sees the next minute.
    assert_eq!((peak(&reader), peak(&Reader::open(&folder.database()).unwrap())), (5, 6));
    drop((reader, store));

    let copies = folder.path().join("copies");
    fs::create_dir(&copies).unwrap();
    let copy = copies.join("a copy?.db");
    fs::copy(folder.database(), &copy).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&copies, fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(peak(&Reader::open(&copy).unwrap()), 6);
    fs::set_permissions(&copies, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = Folder::new();
    assert!(matches!(Reader::open(&folder.database()), Err(ReadError::Absent { .. })));
    fs::write(folder.database(), "this is no database, and long enough to be taken for one".repeat(20)).unwrap();
    assert!(matches!(Reader::open(&folder.database()), Err(ReadError::NotOurs { .. })));
    fs::write(folder.database(), "").unwrap();
    assert!(matches!(Reader::open(&folder.database()), Err(ReadError::NotOurs { .. })));
    let store = Store::open(&folder.database()).unwrap();
    store.connection.execute_batch("PRAGMA user_version = 4711").unwrap();
    drop(store);
    let error = Reader::open(&folder.database()).unwrap_err();
    assert!(
        error.to_string().ends_with("is of version 4711, this firstfin reads version 1: use the one that wrote it")
    );
}

#[test]
fn answers_are_what_the_schema_says() {
    let folder = Folder::new();
    night(&folder.database());
    let question = Question { by_minute: true, ..question(THREE - 3_600, THREE + 3_600) };
    let answer = Reader::open(&folder.database()).unwrap().answer(&question, at(THREE + 9_000).wall).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(super::super::Answer)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value = serde_json::to_value(&answer).unwrap();
    assert!(validator.is_valid(&value), "{:?}", validator.iter_errors(&value).collect::<Vec<_>>());
    let mut broken = value;
    broken["time_wait"]["peak"] = "many".into();
    assert!(!validator.is_valid(&broken));
}
