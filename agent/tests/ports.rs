//! Ephemeral ports from events and a census to the report and its findings: who, towards whom, how many, until when, and
//! a remedy that fits the settings.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use firstfin::{
    model::{
        Census, Connection, Event, Inode, Name, Netns, NetnsCensus, NetnsSettings, OpenKind, Process, ProcessKey,
        SocketFacts, SocketId, SocketRow, Task, TcpState, Timestamp, Transition,
    },
    report::{Finding, PortOutcome, PortUse, Report, SessionFacts, Severity, build, sockets_to_name},
    state::{Input, Limits, State},
};

const SECOND: u64 = 1_000_000_000;
const STARTED: Timestamp = Timestamp(1_000 * SECOND);
const NETNS: Netns = Netns(7);
const CLIENT: u32 = 42;

fn key(tgid: u32) -> ProcessKey {
    ProcessKey { tgid, start_ticks: 100 }
}

fn task(tgid: u32) -> Task {
    Task {
        key: key(tgid),
        uid: 0,
        comm: Name::from(format!("proc-{tgid}").as_str()),
        cgroup_id: 1,
        is_kernel_thread: false,
        is_agent: false,
    }
}

fn connection(port: u16, remote: &str) -> Connection {
    let remote: SocketAddr = remote.parse().expect("an address");
    let local = if remote.ip().is_loopback() { [127, 0, 0, 1] } else { [10, 0, 0, 1] };
    Connection { netns: NETNS, local: (local, port).into(), remote }
}

/// The client opened it, and closed it first, this many milliseconds after the start.
fn closed(port: u16, remote: &str, ms: u64) -> Event {
    let at = STARTED.plus(Duration::from_millis(ms));
    Event::Transition(Transition {
        at,
        socket: SocketId(u64::from(port)),
        connection: connection(port, remote),
        old: TcpState::FinWait2,
        new: TcpState::Close,
        opened: Some(OpenKind::Active),
        born: Some(at),
        opener: Some(Arc::new(task(CLIENT))),
        accepter: None,
        closer: Some(Arc::new(task(CLIENT))),
        timewait: None,
        facts: SocketFacts { established: true, fin_first: true, fin_received: true, ..SocketFacts::default() },
    })
}

fn row(port: u16, remote: &str, state: TcpState) -> SocketRow {
    let inode = Some(Inode(u64::from(port)));
    SocketRow { connection: connection(port, remote), state, time_wait_left: None, inode, uid: 0, silent_for: None }
}

/// The timewait socket of [`closed`], `at` ms after the start.
fn time_wait(port: u16, remote: &str, ms: u64, at: u64) -> SocketRow {
    let left = Some(Duration::from_millis(60_000 - (at - ms)));
    SocketRow { time_wait_left: left, inode: None, ..row(port, remote, TcpState::TimeWait) }
}

/// 100 ports from 40000 on, no reuse, timestamps on.
fn settings() -> NetnsSettings {
    NetnsSettings {
        port_range: Some((40_000, 40_099)),
        usable_ports: Some(100),
        reserved_ports: Some(Vec::new()),
        tw_reuse: Some(0),
        timestamps: Some(1),
        ..NetnsSettings::default()
    }
}

fn census(rows: Vec<SocketRow>, settings: NetnsSettings, ms: u64) -> Census {
    let at = STARTED.plus(Duration::from_millis(ms));
    let namespace = NetnsCensus { netns: NETNS, at, rows: rows.into(), settings, ..NetnsCensus::default() };
    Census { at, namespaces: vec![namespace], unreachable: Vec::new() }
}

fn facts() -> SessionFacts {
    SessionFacts { duration: Duration::from_secs(5), ..SessionFacts::default() }
}

/// Ten connections a second for five seconds.
fn churn(remote: &str, settings: NetnsSettings) -> (Report, PortUse) {
    let mut state = State::new(STARTED, Limits::default());
    let mut rows = Vec::new();
    for number in 0..50 {
        let ms = u64::from(number) * 100;
        state.feed(Input::Event(closed(40_000 + number, remote, ms)));
        rows.push(time_wait(40_000 + number, remote, ms, 5_000));
    }
    let report = build(&state, &census(rows, settings, 5_000), &facts());
    let used = report.ports.towards(NETNS, remote).expect("it is listed").clone();
    (report, used)
}

fn finding<'a>(report: &'a Report, id: &str) -> &'a Finding {
    report.findings.iter().find(|finding| finding.id == id).expect(id)
}

/// What a finding is about: namespace, local and remote end.
fn about(finding: &Finding) -> (Option<Netns>, Option<&str>, Option<&str>) {
    (finding.netns, finding.local.as_deref(), finding.remote.as_deref())
}

fn says(lines: &[String], what: &str) -> bool {
    lines.iter().any(|line| line.contains(what))
}

#[test]
fn a_forecast_names_who_where_and_when() {
    let (report, used) = churn("10.0.0.2:80", settings());
    assert_eq!((used.used, used.usable, used.time_wait, used.live, used.second_choice), (50, 100, 50, 0, 25));
    let [user] = &used.processes[..] else { panic!("{:?}", used.processes) };
    assert_eq!((user.process.as_ref().map(|process| process.pid), user.time_wait), (Some(CLIENT), 50));
    let forecast = used.forecast.expect("there is a rate");
    assert_eq!(forecast.outcome, PortOutcome::RunsOut);
    assert_eq!(forecast.seconds, Some(5.0), "50 more at 10 a second");
    assert!(forecast.seconds_soonest < Some(5.0) && forecast.seconds_latest > Some(5.0), "{forecast:?}");
    let finding = finding(&report, "ExhaustionForecast");
    assert_eq!(finding.severity, Severity::Critical);
    assert!(finding.summary.contains("proc-42[42]") && finding.summary.contains("10.0.0.2:80"), "{finding:#?}");
    assert!(finding.summary.contains("none will be left in 5 s"), "{finding:#?}");
    assert_eq!(about(finding), (Some(NETNS), Some("10.0.0.1"), Some("10.0.0.2:80")));
    assert!(says(&finding.evidence, "in use: 50 of 100"), "{finding:#?}");
}

/// The session goes on for a moment after the last look.
#[test]
fn seconds_count_from_the_end_of_the_session() {
    let mut state = State::new(STARTED, Limits::default());
    let mut rows = Vec::new();
    for number in 0..50 {
        let ms = u64::from(number) * 100;
        state.feed(Input::Event(closed(40_000 + number, "10.0.0.2:80", ms)));
        rows.push(time_wait(40_000 + number, "10.0.0.2:80", ms, 5_000));
    }
    let facts = SessionFacts { duration: Duration::from_millis(5_500), ..facts() };
    let report = build(&state, &census(rows, settings(), 5_000), &facts);
    let used = report.ports.towards(NETNS, "10.0.0.2:80").expect("it is listed");
    assert_eq!(used.forecast.expect("there is a rate").seconds, Some(4.5));
}

#[test]
fn what_lasts_is_no_finding() {
    let range = NetnsSettings { port_range: Some((40_000, 41_999)), usable_ports: Some(2_000), ..settings() };
    let (report, used) = churn("10.0.0.2:80", range);
    let forecast = used.forecast.expect("there is a rate");
    assert_eq!((forecast.outcome, forecast.seconds, forecast.level), (PortOutcome::LevelsOff, None, Some(600)));
    assert_eq!(report.findings, []);
}

/// tcp_tw_reuse, timestamps, the destination: what is said of reuse.
#[test]
fn a_remedy_fits_the_settings() {
    let of = |tw_reuse, timestamps, delay, remote| {
        let settings = NetnsSettings { tw_reuse, timestamps, tw_reuse_delay_ms: delay, ..settings() };
        let finding = finding(&churn(remote, settings).0, "ExhaustionForecast").clone();
        (finding.remedy, finding.avoid)
    };
    assert!(says(&of(Some(0), Some(1), Some(1_000), "10.0.0.2:80").0, "or net.ipv4.tcp_tw_reuse=1 (0 now)"));
    assert!(says(&of(Some(2), Some(1), None, "10.0.0.2:80").0, "or net.ipv4.tcp_tw_reuse=1 (2 now)"));
    assert!(says(&of(Some(2), Some(0), None, "10.0.0.2:80").1, "net.ipv4.tcp_timestamps is 0 here"));
    let without_timestamps = of(Some(1), Some(0), None, "10.0.0.2:80");
    assert!(says(&without_timestamps.1, "tcp_tw_reuse (1 now): without TCP timestamps nothing is reused"));
    assert!(!says(&without_timestamps.0, "tcp_tw_reuse"));
    assert!(says(&of(Some(1), Some(1), Some(30_000), "10.0.0.2:80").1, "older than 30000 ms (tcp_tw_reuse_delay)"));
    let unknown = of(None, Some(1), None, "10.0.0.2:80");
    assert!(!says(&unknown.0, "tcp_tw_reuse"), "what is not known is not advised: {unknown:#?}");
    assert!(says(&unknown.1, "tcp_fin_timeout"));
}

#[test]
fn reuse_on_loopback_frees_what_is_older_than_a_second() {
    let loopback = NetnsSettings { tw_reuse: Some(2), ..settings() };
    let (report, used) = churn("127.0.0.1:80", loopback);
    assert_eq!((used.time_wait, used.reusable, used.used), (50, 41, 9));
    assert_eq!(used.forecast.expect("there is a rate").level, Some(10), "what comes in a second");
    assert!(!report.findings.iter().any(|finding| finding.id == "ExhaustionForecast"), "{:#?}", report.findings);
}

#[test]
fn owners_of_live_sockets_are_looked_for_where_ports_run_short() {
    let mut state = State::new(STARTED, Limits::default());
    let live = |ports: std::ops::Range<u16>| {
        ports.map(|port| row(port, "10.0.0.2:80", TcpState::Established)).collect::<Vec<_>>()
    };
    let few = census(live(40_000..40_009), settings(), 1_000);
    assert_eq!(sockets_to_name(&state, &few), HashSet::new(), "there are plenty");
    let many = census(live(40_000..40_030), settings(), 1_000);
    let wanted = sockets_to_name(&state, &many);
    assert_eq!(wanted.len(), 30);

    state.feed(Input::Process(Process::from_task(&task(CLIENT))));
    let known = wanted.into_iter().filter(|inode| inode.0 != 40_000).map(|inode| (inode, key(CLIENT))).collect();
    let report = build(&state, &many, &SessionFacts { socket_owners: known, ..facts() });
    let used = report.ports.towards(NETNS, "10.0.0.2:80").expect("it is listed");
    let users: Vec<_> =
        used.processes.iter().map(|user| (user.process.as_ref().map(|process| process.pid), user.live)).collect();
    assert_eq!(users, [(Some(CLIENT), 29), (None, 1)], "what is not known is not guessed");
}

#[test]
fn bound_ports_are_a_finding_by_their_share() {
    let state = State::new(STARTED, Limits::default());
    let report = |bound: u16| {
        let rows = (40_000..40_000 + bound).map(|port| row(port, "0.0.0.0:0", TcpState::BoundInactive)).collect();
        build(&state, &census(rows, settings(), 1_000), &facts())
    };
    assert_eq!(report(9).findings, []);
    assert_eq!(finding(&report(10), "PoisonedPorts").severity, Severity::Warning);
    let half = report(50);
    let finding = finding(&half, "PoisonedPorts");
    assert_eq!((finding.severity, about(finding)), (Severity::Critical, (Some(NETNS), None, None)));
    assert!(finding.summary.contains("50 of 100 ephemeral ports"), "{finding:#?}");
    assert!(says(&finding.evidence, "a process that is not known has bound 50 of them"), "{finding:#?}");
}

/// It may be over when the session ends; a census on the way saw it.
#[test]
fn the_worst_of_the_session_is_kept() {
    let mut state = State::new(STARTED, Limits::default());
    let live = |ports: std::ops::Range<u16>| ports.map(|port| row(port, "10.0.0.2:80", TcpState::Established));
    state.feed(Input::Census(census(live(40_000..40_080).collect(), settings(), 1_000)));
    let report = build(&state, &census(live(40_000..40_020).collect(), settings(), 2_000), &facts());
    let used = report.ports.towards(NETNS, "10.0.0.2:80").expect("it is listed");
    assert_eq!((used.used, used.peak_used), (20, 80));
}

/// The same for sockets that were bound, and decided about the cause.
#[test]
fn ports_that_were_bound_when_it_failed_are_the_cause() {
    let mut state = State::new(STARTED, Limits::default());
    let mut failed = closed(0, "10.0.0.2:80", 900);
    if let Event::Transition(end) = &mut failed {
        end.old = TcpState::SynSent;
        end.closer = None;
        end.facts = SocketFacts { is_unconnected: true, has_socket: true, port_errno: 99, ..SocketFacts::default() };
    }
    let bound = (40_000..40_100).map(|port| row(port, "0.0.0.0:0", TcpState::BoundInactive)).collect();
    state.feed(Input::Event(failed));
    let before = build(&state, &census(Vec::new(), settings(), 2_000), &facts());
    let exhausted = finding(&before, "EphemeralPortExhaustion");
    assert!(!exhausted.summary.contains("bound sockets"), "{exhausted:#?}");
    state.feed(Input::Census(census(bound, settings(), 1_000)));
    let report = build(&state, &census(Vec::new(), settings(), 2_000), &facts());
    let place = report.ports.namespace(NETNS).expect("it is listed");
    assert_eq!((place.poisoned, place.peak_poisoned, place.usable), (Some(0), Some(100), Some(100)));
    let exhausted = finding(&report, "EphemeralPortExhaustion");
    assert!(exhausted.summary.contains("bound sockets have taken the ephemeral ports out"), "{exhausted:#?}");
    assert_eq!(about(exhausted), (Some(NETNS), None, Some("10.0.0.2:80")));
    assert!(says(&exhausted.evidence, "0 bound by listeners or bound-only sockets (100 when it was"), "{exhausted:#?}");
}

#[test]
fn at_most_twenty_destinations_are_listed_and_the_others_counted() {
    let state = State::new(STARTED, Limits::default());
    let rows = (1..=25_u16).flat_map(|number| {
        (0..number).map(move |port| row(40_000 + port, &format!("10.0.0.2:{number}"), TcpState::Established))
    });
    let report = build(&state, &census(rows.collect(), settings(), 1_000), &facts());
    assert_eq!((report.ports.destinations.len(), report.ports.destinations_omitted), (20, 5));
    assert_eq!((report.ports.destinations[0].used, &*report.ports.destinations[0].remote), (25, "10.0.0.2:25"));
}

/// Where reuse frees all of them, the fullest destination would else stand after those with lower addresses.
#[test]
fn destinations_that_take_no_port_are_listed_by_their_time_waits() {
    let state = State::new(STARTED, Limits::default());
    let rows = (1..=25_u16).flat_map(|number| {
        (0..number).map(move |port| time_wait(40_000 + port, &format!("127.0.0.1:{number}"), 0, 5_000))
    });
    let loopback = NetnsSettings { tw_reuse: Some(2), ..settings() };
    let report = build(&state, &census(rows.collect(), loopback, 5_000), &facts());
    let listed: Vec<_> = report.ports.destinations.iter().map(|it| (it.used, it.reusable, &*it.remote)).collect();
    assert_eq!((listed[0], listed[19]), ((0, 25, "127.0.0.1:25"), (0, 6, "127.0.0.1:6")), "{listed:?}");
}
