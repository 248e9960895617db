//! What goes by age and size, what waits while nothing can be written, and the thread around it.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use jiff::SignedDuration;

use super::{
    super::{Config, History, Reader, Stats, WAITING, retention::SteadyClock, writer::Writer},
    *,
};

/// Many processes, named after a number: other ones each time.
fn crowd(number: i64) -> Report {
    let names: Vec<_> = (0..60).map(|it| format!("process-{number}-{it}")).collect();
    let processes: Vec<_> = names.iter().map(|name| (name.as_str(), 7, 5, 9)).collect();
    window(&processes)
}

#[test]
fn what_is_too_old_goes_and_the_file_shrinks() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.database()).unwrap();
    let day = 86_400;
    for number in 0..100 {
        store.write(&minute(THREE + number * 60, &crowd(number)), &boot()).unwrap();
    }
    let late = THREE + 3 * day;
    store.write(&minute(late, &window(&[("late", 7, 5, 9)])), &boot()).unwrap();
    let before = store.bytes();
    let deleted = store.keep_age(at(late).wall, SignedDuration::from_hours(48)).unwrap();
    assert_eq!(deleted, 100);
    let count = |table: &str| number(&store, &format!("SELECT count(*) FROM {table}"));
    assert_eq!((count("minutes"), count("minute_processes"), count("processes"), count("boots")), (1, 1, 1, 1));
    assert_eq!(number(&store, "PRAGMA freelist_count"), 0);
    assert!(store.bytes() < before / 4, "{} of {before} bytes are left", store.bytes());
    // What is left can still be written to: the dictionaries were not mixed up.
    store.write(&minute(late + 60, &crowd(1)), &boot()).unwrap();
    let known = "SELECT count(*) FROM minute_processes WHERE process NOT IN (SELECT id FROM processes)";
    assert_eq!(number(&store, known), 0);
    assert_eq!(store.keep_age(at(late).wall, SignedDuration::from_hours(48)).unwrap(), 0);
}

#[test]
fn what_is_too_large_loses_its_oldest_and_the_file_shrinks() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.database()).unwrap();
    for number in 0..400 {
        let mut report = crowd(number % 3);
        report.findings =
            vec![finding("TimeWaitBuildup", process("crawler", 7), Severity::Warning, &format!("at {number}"))];
        store.write(&minute(THREE + number * 60, &report), &boot()).unwrap();
    }
    let limit = 300_000;
    assert!(store.bytes() > 2 * limit, "{} bytes: too few to test with", store.bytes());
    assert!(store.keep_size(limit).unwrap() > 100);
    assert!(store.bytes() <= limit, "{} bytes", store.bytes());
    assert!(store.bytes() > limit / 2, "{} bytes: much more went than had to", store.bytes());
    assert_eq!(number(&store, "SELECT max(start_s) FROM minutes"), THREE + 399 * 60);
    let oldest = number(&store, "SELECT min(start_s) FROM minutes");
    assert_eq!(number(&store, "SELECT count(*) FROM minutes"), (THREE + 400 * 60 - oldest) / 60);
    assert!(number(&store, "SELECT min(last_seen_ms) FROM findings") >= oldest * 1_000);
    assert_eq!(store.keep_size(limit).unwrap(), 0);
}

#[test]
fn the_clock_has_to_be_steady_before_age_counts() {
    let mut clock = SteadyClock::default();
    let minute = 60_000;
    for passed in 0..10 {
        assert!(!clock.is_steady(passed * minute, passed * minute));
    }
    assert!(clock.is_steady(10 * minute, 10 * minute + 900));
    // Set ten years ahead: everything would be old.
    let ahead = 3_650 * 86_400_000;
    assert!(!clock.is_steady(ahead + 11 * minute, 11 * minute));
    assert!(!clock.is_steady(12 * minute, 12 * minute));
    assert!(clock.is_steady(22 * minute, 22 * minute));
}

fn config(path: &Path) -> Config {
    Config { path: path.to_path_buf(), ..Config::default() }
}

#[test]
fn a_database_without_room_loses_nothing_that_can_wait() {
    let folder = Folder::new();
    let config = config(&folder.database());
    let mut writer = Writer::default();
    assert!(writer.open(&config, at(THREE).wall, |open| assert!(open.is_empty())));
    writer.limit_pages(Some(40));
    let mut written = 0;
    while writer.write(&minute(THREE + written * 60, &crowd(written)), &boot(), &config) {
        written += 1;
        assert!(written < 100, "the limit does nothing");
    }
    let error = writer.error().unwrap();
    assert!(error.starts_with("write a minute: ") && error.contains("full"), "{error}");
    assert!(!writer.write(&minute(THREE + written * 60, &crowd(written)), &boot(), &config));
    assert_eq!(writer.counts.failures, 2);
    writer.limit_pages(None);
    assert!(writer.write(&minute(THREE + written * 60, &crowd(written)), &boot(), &config));
    assert_eq!(writer.error(), None);
    drop(writer);
    let store = Store::open(&folder.database()).unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM minutes"), written + 1);
    assert_eq!(number(&store, "SELECT count(*) FROM minute_processes"), (written + 1) * 60);
    let unknown = "SELECT count(*) FROM minute_processes WHERE process NOT IN (SELECT id FROM processes)";
    assert_eq!(number(&store, unknown), 0);
}

/// Waits until the thread has come so far.
fn wait_for(history: &History, is_so: impl Fn(&Stats) -> bool) -> Stats {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let stats = history.stats();
        if is_so(&stats) {
            return stats;
        }
        assert!(Instant::now() < end, "{stats:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_thread_writes_minutes_and_the_one_that_goes_on_when_it_is_stopped() {
    let folder = Folder::new();
    let history = History::start(&config(&folder.database())).unwrap();
    for number in 0..13 {
        history.take_in(
            &window(&[("crawler", 7, 100 + number, 10)]),
            at(THREE + 10 + i64::try_from(number).unwrap() * 10).wall,
        );
    }
    let stats = wait_for(&history, |stats| stats.minutes_written == 2);
    assert_eq!((stats.minutes_waiting, stats.minutes_dropped, stats.last_error), (0, 0, None));
    let stats = history.stop(Duration::from_secs(20));
    assert_eq!((stats.minutes_written, stats.minutes_waiting), (3, 0));
    assert!(stats.database_bytes > 10_000, "{stats:?}");
    // Nothing is left in a log.
    assert_eq!(folder.files(), ["history.db"]);
    let store = Store::open(&folder.database()).unwrap();
    assert_eq!(number(&store, "SELECT group_concat(sockets) = '105,111,112' FROM minute_processes"), 1);
    assert_eq!(number(&store, "SELECT sum(entered) FROM minutes"), 130);
    assert_eq!(number(&store, "SELECT count(*) FROM boots WHERE host = 'web-1' AND length(boot_id) = 36"), 1);
}

#[test]
fn a_folder_that_cannot_be_is_said_and_an_hour_waits_for_it() {
    let folder = Folder::new();
    let blocker = folder.path().join("folder");
    fs::write(&blocker, "a file").unwrap();
    let path = blocker.join("history.db");
    let history = History::start(&config(&path)).unwrap();
    let stats = wait_for(&history, |stats| stats.failures > 0);
    assert!(stats.last_error.unwrap().contains(&format!("make the folder {}", blocker.display())));
    let mut report = window(&[("crawler", 7, 5, 9)]);
    report.findings = vec![finding("TimeWaitBuildup", process("crawler", 7), Severity::Warning, "crawler builds up")];
    history.take_in(&report, at(THREE + 10).wall);
    for number in 1..70 {
        history.take_in(&window(&[("crawler", 7, 5, 9)]), at(THREE + number * 60 + 10).wall);
    }
    let stats = history.stats();
    assert_eq!((stats.minutes_waiting, stats.minutes_dropped, stats.minutes_written), (60, 9, 0));
    assert_eq!(stats.minutes_waiting, u64::try_from(WAITING).unwrap());
    fs::remove_file(&blocker).unwrap();
    history.take_in(&window(&[]), at(THREE + 70 * 60 + 10).wall);
    let stats = wait_for(&history, |stats| stats.minutes_waiting == 0);
    assert_eq!((stats.minutes_written, stats.minutes_dropped, stats.last_error), (60, 10, None));
    // The finding was in the first minute, which is lost; it is not.
    let reader = Reader::open(&path).unwrap();
    let answer = reader.answer(&answers::question(THREE, THREE + 7_200), at(THREE + 9_000).wall).unwrap();
    assert_eq!(answer.findings[0].finding.summary, "crawler builds up");
    assert_eq!(history.stop(Duration::from_secs(20)).minutes_waiting, 0);
}

#[test]
fn another_path_a_limit_and_off_are_taken_while_it_runs() {
    let folder = Folder::new();
    let history = History::start(&config(&folder.database())).unwrap();
    history.take_in(&window(&[("crawler", 7, 5, 9), ("web", 8, 1, 1)]), at(THREE + 10).wall);
    let other = folder.path().join("other.db");
    let limits = Config { processes_per_minute: 1, max_size: ByteSize::mb(1), ..config(&other) };
    history.reload(&limits);
    history.take_in(&window(&[]), at(THREE + 70).wall);
    wait_for(&history, |stats| stats.minutes_written == 1);
    history.reload(&Config { enabled: false, ..limits });
    wait_for(&history, |stats| stats.minutes_written == 2);
    history.take_in(&window(&[("unseen", 7, 5, 9)]), at(THREE + 130).wall);
    assert_eq!(history.stop(Duration::from_secs(20)).minutes_written, 2);
    let store = Store::open(&other).unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM processes"), 1);
    assert_eq!(number(&store, "SELECT count(*) FROM minute_processes WHERE process = 0 AND sockets = 1"), 1);
}

#[test]
fn a_database_that_is_deleted_or_damaged_while_it_runs_is_begun_anew() {
    let folder = Folder::new();
    let config = config(&folder.database());
    let mut writer = Writer::default();
    assert!(writer.open(&config, at(THREE).wall, |_| ()));
    assert!(writer.write(&minute(THREE, &crowd(1)), &boot(), &config));
    for name in folder.files() {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert!(writer.open(&config, at(THREE).wall, |_| ()));
    assert!(writer.write(&minute(THREE + 60, &crowd(2)), &boot(), &config));
    drop(writer);
    let store = Store::open(&folder.database()).unwrap();
    assert_eq!(number(&store, "SELECT min(start_s) FROM minutes"), THREE + 60);
}

/// A hundred processes and two hundred destinations each minute are what is kept at most, unless configured otherwise.
#[test]
fn a_day_of_the_busiest_host_takes_little_room() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.database()).unwrap();
    let config = Config::default();
    let mut rollup =
        Rollup::new(Limits { processes: config.processes_per_minute, destinations: config.destinations_per_minute });
    let tenth = 144;
    for number in 0..=tenth {
        // Half of them stay from minute to minute.
        let names: Vec<_> = (0..150).map(|it| format!("worker-{}", if it < 75 { it } else { it + number })).collect();
        let processes: Vec<_> =
            names.iter().zip(100..).map(|(name, count)| (name.as_str(), 4_242, count * 7, count * 3)).collect();
        let mut report = window(&processes);
        for (it, process) in (0_u64..).zip(&mut report.time_wait.by_process) {
            let to = |port| crate::report::Destination {
                remote: format!("10.{}.{}.{it}:{port}", it % 7, number % 250),
                local: None,
                direction: Some(crate::report::Direction::Outbound),
                sockets: process.sockets / 2,
            };
            process.destinations = vec![to(443), to(5_432)];
        }
        if let Some(minute) = rollup.take_in(&report, at(THREE + number * 60 + 10)) {
            assert_eq!((minute.processes.len(), minute.destinations.len()), (101, 201));
            store.write(&minute, &boot()).unwrap();
        }
    }
    assert_eq!(number(&store, "SELECT count(*) FROM minutes"), tenth);
    store.shorten_log().unwrap();
    let day = store.bytes() * 10;
    println!("{day} bytes a day");
    assert!((1_000_000..60_000_000).contains(&day), "{day} bytes a day");
}
