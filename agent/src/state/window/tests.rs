//! Months of a fork-heavy host, in windows: tables come back to a plateau, and every socket has its owner.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use super::*;
use crate::{
    model::{
        Connection, Event, Leaving, Name, Netns, NetnsCensus, NetnsSettings, OpenKind, Process, SocketFacts, SocketId,
        SocketRow, Task, TcpState, TimeWaitChange, TimeWaitEvent, TimeWaitId, TimeWaitMade, TimeWaitSubstate,
        Transition,
    },
    state::{Attribution, Input, Limits, turnover::OwnerId},
};

const STARTED: Timestamp = Timestamp(1_000_000_000_000);
/// Length of a window. A TIME_WAIT lives for six of them.
const WINDOW: Duration = Duration::from_secs(10);
const LIVE: u64 = 6;
/// New processes a window, each with a connection.
const PROCESSES: u64 = 500;
/// Network namespaces that come with each window, and go when their sockets have.
const NAMESPACES: u64 = 10;
/// Processes that live all the time, and have a connection each window.
const DAEMONS: u64 = 3;

fn key(number: u64) -> ProcessKey {
    ProcessKey { tgid: number as u32 % 30_000 + 1, start_ticks: number }
}

fn task(number: u64) -> Task {
    Task {
        key: key(number),
        uid: 0,
        comm: Name::from(format!("p{number}").as_str()),
        cgroup_id: 1,
        is_kernel_thread: false,
        is_agent: false,
    }
}

/// A connection of a window that ends in TIME_WAIT.
#[derive(Clone, Copy)]
struct Made {
    window: u64,
    /// Which one of its window
    number: u64,
    process: u64,
}

impl Made {
    fn at(self) -> Timestamp {
        Timestamp(STARTED.0 + self.window * WINDOW.as_nanos() as u64 + 1 + self.number * 1_000)
    }

    fn netns(self) -> Netns {
        Netns((4_000_000 + self.window * NAMESPACES + self.number % NAMESPACES) as u32)
    }

    /// The same numbers come back with another owner, in other namespaces and in windows to come.
    fn connection(self) -> Connection {
        let [.., a, b] = ((self.window * PROCESSES + self.number) as u32).to_be_bytes();
        Connection {
            netns: self.netns(),
            local: SocketAddr::from(([10, 0, 0, 1], 40_000 + self.number as u16)),
            remote: SocketAddr::from(([10, 1, a, b], 80)),
        }
    }

    fn id(self) -> TimeWaitId {
        TimeWaitId(self.window << 16 | self.number)
    }

    fn entered(self) -> Event {
        let task = Arc::new(task(self.process));
        Event::Transition(Transition {
            at: self.at(),
            socket: SocketId(self.id().0),
            connection: self.connection(),
            old: TcpState::FinWait2,
            new: TcpState::Close,
            opened: Some(OpenKind::Active),
            born: Some(self.at()),
            opener: Some(Arc::clone(&task)),
            accepter: None,
            closer: Some(task),
            timewait: Some(TimeWaitMade::Made { id: self.id(), substate: TimeWaitSubstate::TimeWait }),
            facts: SocketFacts { began_in_session: true, established: true, fin_first: true, ..SocketFacts::default() },
        })
    }

    fn left(self, at: Timestamp) -> Event {
        let change = TimeWaitChange::Left(Leaving::Expired);
        Event::TimeWait(TimeWaitEvent { at, id: self.id(), connection: self.connection(), change })
    }

    fn row(self, at: Timestamp) -> SocketRow {
        SocketRow {
            connection: self.connection(),
            state: TcpState::TimeWait,
            time_wait_left: Some(Duration::from_secs(60).saturating_sub(at.since(self.at()))),
            inode: None,
            uid: 0,
            silent_for: None,
        }
    }
}

fn census(at: Timestamp, live: &VecDeque<Made>) -> Census {
    let mut namespaces: Vec<NetnsCensus> = Vec::new();
    for made in live {
        let settings = NetnsSettings { port_range: Some((32_768, 60_999)), ..NetnsSettings::default() };
        let place = namespaces.iter().position(|namespace| namespace.netns == made.netns());
        let place = place.unwrap_or_else(|| {
            namespaces.push(NetnsCensus { netns: made.netns(), at, settings, ..NetnsCensus::default() });
            namespaces.len() - 1
        });
        namespaces[place].rows.push(&made.row(at));
    }
    Census { at, namespaces, unreachable: Vec::new() }
}

/// What the ledger has of each number, against what was added up of it.
fn check_numbers(state: &State) {
    let mut entries: std::collections::HashMap<u32, u64> = std::collections::HashMap::new();
    state.ledger.each(|owner| *entries.entry(owner.number()).or_default() += 1);
    for number in 0..state.turnover.numbers() as u32 {
        let live = state.turnover.live(OwnerId::numbered(number));
        assert_eq!(live, entries.get(&number).copied().unwrap_or_default(), "number {number}");
    }
}

/// One window in four does not see its sockets leave, and one listener in a hundred is not seen to be closed.
#[test]
fn tables_come_back_to_a_plateau_and_owners_stay_right() {
    let mut state = State::new(STARTED, Limits::default());
    let mut live: VecDeque<Made> = VecDeque::new();
    let mut plateau = Sizes::default();
    for window in 0..2_000_u64 {
        let end = Timestamp(STARTED.0 + (window + 1) * WINDOW.as_nanos() as u64);
        while live.front().is_some_and(|made| made.window + LIVE <= window) {
            let made = live.pop_front().unwrap();
            if !made.window.is_multiple_of(4) {
                state.apply(&made.left(end));
            }
        }
        for number in 0..PROCESSES + DAEMONS {
            let process = if number < PROCESSES { DAEMONS + window * PROCESSES + number } else { number - PROCESSES };
            let made = Made { window, number, process };
            state.apply(&Event::ProcessSeen(task(process)));
            let exe = Some(Name::from(format!("/bin/{process}").as_str()));
            if state.process(key(process)).is_none_or(|known| known.exe.is_none()) {
                state.feed(Input::Process(Process { exe, ..Process::from_task(&task(process)) }));
            }
            state.apply(&made.entered());
            live.push_back(made);
        }
        if window.is_multiple_of(100) {
            let mut listen = Made { window, number: 9, process: DAEMONS + window * PROCESSES }.entered();
            if let Event::Transition(listen) = &mut listen {
                (listen.old, listen.new) = (TcpState::Close, TcpState::Listen);
            }
            state.apply(&listen);
        }
        let census = census(end, &live);
        for made in &live {
            let owner = Attribution::Process(key(made.process), Some(OpenKind::Active));
            assert_eq!(state.attribute(&made.row(end), end, false), owner, "window {window}, made in {}", made.window);
            if window.is_multiple_of(20) {
                let known = state.process(key(made.process)).unwrap();
                assert_eq!(known.comm.as_str(), format!("p{}", made.process));
                assert!(known.exe.is_some(), "its description is kept as long as it is named");
            }
        }
        let at_end = state.sizes();
        if window == 200 {
            plateau = at_end;
        }
        let gone = state.processes().filter(|process| process.start_ticks >= DAEMONS).collect();
        state.feed(Input::Window { at: end, census, gone });
        if window.is_multiple_of(50) {
            check_numbers(&state);
        }
        if window > 200 {
            // Sockets that nobody saw leave stay until two censuses do not show them: that comes and goes with four windows.
            let allowed = |of: usize| of + of / 4 + 8;
            let is_within = at_end.timewait_sockets <= allowed(plateau.timewait_sockets)
                && at_end.processes <= allowed(plateau.processes)
                && at_end.process_places <= allowed(plateau.process_places)
                && at_end.owner_numbers <= allowed(plateau.owner_numbers)
                && at_end.listeners <= plateau.listeners + 1
                && at_end.peaks <= allowed(plateau.peaks)
                && at_end.routes <= Limits::default().routes;
            assert!(is_within, "window {window}: {at_end:?}, where it was {plateau:?}");
        }
        for daemon in 0..DAEMONS {
            assert!(state.process(key(daemon)).is_some_and(|known| known.exe.is_some()), "it runs");
        }
    }
    assert!(plateau.process_places < 6_000, "{plateau:?}");
}

#[test]
fn a_number_is_given_to_another_only_when_no_socket_bears_it() {
    let mut state = State::new(STARTED, Limits::default());
    let first = Made { window: 0, number: 0, process: 1 };
    state.apply(&first.entered());
    let live = VecDeque::from([first]);
    let end = |window: u64| Timestamp(STARTED.0 + (window + 1) * WINDOW.as_nanos() as u64);
    state.feed(Input::Window { at: end(0), census: census(end(0), &live), gone: vec![key(1)] });
    let second = Made { window: 1, number: 1, process: 2 };
    state.apply(&second.entered());
    let mine = |state: &State, made: Made| state.attribute(&made.row(end(1)), end(1), false);
    let owner = |number| Attribution::Process(key(number), Some(OpenKind::Active));
    assert_eq!((mine(&state, first), mine(&state, second)), (owner(1), owner(2)));
    assert_eq!(state.sizes().owner_numbers, 2);

    // It leaves during a window of its own: only when that is over is the number free.
    state.apply(&first.left(end(1)));
    let live = VecDeque::from([second]);
    state.feed(Input::Window { at: end(1), census: census(end(1), &live), gone: vec![key(1)] });
    let third = Made { window: 2, number: 2, process: 3 };
    state.apply(&third.entered());
    assert_eq!(state.sizes().owner_numbers, 2, "the first one's is the third one's now");
    assert_eq!((mine(&state, second), mine(&state, third)), (owner(2), owner(3)));
    assert_eq!((state.process(key(1)), state.process(key(2)).is_some()), (None, true));
}

/// The record of a retraction is of the next window: what entered was counted already.
#[test]
fn what_is_taken_back_later_leaves_no_number_behind() {
    let mut state = State::new(STARTED, Limits::default());
    let made = Made { window: 0, number: 0, process: 1 };
    state.apply(&made.entered());
    let end = made.at().plus(WINDOW);
    let window = |state: &mut State| {
        state.feed(Input::Window { at: end, census: census(end, &VecDeque::new()), gone: vec![key(1)] });
    };
    window(&mut state);
    let socket = SocketId(made.id().0);
    state.apply(&Event::Retraction(crate::model::Retraction { at: end, socket, connection: made.connection() }));
    assert_eq!((state.turnover().entered(), state.sizes().timewait_sockets), (0, 0));
    check_numbers(&state);
    window(&mut state);
    assert_eq!(state.process(key(1)), None);
}

/// A parent listens, and exits: its children are the ones that serve, and the listener says whose they are.
#[test]
fn who_listens_is_known_as_long_as_it_is_listened() {
    let mut state = State::new(STARTED, Limits::default());
    let made = Made { window: 0, number: 0, process: 1 };
    let Event::Transition(mut listen) = made.entered() else { panic!() };
    (listen.old, listen.new) = (TcpState::Close, TcpState::Listen);
    state.apply(&Event::Transition(listen));
    let shown = SocketRow { state: TcpState::Listen, time_wait_left: None, ..made.row(STARTED) };
    let census = |at, rows: Vec<SocketRow>| Census {
        at,
        namespaces: vec![NetnsCensus { netns: made.netns(), at, rows: rows.into(), ..NetnsCensus::default() }],
        unreachable: Vec::new(),
    };
    let minute = |number: u64| STARTED.plus(SIFT * number as u32);
    let mut window = |number, rows| {
        state.feed(Input::Window { at: minute(number), census: census(minute(number), rows), gone: vec![key(1)] });
        (state.sizes().listeners, state.process(key(1)).is_some())
    };
    assert_eq!(window(1, vec![shown]), (1, true));
    assert_eq!(window(2, vec![]), (1, true), "a dump can miss one");
    assert_eq!(window(3, vec![shown]), (1, true));
    assert_eq!(window(4, vec![]), (1, true));
    assert_eq!(window(5, vec![]).0, 0, "two did not show it: the record of its end was lost");
    assert!(!window(6, vec![]).1);
}

#[test]
fn a_socket_older_than_the_session_is_forgotten_when_it_must_be_over() {
    let old = Made { window: 0, number: 0, process: 1 };
    let begin = census(STARTED, &VecDeque::from([old]));
    let mut state = State::new(STARTED, Limits::default());
    state.feed(Input::Begin { census: begin, holders: crate::model::SocketHolders::default() });
    let mut window = |minute: u32| {
        let at = STARTED.plus(SIFT * minute);
        state.feed(Input::Window { at, census: census(at, &VecDeque::new()), gone: Vec::new() });
        state.sizes().older_sockets
    };
    assert_eq!([window(1), window(2), window(3)], [1, 1, 0]);
}
