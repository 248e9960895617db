//! Reports in, text out: what is counted, that sums never fall, that everything is bounded.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    strict::{Read, read},
    *,
};
use crate::{
    model::{ConnectFailure, Name, Netns},
    output::fixtures,
    report::{
        BindFailure, ConnectFailures, PortForecast, PortOutcome, PortUse, PortUser, ProcessInfo, ProcessTimeWait,
        Report,
    },
};

const HOST: Netns = Netns(4_026_531_840);

fn totals(top: usize) -> Totals {
    Totals::new(Settings { top, labels: ProcessLabel::DEFAULT.to_vec() }, Some(HOST))
}

fn own() -> SelfStats {
    SelfStats {
        cpu: Duration::from_millis(1_500),
        resident_bytes: 9 << 20,
        open_fds: 40,
        max_fds: 1_024,
        last_scrape: Some(Duration::from_millis(3)),
        kernel: "6.18.0".to_owned(),
        is_config_current: true,
        ..SelfStats::default()
    }
}

fn outputs() -> OutputStats {
    OutputStats {
        alerts: Some(AlertStats {
            by_state: vec![("pending", 1), ("firing", 2)],
            overflowed: 4,
            failed_saves: 0,
            receivers: vec![ReceiverStats {
                name: "on-call".to_owned(),
                deliveries: vec![("delivered", 7), ("failed", 1)],
                queued: 3,
            }],
        }),
        history: Some(HistoryStats { minutes_written: 60, database_bytes: 4_096, ..HistoryStats::default() }),
    }
}

fn text(totals: &Totals, report: &Report, format: Format) -> String {
    let round = Round { took: Duration::from_millis(12), tables: vec![("processes", 17)], ..Round::default() };
    let families = totals.families(Some(report), &round, &outputs());
    encode(&[&families, &own().families()], format).unwrap()
}

fn exposed(totals: &Totals, report: &Report) -> Read {
    let classic = read(&text(totals, report, Format::Prometheus), Format::Prometheus).unwrap();
    let read = read(&text(totals, report, Format::OpenMetrics), Format::OpenMetrics).unwrap();
    assert_eq!(format!("{:?}", classic.samples), format!("{:?}", read.samples));
    read
}

/// A window of so many seconds in which these processes each had so many connections enter TIME_WAIT.
fn window(seconds: f64, processes: &[(&str, u64)]) -> Report {
    let full = fixtures::full();
    let template = full.time_wait.by_process.first().cloned().unwrap();
    let mut report = fixtures::quiet();
    report.session.duration_s = seconds;
    report.time_wait.by_process = processes
        .iter()
        .map(|&(comm, count)| ProcessTimeWait {
            process: ProcessInfo { comm: Name::from(comm), ..ProcessInfo::default() },
            sockets: count,
            fin_wait2: 0,
            entered: count,
            closed_first: count,
            ..template.clone()
        })
        .collect();
    report.time_wait.total = processes.iter().map(|(_, count)| count).sum();
    report.time_wait.entered = report.time_wait.total;
    report
}

#[test]
fn a_report_is_exposed_by_process() {
    let report = fixtures::full();
    let mut totals = totals(50);
    totals.take_in(&report);
    let read = exposed(&totals, &report);
    for of in &report.time_wait.by_process {
        let unit = of.process.unit.as_ref().map_or("", Name::as_str);
        let labels = [("process", of.process.comm.as_str()), ("unit", unit)];
        let sockets = read.matching("firstfin_time_wait_sockets", &labels).iter().sum::<f64>();
        assert!(sockets >= of.sockets as f64 && of.sockets + of.fin_wait2 > 0, "{labels:?}");
    }
    assert_eq!(read.sum("firstfin_time_wait_entered_total"), report.time_wait.entered as f64);
    let refused: u64 = report.bind_failures.iter().map(|of| of.count).sum();
    assert_eq!(read.sum("firstfin_bind_failures_total"), refused as f64);
    let no_port = read.value("firstfin_connect_failures_total", &[("process", "curl-loop"), ("cause", "no_free_port")]);
    assert_eq!(no_port, 318.0);
    assert_eq!(read.value("firstfin_connect_failures_total", &[("process", "?")]), 2.0);
    assert_eq!(read.value("firstfin_resets_total", &[("process", "nginx"), ("kind", "linger_zero")]), 17.0);
    let finding = |id, severity| read.value("firstfin_findings", &[("finding", id), ("severity", severity)]);
    assert_eq!(finding("EphemeralPortExhaustion", "critical"), 1.0);
    assert_eq!((finding("BindConflict", "warning"), finding("BindConflict", "critical")), (1.0, 0.0));
    assert_eq!(read.value("firstfin_build_info", &[("kernel", "6.18.0")]), 1.0);
    assert_eq!(read.value("process_cpu_seconds_total", &[]), 1.5);
    assert_eq!(read.value("firstfin_state_entries", &[("table", "processes")]), 17.0);
    assert_eq!(read.value("firstfin_alert_deliveries_total", &[("receiver", "on-call"), ("outcome", "failed")]), 1.0);
    assert_eq!(read.value("firstfin_history_database_bytes", &[]), 4_096.0);
    let buckets = read.value("firstfin_time_wait_buckets", &[("netns", "host")]);
    let used = read.value("firstfin_time_wait_buckets_used_ratio", &[("netns", "host")]);
    let kernel = read.value("firstfin_kernel_time_wait_sockets", &[("netns", "host")]);
    assert!(buckets == 262_144.0 && (used - kernel / buckets).abs() < 1e-9, "{kernel} {buckets} {used}");
}

#[test]
fn what_is_lost_and_not_seen_is_exposed() {
    let report = fixtures::lossy();
    let mut totals = totals(50);
    totals.take_in(&report);
    totals.fail();
    let read = exposed(&totals, &report);
    assert_eq!(read.value("firstfin_events_lost_total", &[("reason", "transitions")]), 3_100.0);
    assert_eq!(read.value("firstfin_events_lost_total", &[("reason", "malformed")]), 1.0);
    assert_eq!(read.value("firstfin_events_lost_total", &[("reason", "timewait")]), 0.0);
    assert_eq!(read.value("firstfin_time_wait_unattributed_sockets", &[("reason", "event_lost")]), 2_990.0);
    assert_eq!(read.value("firstfin_time_wait_overflows_total", &[("netns", "host")]), 1_024.0);
    assert_eq!(read.value("firstfin_hook_attached", &[("hook", "connect_without_a_free_port"), ("rung", "none")]), 0.0);
    assert_eq!(read.value("firstfin_blind_spots", &[]), 1.0);
    assert_eq!((read.sum("firstfin_rounds_total"), read.sum("firstfin_rounds_failed_total")), (1.0, 1.0));
}

#[test]
fn windows_add_up_and_what_is_there_does_not() {
    let mut totals = totals(50);
    for count in [10, 5, 0] {
        totals.take_in(&window(10.0, &[("shop", count)]));
    }
    let last = window(10.0, &[("shop", 3)]);
    totals.take_in(&last);
    let read = exposed(&totals, &last);
    let shop = [("process", "shop")];
    assert_eq!(read.value("firstfin_time_wait_entered_total", &shop), 18.0);
    assert_eq!(read.value("firstfin_time_wait_sockets", &shop), 3.0);
}

#[test]
fn a_quiet_group_loses_its_series_and_the_sum_stays() {
    let mut totals = totals(50);
    totals.take_in(&window(10.0, &[("shop", 7)]));
    let quiet = window(299.0, &[]);
    totals.take_in(&quiet);
    let read = exposed(&totals, &quiet);
    assert_eq!(read.value("firstfin_time_wait_entered_total", &[("process", "shop")]), 7.0);
    totals.take_in(&window(10.0, &[]));
    let read = exposed(&totals, &quiet);
    assert!(read.matching("firstfin_time_wait_entered_total", &[("process", "shop")]).is_empty());
    assert_eq!(read.value("firstfin_time_wait_entered_total", &[("process", OTHER), ("unit", OTHER)]), 7.0);
}

#[test]
fn the_busiest_have_series_and_the_others_one() {
    let mut totals = totals(2);
    let report = window(10.0, &[("a", 1), ("b", 30), ("c", 20), ("d", 2)]);
    totals.take_in(&report);
    let read = exposed(&totals, &report);
    let sockets = |process| read.matching("firstfin_time_wait_sockets", &[("process", process)]);
    assert_eq!((sockets("a"), sockets("b"), sockets("c"), sockets(OTHER)), (vec![], vec![30.0], vec![20.0], vec![3.0]));
    assert_eq!(read.value("firstfin_metrics_omitted_groups", &[]), 2.0);
    // Processes that the report left out are among the others, too.
    let mut longer = report.clone();
    longer.time_wait.processes_omitted = 5;
    longer.time_wait.total += 9;
    longer.time_wait.entered += 9;
    totals.take_in(&longer);
    let read = exposed(&totals, &longer);
    assert_eq!(read.value("firstfin_time_wait_sockets", &[("process", OTHER)]), 12.0);
    assert_eq!(read.sum("firstfin_time_wait_entered_total"), f64::from(53 + 53 + 9));
}

#[test]
fn other_labels_move_all_counts_to_the_others() {
    let mut totals = totals(50);
    totals.take_in(&window(10.0, &[("shop", 7)]));
    totals.set(Settings { top: 50, labels: vec![ProcessLabel::Process, ProcessLabel::Pid] });
    let next = window(10.0, &[("shop", 1)]);
    totals.take_in(&next);
    let read = exposed(&totals, &next);
    assert_eq!(read.value("firstfin_time_wait_entered_total", &[("process", "shop"), ("pid", "0")]), 1.0);
    assert_eq!(read.value("firstfin_time_wait_entered_total", &[("process", OTHER), ("pid", OTHER)]), 7.0);
}

fn destination(number: u32, used: u64, forecast: Option<PortForecast>) -> PortUse {
    let user = ProcessInfo { comm: Name::from(format!("client-{}", number % 997).as_str()), ..ProcessInfo::default() };
    PortUse {
        netns: HOST,
        local: "10.0.0.1".to_owned(),
        remote: format!("10.{}.{}.{}:443", number >> 16, number >> 8 & 255, number & 255),
        used,
        usable: 28_232,
        peak_used: used,
        live: 1,
        time_wait: used - 1,
        reusable: 0,
        second_choice: 0,
        processes: vec![PortUser { process: Some(user), live: 1, time_wait: used - 1 }],
        processes_omitted: 0,
        rate: None,
        forecast,
    }
}

#[test]
fn the_destination_nearest_to_exhaustion_stands_for_its_process() {
    let runs_out = PortForecast {
        outcome: PortOutcome::RunsOut,
        seconds: Some(42.5),
        seconds_soonest: None,
        seconds_latest: None,
        level: None,
    };
    let mut report = fixtures::quiet();
    report.ports.destinations =
        vec![destination(1, 14_116, Some(runs_out)), destination(998, 100, None), destination(2, 7, None)];
    let mut totals = totals(50);
    totals.take_in(&report);
    let read = exposed(&totals, &report);
    let client = [("process", "client-1")];
    assert_eq!(read.value("firstfin_ephemeral_ports_used", &client), 14_116.0);
    assert_eq!(read.value("firstfin_ephemeral_ports_usable", &client), 28_232.0);
    assert_eq!(read.value("firstfin_ephemeral_ports_used_ratio", &client), 0.5);
    assert_eq!(read.value("firstfin_ephemeral_ports_exhaustion_seconds", &client), 42.5);
    assert!(read.matching("firstfin_ephemeral_ports_exhaustion_seconds", &[("process", "client-2")]).is_empty());
    assert_eq!(read.value("firstfin_ephemeral_ports_destinations", &[]), 3.0);
}

/// As many destinations as a report never lists, each with failures of its own.
fn crowded(destinations: u32) -> Report {
    let full = fixtures::full();
    let (refused, failed) =
        (full.bind_failures.first().cloned().unwrap(), full.connect_failures.first().cloned().unwrap());
    let names: Vec<String> = (0..1_000).map(|number| format!("worker-{number}")).collect();
    let mut report = window(10.0, &names.iter().map(|name| (name.as_str(), 20)).collect::<Vec<_>>());
    for number in 0..destinations {
        let destination = destination(number, 10 + u64::from(number % 50), None);
        let process = destination.processes.first().and_then(|user| user.process.clone());
        report.connect_failures.push(ConnectFailures {
            process: process.clone(),
            remote: destination.remote.clone(),
            cause: ConnectFailure::Refused,
            ..failed.clone()
        });
        if number % 16 == 0 {
            let process = process.unwrap();
            report.bind_failures.push(BindFailure { process, holders: Vec::new(), ..refused.clone() });
        }
        report.ports.destinations.push(destination);
    }
    report
}

#[test]
fn a_hundred_thousand_destinations_are_below_a_mebibyte_and_a_tenth_of_a_second() {
    let report = crowded(100_000);
    for (top, labels) in
        [(50, ProcessLabel::DEFAULT.to_vec()), (200, ProcessLabel::DEFAULT.to_vec()), (50, ProcessLabel::ALL.to_vec())]
    {
        let mut totals = Totals::new(Settings { top, labels }, Some(HOST));
        totals.take_in(&report);
        let families = totals.families(Some(&report), &Round::default(), &outputs());
        for format in [Format::OpenMetrics, Format::Prometheus] {
            // The best of three: other tests run meanwhile.
            let timed = || {
                let begun = Instant::now();
                let text = encode(&[&families, &own().families()], format).unwrap();
                (begun.elapsed(), text)
            };
            let (took, text) = (0..3).map(|_| timed()).min_by_key(|(took, _)| *took).unwrap();
            assert!(text.len() < 1 << 20, "{top} groups: {} bytes", text.len());
            assert!(took < Duration::from_millis(100), "{top} groups: {took:?}");
            let read = read(&text, format).unwrap();
            assert_eq!(read.samples["firstfin_time_wait_sockets"].len(), top + 1);
            assert!(!read.samples["firstfin_ephemeral_ports_used"].is_empty());
        }
    }
}

#[test]
fn open_metrics_goes_to_whom_it_is_asked_by() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    for other in ["", "*/*", "text/html,application/xhtml+xml", "application/openmetrics-text;q=0, text/plain"] {
        assert_eq!(Format::accepted(other), Format::Prometheus, "{other}");
    }
}

#[test]
fn the_strict_reader_is_strict() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\"} 1\n# EOF\n";
    read(good, Format::OpenMetrics).unwrap();
    for (bad, with) in [
        ("# EOF\n", ""),
        ("a_total{x=\"1\"} 1", "a{x=\"1\"} 1"),
        ("a_total{x=\"1\"} 1", "a_total{x=\"1\"} 1\na_total{x=\"1\"} 2"),
        ("x=\"1\"", "x=\"1\",x=\"2\""),
        ("x=\"1\"", "x=\"\\q\""),
        ("} 1", "} 1 1700000000"),
        ("} 1", "} -1"),
        ("# HELP a A.\n", ""),
        ("counter\n", "counter\n# UNIT a seconds\n"),
    ] {
        assert!(read(&good.replacen(bad, with, 1), Format::OpenMetrics).is_err(), "{bad:?} -> {with:?}");
    }
}

/// The linter of Prometheus itself, where `FIRSTFIN_PROMTOOL` names it.
#[test]
fn promtool_finds_nothing() {
    let Some(promtool) = std::env::var_os("FIRSTFIN_PROMTOOL") else {
        eprintln!("SKIP metrics::promtool_finds_nothing: FIRSTFIN_PROMTOOL names no promtool");
        return;
    };
    for report in [fixtures::full(), fixtures::lossy(), crowded(1_000)] {
        let mut totals = totals(50);
        totals.take_in(&report);
        let mut check = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        check.stdin.take().unwrap().write_all(text(&totals, &report, Format::Prometheus).as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

proptest! {
    /// Whoever comes and goes, whatever they are called, and however the settings change.
    #[test]
    fn sums_never_fall_and_series_are_bounded(
        windows in prop::collection::vec(
            (0.0..400.0_f64, prop::collection::vec(("[a-c\"\\\\\n]{1,2}", 0..50_u64), 0..12), 1..5_usize, any::<bool>()),
            1..12,
        )
    ) {
        let mut totals = totals(3);
        let mut before = 0.0;
        let mut all = 0;
        for (seconds, processes, top, by_pid) in windows {
            let mut labels = ProcessLabel::DEFAULT.to_vec();
            if by_pid {
                labels.push(ProcessLabel::Pid);
            }
            totals.set(Settings { top, labels });
            let processes: Vec<_> = processes.iter().map(|(comm, count)| (comm.as_str(), *count)).collect();
            let report = window(seconds, &processes);
            totals.take_in(&report);
            all += processes.iter().map(|(_, count)| count).sum::<u64>();
            let read = exposed(&totals, &report);
            let sum = read.sum("firstfin_time_wait_entered_total");
            prop_assert!(sum >= before);
            prop_assert_eq!(sum, all as f64);
            prop_assert_eq!(read.sum("firstfin_time_wait_sockets"), report.time_wait.total as f64);
            prop_assert!(read.samples["firstfin_time_wait_sockets"].len() <= top + 1);
            before = sum;
        }
    }
}
