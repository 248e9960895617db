//! Windows of a session: what happened is told once, in one of them; whose a socket is does not depend on them.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use firstfin::{
    model::{
        Asker, Call, Census, Connection, Event, Inode, Leaving, Name, Netns, NetnsCensus, NetnsSettings, OpenKind,
        Process, ProcessKey, RefusedCall, SocketFacts, SocketId, SocketOptions, SocketRow, Task, TcpState,
        TimeWaitChange, TimeWaitEvent, TimeWaitId, TimeWaitMade, TimeWaitSubstate, Timestamp, Transition,
    },
    report::{Report, SessionFacts, build},
    state::{
        Attribution, Input, Limits, State,
        failures::{HolderSeen, HoldersSeen},
    },
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const STARTED: Timestamp = Timestamp(1_000 * SECOND);
const NETNS: Netns = Netns(7);

fn key(tgid: u32) -> ProcessKey {
    ProcessKey { tgid, start_ticks: 100 }
}

fn task(tgid: u32) -> Task {
    let comm = Name::from(format!("proc-{tgid}").as_str());
    Task { key: key(tgid), uid: 0, comm, cgroup_id: 1, is_kernel_thread: false, is_agent: false }
}

fn at(ms: u64) -> Timestamp {
    STARTED.plus(Duration::from_millis(ms))
}

fn connection(port: u16) -> Connection {
    Connection {
        netns: NETNS,
        local: SocketAddr::from(([10, 0, 0, 1], 40_000 + port)),
        remote: SocketAddr::from(([10, 0, 0, 2], 80)),
    }
}

/// A connection of a process that ended.
fn end(port: u16, tgid: u32, ms: u64, old: TcpState, facts: SocketFacts) -> Transition {
    Transition {
        at: at(ms),
        socket: SocketId(ms),
        connection: connection(port),
        old,
        new: TcpState::Close,
        opened: Some(OpenKind::Active),
        born: Some(at(ms)),
        opener: Some(Arc::new(task(tgid))),
        accepter: None,
        closer: Some(Arc::new(task(tgid))),
        timewait: None,
        facts: SocketFacts { began_in_session: true, ..facts },
    }
}

fn entered(port: u16, tgid: u32, ms: u64) -> Event {
    let facts = SocketFacts { established: true, fin_first: true, fin_received: true, ..SocketFacts::default() };
    let made = TimeWaitMade::Made { id: TimeWaitId(ms), substate: TimeWaitSubstate::TimeWait };
    Event::Transition(Transition { timewait: Some(made), ..end(port, tgid, ms, TcpState::FinWait2, facts) })
}

fn left(port: u16, id: u64, ms: u64) -> Event {
    let change = TimeWaitChange::Left(Leaving::Expired);
    Event::TimeWait(TimeWaitEvent { at: at(ms), id: TimeWaitId(id), connection: connection(port), change })
}

fn reset(port: u16, tgid: u32, ms: u64) -> Event {
    let facts = SocketFacts { established: true, reset_received: true, syn_rejected: true, ..SocketFacts::default() };
    Event::Transition(end(port, tgid, ms, TcpState::Established, facts))
}

fn no_port(tgid: u32, ms: u64) -> Event {
    let mut failed = end(0, tgid, ms, TcpState::SynSent, SocketFacts { port_errno: 99, ..SocketFacts::default() });
    failed.connection.local.set_port(0);
    Event::Transition(failed)
}

fn refused(tgid: u32, ms: u64) -> RefusedCall {
    RefusedCall {
        at: at(ms),
        call: Call::Bind,
        netns: NETNS,
        local: Some(SocketAddr::from(([0, 0, 0, 0], 80))),
        errno: 98,
        options: SocketOptions::default(),
        asker: Asker::default(),
        task: task(tgid),
    }
}

fn row(port: u16, since_ms: u64, now_ms: u64) -> SocketRow {
    SocketRow {
        connection: connection(port),
        state: TcpState::TimeWait,
        time_wait_left: Some(Duration::from_millis(60_000_u64.saturating_sub(now_ms - since_ms))),
        inode: None,
        uid: 0,
        silent_for: None,
    }
}

fn census(rows: Vec<SocketRow>, ms: u64, overflow: u64) -> Census {
    let settings = NetnsSettings {
        port_range: Some((40_000, 40_099)),
        usable_ports: Some(100),
        reserved_ports: Some(Vec::new()),
        tw_reuse: Some(0),
        timestamps: Some(1),
        ..NetnsSettings::default()
    };
    let namespace = NetnsCensus {
        netns: NETNS,
        at: at(ms),
        rows: rows.into(),
        time_wait_overflow: Some(overflow),
        settings,
        ..NetnsCensus::default()
    };
    Census { at: at(ms), namespaces: vec![namespace], unreachable: Vec::new() }
}

fn facts(state: &State, ms: u64) -> SessionFacts {
    let duration = at(ms).since(state.window_began());
    SessionFacts { duration, is_window: true, ..SessionFacts::default() }
}

fn window(census: Census, ms: u64, gone: Vec<ProcessKey>) -> Input {
    Input::Window { at: at(ms), census, gone }
}

/// Everything that a report counts, by name.
fn counts(report: &Report) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::from([
        ("received".to_owned(), report.session.events.received),
        ("overflowed".to_owned(), report.time_wait.overflowed),
        ("entered".to_owned(), report.time_wait.entered),
    ]);
    let mut add = |name: String, count| *counts.entry(name).or_default() += count;
    for (why, count) in &report.time_wait.left {
        add(format!("left {why:?}"), *count);
    }
    for process in &report.time_wait.by_process {
        let pid = process.process.pid;
        add(format!("{pid} entered"), process.entered);
        add(format!("{pid} closed first"), process.closed_first);
        add(format!("{pid} became"), process.became_time_wait);
        for (why, count) in &process.left {
            add(format!("{pid} left {why:?}"), *count);
        }
    }
    for failure in &report.bind_failures {
        add(format!("{:?} refused", failure.local), failure.count);
    }
    let pid = |process: &Option<firstfin::report::ProcessInfo>| process.as_ref().map(|process| process.pid);
    for failure in &report.connect_failures {
        add(format!("{:?} {:?}", pid(&failure.process), failure.cause), failure.count);
    }
    for reset in &report.resets {
        add(format!("{:?} {:?}", pid(&reset.process), reset.kind), reset.count);
    }
    for syns in &report.rejected_syns {
        add(format!("{:?} rejected", pid(&syns.process)), syns.count);
    }
    counts
}

/// Whose the sockets are that are there: pid, name, and how many.
fn owners(report: &Report) -> Vec<(u32, String, u64)> {
    let owned = report.time_wait.by_process.iter().filter(|process| process.sockets > 0);
    let mut owners: Vec<_> = owned
        .map(|process| (process.process.pid, process.process.comm.to_string(), process.sockets))
        .chain([(0, "nobody".to_owned(), report.time_wait.unattributed)])
        .collect();
    owners.sort();
    owners
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter {
        port: u16,
        tgid: u32,
    },
    Leave {
        port: u16,
        is_lost: bool,
    },
    Reset {
        tgid: u32,
    },
    NoPort {
        tgid: u32,
    },
    Refused {
        tgid: u32,
    },
    Census,
    /// Those processes are gone whose bit is set
    Window {
        gone: u32,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tgid = 1_u32..8;
    let step = prop_oneof![
        6 => (0_u16..8, tgid.clone()).prop_map(|(port, tgid)| Step::Enter { port, tgid }),
        5 => (0_u16..8, any::<bool>()).prop_map(|(port, is_lost)| Step::Leave { port, is_lost }),
        1 => tgid.clone().prop_map(|tgid| Step::Reset { tgid }),
        1 => tgid.clone().prop_map(|tgid| Step::NoPort { tgid }),
        1 => tgid.prop_map(|tgid| Step::Refused { tgid }),
        2 => Just(Step::Census),
        3 => any::<u32>().prop_map(|gone| Step::Window { gone }),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    /// The same events twice: in windows, and in a session that only looks around at the same times.
    #[test]
    fn windows_add_up_to_the_session_and_change_no_owner(steps in steps(), overflows in prop::collection::vec(0_u64..5, 200)) {
        let (mut windows, mut session) = (State::new(STARTED, Limits::default()), State::new(STARTED, Limits::default()));
        windows.feed(Input::Begin { census: census(Vec::new(), 0, 1_000), holders: Default::default() });
        session.feed(Input::Begin { census: census(Vec::new(), 0, 1_000), holders: Default::default() });
        let mut there: BTreeMap<u16, u64> = BTreeMap::new();
        let mut sum: BTreeMap<String, u64> = BTreeMap::new();
        let mut add = |counted: BTreeMap<String, u64>| {
            counted.into_iter().for_each(|(name, count)| *sum.entry(name).or_default() += count);
        };
        let mut overflow = 1_000;
        let mut ms = 0;
        for (step, more) in steps.into_iter().chain([Step::Window { gone: 0 }]).zip(overflows.into_iter().cycle()) {
            ms += 100;
            overflow += more;
            let rows = || there.iter().map(|(port, since)| row(*port, *since, ms)).collect::<Vec<_>>();
            let event = match step {
                Step::Enter { port, tgid } if !there.contains_key(&port) => {
                    there.insert(port, ms);
                    entered(port, tgid, ms)
                }
                Step::Leave { port, is_lost } => match there.remove(&port) {
                    Some(id) if !is_lost => left(port, id, ms),
                    _ => continue,
                },
                Step::Reset { tgid } => reset(9, tgid, ms),
                Step::NoPort { tgid } => no_port(tgid, ms),
                Step::Refused { tgid } => Event::Refused(refused(tgid, ms)),
                Step::Census => {
                    let census = census(rows(), ms, overflow);
                    windows.feed(Input::Census(census.clone()));
                    session.feed(Input::Census(census));
                    continue;
                }
                Step::Window { gone } => {
                    let census = census(rows(), ms, overflow);
                    let of_window = build(&windows, &census, &facts(&windows, ms));
                    let of_session = build(&session, &census, &facts(&session, ms));
                    prop_assert_eq!(owners(&of_window), owners(&of_session));
                    prop_assert_eq!(of_window.time_wait.total, there.len() as u64);
                    add(counts(&of_window));
                    let gone = (1..8).filter(|tgid| gone >> tgid & 1 == 1).map(key).collect();
                    windows.feed(window(census.clone(), ms, gone));
                    session.feed(Input::Census(census));
                    continue;
                }
                Step::Enter { .. } => continue,
            };
            windows.apply(&event);
            session.apply(&event);
        }
        let rows = there.iter().map(|(port, since)| row(*port, *since, ms)).collect();
        let last = census(rows, ms, overflow);
        // What the last censuses found gone is counted in the window that is under way.
        add(counts(&build(&windows, &last, &facts(&windows, ms))));
        let mut of_session = counts(&build(&session, &last, &facts(&session, ms)));
        of_session.retain(|_, count| *count > 0);
        sum.retain(|_, count| *count > 0);
        prop_assert_eq!(sum, of_session);
    }

    /// A recording of a session in windows holds what it takes to make the last report again.
    #[test]
    fn a_window_can_be_replayed(ports in prop::collection::vec(0_u16..8, 1..20)) {
        let mut state = State::new(STARTED, Limits::default());
        let mut inputs = Vec::new();
        for (ms, port) in (1..).zip(ports) {
            inputs.push(Input::Event(entered(port, 1 + u32::from(port), ms)));
            inputs.push(window(census(vec![row(port, ms, ms)], ms, 0), ms, vec![key(1)]));
        }
        let mut again = State::new(STARTED, Limits::default());
        for input in inputs {
            let line = serde_json::to_string(&input).expect("JSON");
            again.feed(serde_json::from_str(&line).expect("the same"));
            state.feed(input);
        }
        let last = census(vec![row(1, 1, 100)], 100, 0);
        prop_assert_eq!(build(&state, &last, &facts(&state, 100)), build(&again, &last, &facts(&again, 100)));
    }
}

fn ids(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.id.as_str()).collect()
}

/// Ten connections a second that are closed here first, over three windows: the rate is that of the last 30 seconds.
#[test]
fn a_forecast_goes_on_across_windows() {
    let mut state = State::new(STARTED, Limits::default());
    let mut rows = Vec::new();
    for number in 0..50_u16 {
        let ms = u64::from(number) * 100;
        state.apply(&entered(number, 5, ms));
        rows.push((number, ms));
        if number == 20 || number == 40 {
            let rows = rows.iter().map(|(port, since)| row(*port, *since, ms)).collect();
            state.feed(window(census(rows, ms, 0), ms, Vec::new()));
        }
    }
    let rows = rows.iter().map(|(port, since)| row(*port, *since, 5_000)).collect();
    let report = build(&state, &census(rows, 5_000, 0), &facts(&state, 5_000));
    assert_eq!((report.session.duration_s, report.time_wait.entered), (1.0, 9));
    assert_eq!(report.time_wait.by_process[0].entered_per_s, 9.0, "over the window");
    let used = report.ports.towards(NETNS, "10.0.0.2:80").expect("it is listed");
    assert_eq!(used.forecast.expect("there is a rate").seconds, Some(5.0), "50 more at 10 a second");
    assert!(ids(&report).contains(&"ExhaustionForecast"), "{:#?}", report.findings);
}

#[test]
fn a_finding_is_gone_with_its_cause() {
    let mut state = State::new(STARTED, Limits::default());
    state.apply(&no_port(5, 100));
    state.apply(&Event::Refused(refused(6, 200)));
    let report = |state: &State, ms| build(state, &census(Vec::new(), ms, 0), &facts(state, ms));
    let first = report(&state, 1_000);
    assert_eq!(ids(&first), ["EphemeralPortExhaustion", "BindConflict"]);
    assert!(state.has_run_out_of_ports());
    state.feed(window(census(Vec::new(), 1_000, 0), 1_000, vec![key(5), key(6)]));
    assert_eq!(ids(&report(&state, 2_000)), Vec::<&str>::new());
    assert!(!state.has_run_out_of_ports());
    state.apply(&no_port(7, 2_100));
    let again = report(&state, 3_000);
    let process = again.findings[0].process.as_ref().expect("known");
    assert_eq!((process.pid, process.comm.as_str()), (7, "proc-7"));
}

/// What was lost in the first window may be the event of a socket that is there in the second.
#[test]
fn an_event_lost_earlier_is_lost_still() {
    let mut state = State::new(STARTED, Limits::default());
    state.feed(window(census(Vec::new(), 10_000, 0), 10_000, Vec::new()));
    let there = census(vec![row(1, 10_000, 20_000)], 20_000, 0);
    let reasons = |lost_before| {
        let facts = SessionFacts { lost_before, ..facts(&state, 20_000) };
        let reasons = build(&state, &there, &facts).time_wait.unattributed_reasons;
        (reasons.event_lost, reasons.not_seen)
    };
    assert_eq!((reasons(true), reasons(false)), ((1, 0), (0, 1)));
}

fn holder(state: &mut State, call: &RefusedCall, tgid: u32) {
    state.feed(Input::Process(Process::from_task(&task(tgid))));
    let listener = SocketRow {
        connection: Connection {
            netns: NETNS,
            local: SocketAddr::from(([0, 0, 0, 0], 80)),
            remote: SocketAddr::from(([0, 0, 0, 0], 0)),
        },
        state: TcpState::Listen,
        time_wait_left: None,
        inode: Some(Inode(1)),
        uid: 0,
        silent_for: None,
    };
    let seen = HolderSeen { row: listener, owner: Some(key(tgid)), others: Vec::new(), options: Default::default() };
    state.feed(Input::Holders { call: call.clone(), holders: HoldersSeen::Found(vec![seen]) });
}

/// A service that is started again and again, for minutes: who has its port is looked for once a minute.
#[test]
fn the_holder_of_a_port_is_known_in_the_next_windows_for_a_minute() {
    let mut state = State::new(STARTED, Limits::default());
    let mut looks = Vec::new();
    for number in 0..20_u32 {
        let ms = u64::from(number) * 10_000;
        let mut call = refused(100 + number, ms);
        call.task.comm = Name::from("service");
        state.apply(&Event::Refused(call.clone()));
        if state.wants_holders(&call) {
            looks.push(number);
            holder(&mut state, &call, 9);
        }
        let end = ms + 9_000;
        let report = build(&state, &census(Vec::new(), end, 0), &facts(&state, end));
        let [failure] = report.bind_failures.as_slice() else { panic!("{:#?}", report.bind_failures) };
        let holders: Vec<_> = failure.holders.iter().filter_map(|holder| Some(holder.process.as_ref()?.pid)).collect();
        assert_eq!((failure.count, holders), (1, vec![9]), "window {number}");
        assert_eq!(failure.holders[0].process.as_ref().map(|process| process.comm.as_str()), Some("proc-9"));
        let gone: HashSet<ProcessKey> = state.processes().collect();
        state.feed(window(census(Vec::new(), end, 0), end, gone.into_iter().collect()));
    }
    assert_eq!(looks, [0, 6, 12, 18]);
    assert!(state.processes().count() < 4, "those that were refused a while ago are forgotten");
}

/// `TCPTimeWaitOverflow` is the namespace's since it was made: what counts is by how much it rose.
#[test]
fn overflow_is_counted_from_the_census_before() {
    let mut state = State::new(STARTED, Limits::default());
    let unreachable =
        |ms| Census { at: at(ms), namespaces: Vec::new(), unreachable: vec![(NETNS, "not now".to_owned())] };
    let overflowed = |state: &State, now: &Census| build(state, now, &facts(state, 0)).time_wait.overflowed;
    state.feed(Input::Begin { census: unreachable(0), holders: Default::default() });
    let first = census(Vec::new(), 1_000, 500);
    assert_eq!(overflowed(&state, &first), 0, "it may have been so before the session");
    state.feed(window(first, 1_000, Vec::new()));
    state.feed(window(unreachable(2_000), 2_000, Vec::new()));
    let third = census(Vec::new(), 3_000, 507);
    assert_eq!(overflowed(&state, &third), 7);
    state.feed(window(third, 3_000, Vec::new()));
    // Gone; and another one has its number.
    state.feed(window(Census { at: at(4_000), ..Census::default() }, 4_000, Vec::new()));
    assert_eq!(overflowed(&state, &census(Vec::new(), 5_000, 3)), 3);
}

/// The process that opened a connection was forgotten: that nobody is known to have is not that nobody has.
#[test]
fn an_opener_that_got_lost_is_said_to_be() {
    let kernel = Task { is_kernel_thread: true, ..task(2) };
    let closed = |opener_lost| {
        let Event::Transition(mut ended) = entered(1, 5, 100) else { panic!() };
        ended.opener = None;
        ended.closer = Some(Arc::new(kernel.clone()));
        ended.facts.opener_lost = opener_lost;
        let mut state = State::new(STARTED, Limits::default());
        state.apply(&Event::Transition(ended));
        state.attribute(&row(1, 100, 200), at(200), false)
    };
    assert_eq!(closed(true), Attribution::Unknown(firstfin::state::Reason::EventLost));
    assert_eq!(closed(false), Attribution::Unknown(firstfin::state::Reason::KernelThread));
}
