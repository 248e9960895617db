//! The history when things go wrong around it: killed amid writes, and on a disk that is full.
//!
//! The binary starts itself: as the process that is killed, and as one in a mount namespace of its own with a tiny disk.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed: clippy.toml allows it in tests, but does not know this harness"
)]

mod history_reports;

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use firstfin::{
    history::{Config, Filter, History, Question, Reader, Stats},
    report::Report,
};
use history_reports::{add, process, quiet};
use jiff::Timestamp;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount},
    thread::{UnshareFlags, unshare_unsafe},
};

/// 2026-05-09 00:00 UTC, Unix seconds.
const MIDNIGHT: i64 = 1_778_284_800;
const KILLS: u32 = 50;
/// The exit status of a child that could not do what it was started for.
const SKIPPED: i32 = 77;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    let words: Vec<_> = arguments.iter().skip(1).map(String::as_str).collect();
    match words[..] {
        ["write-until-killed", database, start] => write_until_killed(Path::new(database), start.parse().unwrap()),
        ["fill-a-disk", disk] => return in_a_namespace(|| fill_a_disk(Path::new(disk))),
        ["read-only", disk] => return in_a_namespace(|| may_not_write(Path::new(disk))),
        _ => {}
    }
    let tests = vec![
        Trial::test("history_survives_fifty_kills", || {
            survives_kills();
            Ok(())
        }),
        Trial::ignorable_test("history_lives_on_a_full_disk", || {
            in_a_child("history_lives_on_a_full_disk", "fill-a-disk")
        }),
        Trial::ignorable_test("history_says_that_it_may_not_write", || {
            in_a_child("history_says_that_it_may_not_write", "read-only")
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn config(path: &Path) -> Config {
    Config { path: path.to_path_buf(), ..Config::default() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A window of a busy host, in which other processes are busy each minute.
fn busy(minute: i64) -> Report {
    let mut report = quiet();
    for number in 0..80 {
        let name = format!("worker-{}", (minute + number) % 200);
        let to = format!("10.0.{}.{number}:443", minute % 100);
        add(&mut report, process(&name, 7, "work.service"), 10 + u64::try_from(number).unwrap(), 3, &to);
    }
    report
}

/// A folder of one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn this_program(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(words).stdin(Stdio::null());
    command
}

/// The child: writes one minute after the other, and says of each that it was written.
fn write_until_killed(database: &Path, start: i64) -> ! {
    let history = History::start(&config(database)).unwrap();
    let mut out = io::stdout().lock();
    for number in 0.. {
        let minute = start + number * 60;
        history.take_in(&busy(minute / 60), at(minute + 10));
        if number == 0 {
            continue;
        }
        loop {
            let stats = history.stats();
            assert_eq!(stats.last_error, None);
            if stats.minutes_written >= u64::try_from(number).unwrap() {
                break;
            }
            thread::sleep(Duration::from_micros(200));
        }
        writeln!(out, "{}", minute - 60).unwrap();
        out.flush().unwrap();
    }
    unreachable!("it is killed before that")
}

fn survives_kills() {
    let folder = folder("history-kills");
    let database = folder.join("history.db");
    let mut start = MIDNIGHT;
    let mut written = 0;
    for round in 0..KILLS {
        let mut child = this_program(&["write-until-killed", database.to_str().unwrap(), &start.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let reading = thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).last());
        thread::sleep(random(Duration::from_millis(5)..Duration::from_millis(180)));
        if written > 0 {
            // Somebody looks while it is written.
            let seen = minutes_from(&database, start - 600);
            assert!(seen.first().is_some_and(|&first| first < start), "round {round}: {seen:?}");
        }
        // SIGKILL
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = reading.join().unwrap().map(|minute| minute.parse::<i64>().unwrap());

        if !database.exists() {
            assert_eq!(acknowledged, None, "round {round}: minutes without a database");
            continue;
        }
        // It opens, whatever state it was left in, and is the same one.
        let history = History::start(&config(&database)).unwrap();
        let stats = history.stop(Duration::from_secs(20));
        assert_eq!((stats.last_error.as_deref(), stats.set_aside), (None, 0), "round {round}");
        let minutes = minutes_from(&database, start);
        let expected: Vec<_> = (start..).step_by(60).take(minutes.len()).collect();
        assert_eq!(minutes, expected, "round {round}: minutes are missing or there twice");
        let last = minutes.last().copied().unwrap_or(start - 60);
        let acknowledged = acknowledged.unwrap_or(start - 60);
        assert!(last >= acknowledged, "round {round}: {acknowledged} was written, and {last} is the last one");
        // What was in the rollup when it was killed.
        assert!(last <= acknowledged + 60, "round {round}: {last} after {acknowledged}");
        written += minutes.len();
        start = last + 60;
    }
    assert!(written > 100, "only {written} minutes in {KILLS} rounds: it was killed before it wrote");
    assert_eq!(minutes_from(&database, MIDNIGHT).len(), written);
    let aside: Vec<_> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(aside.iter().all(|name| !name.to_string_lossy().contains("damaged")), "{aside:?}");
}

/// Different enough from run to run; what it was stands in the message of a failure.
fn random(range: std::ops::Range<Duration>) -> Duration {
    let nanoseconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let share = f64::from(nanoseconds.wrapping_mul(2_654_435_761) >> 8) / f64::from(1_u32 << 24);
    range.start + (range.end - range.start).mul_f64(share)
}

/// Minutes that are recorded completely, from one on.
fn minutes_from(database: &Path, since: i64) -> Vec<i64> {
    let question = Question {
        since: at(since),
        until: at(MIDNIGHT + 100 * 86_400),
        filter: Filter::default(),
        by_minute: false,
        top: 10,
    };
    let reader = Reader::open(database).unwrap();
    let mut rows: Vec<(i64, usize)> = Vec::new();
    for row in reader.process_rows(&question).unwrap() {
        match rows.last_mut() {
            Some((start, count)) if *start == row.at.0.as_second() => *count += 1,
            _ => rows.push((row.at.0.as_second(), 1)),
        }
    }
    let answer = reader.answer(&question, at(since)).unwrap();
    assert_eq!(answer.period.recorded, u64::try_from(rows.len()).unwrap());
    assert!(rows.iter().all(|(_, count)| *count == 80), "{rows:?}");
    rows.into_iter().map(|(start, _)| start).collect()
}

/// Runs a test as a process that has file systems of its own.
fn in_a_child(test: &str, what: &str) -> Result<Completion, Failed> {
    let disk = folder(test);
    let output = this_program(&[what, disk.to_str().unwrap()]).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) if said.contains("it held") => Ok(Completion::Completed),
        Some(SKIPPED) => {
            println!("SKIP {test}: {}", said.trim());
            Ok(Completion::ignored_with(said.trim()))
        }
        _ => Err(format!("{}: {said}", output.status).into()),
    }
}

/// The child.
fn in_a_namespace(test: impl FnOnce()) -> ExitCode {
    if let Err(why) = enter_a_namespace() {
        println!("{why}");
        return ExitCode::from(u8::try_from(SKIPPED).unwrap());
    }
    test();
    println!("it held");
    ExitCode::SUCCESS
}

/// A disk that is mounted read-only, and later is not.
fn may_not_write(disk: &Path) {
    mount(c"none", disk, c"tmpfs", MountFlags::RDONLY, Some(c"size=4m,mode=0700")).unwrap();
    let history = History::start(&config(&disk.join("history.db"))).unwrap();
    let error = wait_for(&history, |stats| stats.failures > 0).last_error.unwrap();
    assert!(error.contains("history.db: Read-only file system"), "{error}");
    history.take_in(&busy(0), at(MIDNIGHT + 10));
    history.take_in(&busy(1), at(MIDNIGHT + 70));
    let stats = wait_for(&history, |stats| stats.failures > 1);
    assert_eq!((stats.minutes_waiting, stats.minutes_written), (1, 0));
    mount_remount(disk, MountFlags::empty(), c"").unwrap();
    let stats = history.stop(Duration::from_secs(20));
    assert_eq!((stats.minutes_waiting, stats.minutes_written, stats.last_error), (0, 2, None));
    assert_eq!(minutes_from(&disk.join("history.db"), MIDNIGHT), [MIDNIGHT, MIDNIGHT + 60]);
}

/// A disk of 4 MiB, full at first, then with room, then full again.
fn fill_a_disk(disk: &Path) {
    mount(c"none", disk, c"tmpfs", MountFlags::empty(), Some(c"size=4m,mode=0700")).unwrap();
    let ballast = disk.join("ballast");
    fill(&ballast);
    let database = disk.join("history.db");
    let history = History::start(&config(&database)).unwrap();
    let stats = wait_for(&history, |stats| stats.failures > 0);
    assert!(stats.last_error.is_some());
    let mut minute = MIDNIGHT;
    let mut take_in = |history: &History, count: i64| {
        for _ in 0..count {
            let began = Instant::now();
            history.take_in(&busy(minute / 60), at(minute + 10));
            assert!(began.elapsed() < Duration::from_secs(1), "the daemon was kept waiting");
            minute += 60;
        }
        minute
    };
    take_in(&history, 6);
    assert_eq!((history.stats().minutes_waiting, history.stats().minutes_written), (5, 0));

    fs::remove_file(&ballast).unwrap();
    take_in(&history, 1);
    let stats = wait_for(&history, |stats| stats.minutes_waiting == 0 && stats.minutes_written == 6);
    assert_eq!((stats.last_error, stats.minutes_dropped), (None, 0));

    // Amid writes. What the log has room for is written still.
    fill(&ballast);
    let mut rounds = 0;
    while history.stats().last_error.is_none() {
        // Before the minute comes: it may have been written, or not, at the next look.
        let before = history.stats();
        take_in(&history, 1);
        rounds += 1;
        assert!(rounds < 300, "the disk is never full: {before:?}");
        wait_for(&history, |stats| stats.minutes_waiting == 0 || stats.failures > before.failures);
    }
    let error = history.stats().last_error.unwrap();
    assert!(error.contains("full") || error.contains("disk I/O error"), "{error}");
    let written = history.stats().minutes_written;
    take_in(&history, 100);
    let stats = history.stats();
    assert_eq!(stats.minutes_waiting, 60, "{stats:?}");
    assert!(stats.minutes_dropped >= 40, "{stats:?}");

    fs::remove_file(&ballast).unwrap();
    let end = take_in(&history, 1);
    let stats = wait_for(&history, |stats| stats.minutes_waiting == 0 && stats.last_error.is_none());
    assert!(stats.minutes_written >= written + 59, "{stats:?}");
    let stats = history.stop(Duration::from_secs(20));
    assert_eq!((stats.minutes_waiting, stats.last_error), (0, None));
    // What was written is there, and all that was not is counted.
    let minutes = minutes_from(&database, MIDNIGHT);
    assert_eq!(minutes.last(), Some(&(end - 60)));
    let recorded = u64::try_from(minutes.len()).unwrap();
    assert_eq!(recorded, stats.minutes_written);
    assert_eq!(recorded + stats.minutes_dropped, u64::try_from((end - MIDNIGHT) / 60).unwrap());
}

/// From here on only this process sees what it mounts. As root, or where users may make namespaces.
fn enter_a_namespace() -> Result<(), String> {
    let user = fs::metadata("/proc/self").map_err(|error| error.to_string())?;
    let is_root = rustix::process::geteuid().is_root();
    let flags = if is_root { UnshareFlags::NEWNS } else { UnshareFlags::NEWNS | UnshareFlags::NEWUSER };
    // SAFETY: the process has one thread, and no file of a namespace is open.
    unsafe { unshare_unsafe(flags) }.map_err(|error| format!("no mount namespace: {error}"))?;
    if !is_root {
        let map = |file: &str, text: String| fs::write(file, text).map_err(|error| format!("{file}: {error}"));
        map("/proc/self/setgroups", "deny".to_owned())?;
        map("/proc/self/uid_map", format!("0 {} 1", user.uid()))?;
        map("/proc/self/gid_map", format!("0 {} 1", user.gid()))?;
    }
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| format!("no mounts of its own: {error}"))
}

/// Writes until there is no room for a single page.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    for _ in 0..10_000 {
        if let Err(error) = file.write_all(&[0x5a; 4096]) {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
            return;
        }
    }
    panic!("the disk is larger than it should be");
}

fn wait_for(history: &History, is_so: impl Fn(&Stats) -> bool) -> Stats {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let stats = history.stats();
        if is_so(&stats) {
            return stats;
        }
        assert!(Instant::now() < end, "{stats:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
