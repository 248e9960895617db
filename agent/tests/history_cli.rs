//! `firstfin history`, the real binary on a database of a bad night: what it prints in each form, and how it refuses.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests may panic as the tests do")]

mod history_reports;

use std::{
    collections::BTreeSet,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use assert_cmd::assert::OutputAssertExt as _;
use firstfin::{
    history::{
        Boot, Store,
        rollup::{Limits, Minute, Moment, Rollup},
    },
    model::{Call, Container, Name, Netns, Reset},
    recording::replay,
    report::{BindFailure, Finding, PortUse, ProcessInfo, Report, Resets, Severity},
};
use history_reports::{add, process, quiet};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// 2026-05-09 03:00 UTC, Unix seconds.
const THREE: i64 = 1_778_295_600;
const HOST: Netns = Netns(4_026_531_840);

fn crawler() -> ProcessInfo {
    process("crawler", 4242, "crawler.service")
}

fn java() -> ProcessInfo {
    let container = Container {
        runtime: Name::from("containerd"),
        id: Name::from("4f3b2a1c9d8e7766554433221100ffeeddccbbaa99887766554433221100ffee"),
        pod_uid: Some(Name::from("0e2d1c8f-7a56-4b1e-9a43-55c1d2e3f405")),
        ..Container::default()
    };
    ProcessInfo { unit: None, container: Some(container), ..process("java", 15_022, "") }
}

/// What the windows of a minute say. At 03:12 the crawler runs out of ports, and a deployment meets a port that is taken.
fn window(minute: i64) -> Report {
    let mut report = quiet();
    let sockets = match minute {
        11 => 12_000,
        12 => 28_230,
        13 => 20_000,
        _ => 90,
    };
    add(&mut report, crawler(), sockets, sockets / 6, "10.0.0.2:80");
    add(&mut report, java(), 206, 30, "10.0.0.7:5432");
    report.time_wait.unattributed = 4;
    report.time_wait.unattributed_reasons.kernel_thread = 4;
    if (11..14).contains(&minute) {
        report.findings.push(Finding {
            id: "EphemeralPortExhaustion".to_owned(),
            severity: if minute == 12 { Severity::Critical } else { Severity::Warning },
            summary: format!("crawler[4242] cannot connect to 10.0.0.2:80: {sockets} of 28232 ports are in TIME_WAIT"),
            process: Some(crawler()),
            netns: Some(HOST),
            remote: Some("10.0.0.2:80".to_owned()),
            evidence: vec![
                "connect() to 10.0.0.2:80 failed 318 times with EADDRNOTAVAIL".to_owned(),
                format!("crawler[4242] holds {sockets} ports in TIME_WAIT"),
            ],
            remedy: vec!["keep connections open and use them again".to_owned()],
            avoid: vec!["lowering tcp_fin_timeout: it has nothing to do with TIME_WAIT".to_owned()],
            ..Finding::default()
        });
        report.ports.destinations.push(PortUse {
            netns: HOST,
            local: "10.0.0.1".to_owned(),
            remote: "10.0.0.2:80".to_owned(),
            used: sockets,
            usable: 28_232,
            peak_used: sockets,
            live: 0,
            time_wait: sockets,
            reusable: 0,
            second_choice: 0,
            processes: Vec::new(),
            processes_omitted: 0,
            rate: None,
            forecast: None,
        });
    }
    if minute == 12 {
        report.bind_failures.push(bind_failure());
        report.resets.push(Resets {
            process: None,
            remote: "10.0.0.9".to_owned(),
            local: None,
            netns: HOST,
            kind: Reset::LingerZero,
            count: 17,
        });
    }
    report
}

fn bind_failure() -> BindFailure {
    serde_json::from_value(serde_json::json!({
        "process": process("shop-web", 900, "shop.service"),
        "call": Call::Bind, "local": "0.0.0.0:8080", "netns": HOST, "errno": 98, "error": "EADDRINUSE",
        "options": {"reuse_address": true, "reuse_port": false, "v6_only": false},
        "count": 5, "over_s": 0.8, "processes": 1, "holders": [], "holders_omitted": 0, "holders_unknown": null,
    }))
    .expect("a refused bind()")
}

/// Twenty minutes from 03:00 on, without 03:05 to 03:08.
fn database(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-cli-{test}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("history.db");
    let mut store = Store::open(&path).unwrap();
    let boot = Boot {
        boot_id: "0e2d1c8f".to_owned(),
        host: Name::from("web-1"),
        kernel: Name::from("6.18.44"),
        version: "0.1.0".to_owned(),
    };
    let mut rollup = Rollup::new(Limits { processes: 10, destinations: 10 });
    let mut write = |minute: Option<Minute>| {
        if let Some(minute) = minute {
            store.write(&minute, &boot).unwrap();
        }
    };
    for minute in (0..20).filter(|minute| !(5..8).contains(minute)) {
        for part in 1..=6 {
            let second = THREE + minute * 60 + part * 10;
            let at = Moment { wall: Timestamp::from_second(second).unwrap(), boottime_ms: (second - THREE) * 1_000 };
            write(rollup.take_in(&window(minute), at));
        }
    }
    write(rollup.finish());
    path
}

fn history(database: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstfin"));
    command.arg("history").args(arguments.split_whitespace()).arg("--database").arg(database);
    command.env("TZ", "UTC").env_remove("RUST_LOG").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

fn stdout(command: &mut Command) -> String {
    let output = command.assert().success().get_output().clone();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

fn refusal(command: &mut Command) -> String {
    let output = command.assert().code(2).get_output().clone();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    String::from_utf8(output.stderr).unwrap()
}

/// A real session: what `firstfin demo` recorded.
#[test]
fn the_session_of_the_demo() {
    let path = database("demo").with_file_name("demo.db");
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/demo.jsonl");
    let report = replay(BufReader::new(fs::File::open(recording).unwrap())).unwrap();
    let started: Timestamp = report.session.started_at.parse().unwrap();
    let wall = started + SignedDuration::from_secs_f64(report.session.duration_s);
    let mut rollup = Rollup::new(Limits { processes: 100, destinations: 200 });
    rollup.take_in(&report, Moment { wall, boottime_ms: 1_000_000 });
    let boot = Boot { host: report.host.name.clone(), ..Boot::default() };
    Store::open(&path).unwrap().write(&rollup.finish().unwrap(), &boot).unwrap();
    let arguments = format!("--at {started} --top 3");
    insta::assert_snapshot!(stdout(&mut history(&path, &arguments)));
}

const NIGHT: &str = "--since 2026-05-09T03:00:00Z --until 2026-05-09T03:20:00Z";

#[test]
fn who_built_up_time_wait_at_12_past_3() {
    let database = database("at");
    insta::assert_snapshot!(stdout(&mut history(&database, "--at 2026-05-09T03:12:00Z")));
}

#[test]
fn the_whole_night_by_minute_and_by_destination() {
    let database = database("night");
    insta::assert_snapshot!("by_minute", stdout(&mut history(&database, &format!("{NIGHT} --by minute --top 3"))));
    let by_destination = stdout(&mut history(&database, &format!("{NIGHT} --by destination")));
    assert!(by_destination.find("Destinations").unwrap() < by_destination.find("Processes").unwrap());
}

#[test]
fn the_document_as_scripts_see_it() {
    let database = database("json");
    insta::assert_snapshot!(stdout(&mut history(&database, "--at 2026-05-09T03:12:00Z --format json --by minute")));
}

#[test]
fn lines_for_a_spreadsheet() {
    let database = database("csv");
    for by in ["process", "destination", "minute"] {
        let arguments = format!("--at 2026-05-09T03:12:00Z --format csv --by {by}");
        insta::assert_snapshot!(format!("csv_by_{by}"), stdout(&mut history(&database, &arguments)));
    }
}

#[test]
fn filters_leave_what_was_asked_for() {
    let database = database("filters");
    let ask = |filter: &str| -> Value {
        serde_json::from_str(&stdout(&mut history(&database, &format!("{NIGHT} --format json {filter}")))).unwrap()
    };
    let names = |answer: &Value| {
        let all = answer["processes"].as_array().unwrap().iter();
        all.map(|it| it["process"]["comm"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&ask("--process java")), ["java"]);
    assert_eq!(names(&ask("--unit crawler")), ["crawler"]);
    assert_eq!(names(&ask("--container 4f3b2a1c9d8e")), ["java"]);
    assert_eq!(names(&ask("--process nginx")), Vec::<String>::new());
    let to = ask("--destination 10.0.0.7");
    assert_eq!(to["destinations"].as_array().unwrap().len(), 1);
    assert_eq!(to["destinations"][0]["remote"], "10.0.0.7:5432");
    let found = ask("--finding ephemeralportexhaustion --process crawler");
    assert_eq!(found["findings"][0]["finding"]["remote"], "10.0.0.2:80");
    assert_eq!(ask("--finding BindConflict")["findings"].as_array().unwrap().len(), 0);
}

#[test]
fn a_time_of_which_nothing_is_known_is_no_failure() {
    let database = database("empty");
    insta::assert_snapshot!(stdout(&mut history(&database, "--since 2026-05-08 --until 2026-05-09")));
}

#[test]
fn local_times_are_those_of_the_zone_which_is_printed() {
    let database = database("zone");
    let arguments = "--since 2026-05-09T05:12 --until 2026-05-09T05:13";
    let text = stdout(history(&database, arguments).env("TZ", "<+02>-2"));
    assert!(text.starts_with("firstfin history of web-1: 2026-05-09 05:12:00 to 05:13:00"), "{text}");
    assert!(text.contains("28436 timewait sockets, at 05:12"), "{text}");
    assert!(text.lines().next().unwrap().ends_with("05:13:00 +02, 1 minute recorded"), "{text}");
}

#[test]
fn what_cannot_be_is_refused_with_what_would_do() {
    let database = database("refusals");
    for (arguments, hint) in [
        ("--since soon", "yesterday 22:00"),
        ("--since 2026-05-09 --until 2026-05-08", "ends before it begins"),
        ("--at 03:12 --since 2h", "cannot be used with"),
        ("--destination db.example", "10.0.0.2:5432"),
        ("--finding Slow", "BindConflict"),
        ("--by pid", "process, destination, minute"),
        ("--format xml", "text, json, csv"),
    ] {
        let said = refusal(&mut history(&database, arguments));
        assert!(said.contains(hint), "{arguments}: {said}");
    }
}

#[test]
fn a_history_that_cannot_be_used_is_named() {
    let folder = database("unusable");
    let folder = folder.parent().unwrap();
    let said = refusal(&mut history(&folder.join("absent.db"), ""));
    assert!(said.contains("absent.db: `firstfin serve` keeps one"), "{said}");
    fs::write(folder.join("text.db"), "some text".repeat(1_000)).unwrap();
    let said = refusal(&mut history(&folder.join("text.db"), ""));
    assert!(said.contains("text.db is no history of firstfin's"), "{said}");
    let mut damaged = fs::read(folder.join("history.db")).unwrap();
    damaged[100..4096].fill(0xa5);
    fs::write(folder.join("damaged.db"), damaged).unwrap();
    let said = refusal(&mut history(&folder.join("damaged.db"), NIGHT));
    assert!(said.contains("damaged.db cannot be read"), "{said}");
}

/// Names of fields, and the words that can be values.
fn names(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            let fields = object.get("properties").and_then(Value::as_object);
            found.extend(fields.into_iter().flat_map(|it| it.keys().cloned()));
            found.extend(object.get("const").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| names(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn the_guides_name_every_field_and_every_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("history-schema");
    let mut generate = Command::new(env!("CARGO_BIN_EXE_firstfin"));
    generate.arg("generate").arg(&folder).assert().success();
    let schema = fs::read_to_string(folder.join("history.schema.json")).unwrap();
    let mut found = BTreeSet::new();
    names(&serde_json::from_str(&schema).unwrap(), &mut found);
    assert!(found.len() > 60 && found.contains("clock_jumps") && found.contains("cut_off"), "{found:?}");
    // What a process or a finding is stands in the guide to reports.
    let guides = ["docs/history.md", "docs/report.md"].map(|guide| fs::read_to_string(root.join(guide)).unwrap());
    let guides = guides.concat();
    let words: BTreeSet<_> = guides.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = found.iter().filter(|it| !words.contains(it.as_str())).collect();
    assert!(missing.is_empty(), "docs/history.md does not say what these mean: {missing:?}");
}
