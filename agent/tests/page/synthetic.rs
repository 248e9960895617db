//! Sessions made event by event: long ones, and ones of many processes.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use firstfin::{
    course::{Course, MAX_POINTS, MAX_PROCESSES},
    model::{
        Census, Connection, Event, Leaving, Name, Netns, NetnsCensus, OpenKind, ProcessKey, SocketFacts, SocketHolders,
        SocketId, SocketRow, Task, TcpState, TimeWaitChange, TimeWaitEvent, TimeWaitId, TimeWaitMade, TimeWaitSubstate,
        Timestamp, Transition,
    },
    recording::Played,
    report::SessionFacts,
    state::{Input, Limits, State},
};

use super::page;

const BEGIN: u64 = 1_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const NETNS: Netns = Netns(4_026_531_840);
/// TIME_WAIT lasts for so many seconds.
const LASTS: u64 = 60;

fn task(process: u32) -> Arc<Task> {
    Arc::new(Task {
        key: ProcessKey { tgid: 1_000 + process, start_ticks: 77 },
        uid: 0,
        comm: Name::from(format!("worker-{process}").as_str()),
        cgroup_id: 1,
        is_kernel_thread: false,
        is_agent: false,
    })
}

/// The connection number `number` of a process: a port of its own towards a destination of its own.
fn connection(process: u32, number: u64) -> Connection {
    let port = 1_024 + u16::try_from(number % 60_000).unwrap();
    let there = Ipv4Addr::from(0x0a00_0000 + process);
    Connection {
        netns: NETNS,
        local: SocketAddr::from((Ipv4Addr::new(10, 9, 8, 7), port)),
        remote: SocketAddr::from((there, 443)),
    }
}

fn enters(task: &Arc<Task>, connection: Connection, id: u64, at: Timestamp) -> Event {
    Event::Transition(Transition {
        at,
        socket: SocketId(id),
        connection,
        old: TcpState::FinWait2,
        new: TcpState::Close,
        opened: Some(OpenKind::Active),
        born: Some(at),
        opener: Some(Arc::clone(task)),
        accepter: None,
        closer: Some(Arc::clone(task)),
        timewait: Some(TimeWaitMade::Made { id: TimeWaitId(id), substate: TimeWaitSubstate::TimeWait }),
        facts: SocketFacts { established: true, fin_first: true, fin_received: true, ..SocketFacts::default() },
    })
}

/// A session of so many seconds, in each of which each process closes a connection first.
fn session(processes: u32, seconds: u64) -> (Played, Course) {
    let mut state = State::new(Timestamp(BEGIN), Limits::default());
    let mut course = Course::default();
    let mut feed = |state: &mut State, input: Input| {
        course.hear(state, &input);
        state.feed(input);
    };
    feed(&mut state, Input::Begin { census: Census::default(), holders: SocketHolders::default() });
    let tasks: Vec<_> = (0..processes).map(task).collect();
    let mut waiting = VecDeque::new();
    let mut id = 0;
    for second in 0..seconds {
        // In the middle of a second, so that each point of time has what came before it.
        let at = Timestamp(BEGIN + second * SECOND + SECOND / 2);
        while let Some((entered, connection, id)) = waiting.front().copied()
            && entered + LASTS <= second
        {
            waiting.pop_front();
            let change = TimeWaitChange::Left(Leaving::Expired);
            feed(&mut state, Input::Event(Event::TimeWait(TimeWaitEvent { at, id, connection, change })));
        }
        for (process, task) in (0..).zip(&tasks) {
            id += 1;
            let connection = connection(process, second);
            feed(&mut state, Input::Event(enters(task, connection, id, at)));
            waiting.push_back((second, connection, TimeWaitId(id)));
        }
    }
    let at = Timestamp(BEGIN + seconds * SECOND);
    let mut namespace = NetnsCensus { netns: NETNS, at, ..NetnsCensus::default() };
    for (entered, connection, _) in &waiting {
        namespace.rows.push(&SocketRow {
            connection: *connection,
            state: TcpState::TimeWait,
            time_wait_left: Some(Duration::from_secs(LASTS - (seconds - entered).min(LASTS))),
            inode: None,
            uid: 0,
            silent_for: None,
        });
    }
    let census = Census { at, namespaces: vec![namespace], unreachable: Vec::new() };
    let facts = SessionFacts { duration: Duration::from_secs(seconds), ..SessionFacts::default() };
    course.end(&state, &census, &facts);
    (Played { state, census, facts }, course)
}

pub(super) fn a_long_session_of_many_processes_stays_small() {
    let (played, course) = session(500, 600);
    let (report, page) = page(&played, &course);
    assert_eq!(report.time_wait.by_process.len(), 500);
    assert_eq!(report.time_wait.total, 500 * LASTS);
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    for process in [0, 250, 499] {
        assert!(page.contains(&format!("worker-{process}[{}]", 1_000 + process)), "worker-{process} is not on it");
    }
    assert!(page.contains("other processes"));
}

pub(super) fn the_timeline_ends_with_the_report() {
    let (played, course) = session(20, 100);
    let report = played.report();
    let timeline = &course.timeline;
    let last = timeline.points().len() - 1;
    assert_eq!(last, 100);
    assert_eq!(timeline.points()[last].at, Timestamp(BEGIN + 100 * SECOND));
    assert_eq!(timeline.columns().len(), 20);
    for column in timeline.columns() {
        let pid = column.key.unwrap().tgid;
        let said = report.time_wait.by_process.iter().find(|it| it.process.pid == pid).unwrap();
        assert_eq!(column.at(last), said.sockets, "{pid}");
        // One more each second, until the first of them are over.
        for second in [0, 1, 30, 60, 61, 99] {
            assert_eq!(column.at(second), (second as u64).min(LASTS), "{pid} at {second} s");
        }
    }
    assert_eq!(course.closings.total.here, 2_000);
    assert_eq!(course.closings.paths.time_wait, 2_000);
    assert_eq!(course.closings.ranking.len(), 20);
    assert_eq!(timeline.counted().last().map(|(_, count)| *count), Some(20 * LASTS));
}

pub(super) fn a_session_of_any_length_takes_the_same_room() {
    let (_, course) = session(3, 5_000);
    let timeline = &course.timeline;
    assert!(timeline.points().len() <= MAX_POINTS + 1, "{}", timeline.points().len());
    assert_eq!(timeline.step(), 8 * SECOND);
    for (place, point) in timeline.points().iter().enumerate().take(600) {
        assert_eq!(point.at, Timestamp(BEGIN + 8 * SECOND * place as u64));
        let second = 8 * place as u64;
        assert_eq!(timeline.columns()[0].at(place), second.min(LASTS), "at {second} s");
        assert_eq!(point.entered, 3 * second);
    }
}

/// A session of twenty seconds in which each process closes some connections at its beginning, and a census at ten seconds.
fn with_census(connections: &[u64], census: Census) -> Course {
    let mut state = State::new(Timestamp(BEGIN), Limits::default());
    let mut course = Course::default();
    let mut feed = |input: Input| {
        course.hear(&state, &input);
        state.feed(input);
    };
    feed(Input::Begin { census: Census::default(), holders: SocketHolders::default() });
    let mut id = 0;
    for (process, count) in (0..).zip(connections) {
        for number in 0..*count {
            id += 1;
            let at = Timestamp(BEGIN + SECOND / 2 + id);
            feed(Input::Event(enters(&task(process), connection(process, number), id, at)));
        }
    }
    feed(Input::Census(Census { at: Timestamp(BEGIN + 10 * SECOND), ..census }));
    let facts = SessionFacts { duration: Duration::from_secs(20), ..SessionFacts::default() };
    course.end(&state, &Census { at: Timestamp(BEGIN + 20 * SECOND), ..Census::default() }, &facts);
    course
}

fn all_at(course: &Course, point: usize) -> u64 {
    let columns = course.timeline.columns().iter().map(|column| column.at(point));
    columns.sum::<u64>() + course.timeline.others().at(point)
}

/// Where leaving is not observed, a census is what tells.
pub(super) fn what_a_census_does_not_show_is_not_counted() {
    // The namespace is not among those that are there any more, and with it went its sockets.
    let gone = with_census(&[30, 12], Census::default());
    assert_eq!([0, 1, 9, 11, 19].map(|point| all_at(&gone, point)), [0, 42, 42, 0, 0]);
    // It is there, and could not be looked into: nothing is known of it, so nothing is taken away.
    let unreachable = vec![(NETNS, "Permission denied".to_owned())];
    let unseen = with_census(&[30, 12], Census { unreachable, ..Census::default() });
    assert_eq!([0, 1, 9, 11, 19].map(|point| all_at(&unseen, point)), [0, 42, 42, 42, 42]);
    // It was looked into, and shows some of them still.
    let mut namespace = NetnsCensus { netns: NETNS, at: Timestamp(BEGIN + 10 * SECOND), ..NetnsCensus::default() };
    for number in 0..7 {
        namespace.rows.push(&SocketRow {
            connection: connection(0, number),
            state: TcpState::TimeWait,
            time_wait_left: Some(Duration::from_secs(50)),
            inode: None,
            uid: 0,
            silent_for: None,
        });
    }
    let some = with_census(&[30, 12], Census { namespaces: vec![namespace], ..Census::default() });
    assert_eq!([1, 9, 11, 19].map(|point| all_at(&some, point)), [42, 42, 7, 7]);
    assert_eq!(some.timeline.counted()[1], (Timestamp(BEGIN + 10 * SECOND), 7));
}

pub(super) fn processes_beyond_the_limit_are_counted_together() {
    let connections: Vec<u64> = (0..700).map(|process| process % 7 + 1).collect();
    let unreachable = vec![(NETNS, "Permission denied".to_owned())];
    let course = with_census(&connections, Census { unreachable, ..Census::default() });
    assert_eq!(course.timeline.columns().len(), MAX_PROCESSES);
    assert!(course.timeline.others().peak > 0);
    let least = course.timeline.columns().iter().map(|column| column.peak).min();
    assert_eq!(least, Some(2), "those with one connection, and some with two, have no column");
    for point in [1, 5, 19] {
        assert_eq!(all_at(&course, point), connections.iter().sum::<u64>(), "at {point}");
    }
}
