//! The ledger of timewait sockets, fed with records as a kernel on the upper rungs writes them: whatever enters has left
//! or is there, in any order two CPUs can bring about.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, net::SocketAddr};

use agent_ebpf::{
    Ends, Header, RecordKind, Task, TaskNumber, TaskRecord, TimeWaitChange, TimeWaitRecord, TransitionRecord,
    conn_flag, task_flag, timewait_state,
};
use firstfin::{
    decode::Decoder,
    model::{
        Census, Connection, Leaving, Netns, NetnsCensus, NetnsSettings, OpenKind, ProcessKey, SocketRow, TcpState,
        Timestamp,
    },
    state::{Attribution, Closes, Input, Left, Limits, Reason, State},
};
use proptest::prelude::*;
use zerocopy::IntoBytes as _;

const STARTED: Timestamp = Timestamp(1_000_000_000);
const NETNS: u32 = 7;
const AGENT: u32 = 99;

fn key(tgid: u32) -> ProcessKey {
    ProcessKey { tgid, start_ticks: 0 }
}

fn task(tgid: u32) -> Task {
    let agent = if tgid == AGENT { task_flag::AGENT } else { 0 };
    Task { tgid, comm: *b"worker\0\0\0\0\0\0\0\0\0\0", flags: task_flag::PRESENT | agent, ..Task::default() }
}

fn at(ms: u64) -> u64 {
    STARTED.0 + ms * 1_000_000
}

const ENDS: Ends = Ends::V4([10, 0, 0, 1], [10, 0, 0, 2]);

/// The end of a connection of process `tgid` that got the timewait socket `timewait`.
fn entered(port: u16, tgid: u32, timewait: u64, timewait_state: u8, ms: u64) -> TransitionRecord {
    TransitionRecord {
        header: Header {
            kind: RecordKind::Transition as u8,
            what: (TcpState::FinWait2 as u8) << 4 | TcpState::Close as u8,
            flags: conn_flag::ACTIVE_OPEN | conn_flag::SEEN_BEGIN | conn_flag::FIN_FIRST,
            netns: NETNS,
            time_ns: at(ms),
        },
        socket: if timewait == 0 { 0xffff_0000_0000_0000 | u64::from(port) } else { timewait },
        opener: tgid,
        closer: tgid,
        local_port: port,
        remote_port: 80,
        timewait_state,
        ..TransitionRecord::default()
    }
}

fn changed(port: u16, timewait: u64, change: TimeWaitChange, substate: u8, ms: u64) -> TimeWaitRecord {
    TimeWaitRecord {
        header: Header {
            kind: RecordKind::TimeWait as u8,
            what: change as u8,
            flags: 0,
            netns: NETNS,
            time_ns: at(ms),
        },
        timewait,
        local_port: port,
        remote_port: 80,
        substate,
        reserved: [0; 3],
    }
}

fn state() -> State {
    State::new(STARTED, Limits::default())
}

/// A decoder that has been told of every process these tests have, by numbers that are their pids.
fn decoder() -> Decoder {
    let mut decoder = Decoder::default();
    for tgid in (1..10).chain([AGENT]) {
        let header = Header { kind: RecordKind::Task as u8, ..Header::default() };
        let number = TaskNumber { count: tgid, origin: 0, reserved: 0 };
        decoder.decode(TaskRecord { header, number, task: task(tgid) }.as_bytes()).expect("well formed");
    }
    decoder
}

fn feed(state: &mut State, record: &[u8]) {
    state.feed(Input::Event(decoder().decode(record).expect("well formed")));
}

fn closes(state: &State, tgid: u32) -> Closes {
    state.turnover().by_process().find(|(of, _)| *of == key(tgid)).map(|(_, closes)| closes.clone()).unwrap_or_default()
}

fn row(port: u16) -> SocketRow {
    SocketRow {
        connection: Connection {
            netns: Netns(NETNS),
            local: SocketAddr::from(([10, 0, 0, 1], port)),
            remote: SocketAddr::from(([10, 0, 0, 2], 80)),
        },
        state: TcpState::TimeWait,
        time_wait_left: Some(std::time::Duration::from_secs(50)),
        inode: None,
        uid: 0,
        silent_for: None,
    }
}

fn census(ports: &[u16], ms: u64) -> Census {
    let rows: Vec<SocketRow> = ports.iter().map(|port| row(*port)).collect();
    Census {
        at: Timestamp(at(ms)),
        namespaces: vec![NetnsCensus {
            netns: Netns(NETNS),
            at: Timestamp(at(ms)),
            kernel_time_wait: Some(rows.len() as u64),
            rows: rows.into(),
            time_wait_overflow: Some(0),
            settings: NetnsSettings::default(),
        }],
        unreachable: Vec::new(),
    }
}

const WAYS: [(TimeWaitChange, u8, Leaving); 9] = [
    (TimeWaitChange::Expired, 6, Leaving::Expired),
    (TimeWaitChange::Expired, 5, Leaving::FinNeverCame),
    (TimeWaitChange::Reused, 6, Leaving::Reused),
    (TimeWaitChange::NewSyn, 6, Leaving::NewSyn),
    (TimeWaitChange::Reset, 6, Leaving::Reset),
    (TimeWaitChange::ResetAfterData, 5, Leaving::ResetAfterData),
    (TimeWaitChange::Destroyed, 6, Leaving::Destroyed),
    (TimeWaitChange::NetnsGone, 6, Leaving::NetnsGone),
    (TimeWaitChange::LeftUnexplained, 6, Leaving::Unexplained),
];

#[test]
fn each_way_to_leave_has_its_name() {
    for (change, substate, why) in WAYS {
        let mut state = state();
        feed(&mut state, &entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).encode(ENDS, None));
        feed(&mut state, &changed(1, 0xa, change, substate, 2).encode(ENDS));
        let closes = closes(&state, 5);
        assert_eq!((closes.entered, &closes.left), (1, &Left::from([(why, 1)])), "{change:?} of {substate}");
        assert_eq!(state.turnover().all_left(), closes.left);
        let gone = state.attribute(&row(1), Timestamp(at(3)), false);
        assert_eq!(gone, Attribution::Unknown(Reason::NotSeen), "nothing is left of it");
    }
}

#[test]
fn a_refusal_is_no_entry() {
    let mut state = state();
    feed(&mut state, &entered(1, 5, 0, timewait_state::REFUSED, 1).encode(ENDS, None));
    let closes = closes(&state, 5);
    assert_eq!((closes.entered, closes.refused, closes.closed_first), (0, 1, 1));
}

#[test]
fn a_minisocket_that_became_time_wait_is_the_same_entry() {
    let mut state = state();
    feed(&mut state, &entered(1, 5, 0xa, timewait_state::FIN_WAIT2, 1).encode(ENDS, None));
    feed(&mut state, &changed(1, 0xa, TimeWaitChange::BecameTimeWait, 6, 2).encode(ENDS));
    let closes = closes(&state, 5);
    assert_eq!((closes.entered, closes.became, closes.left.total()), (1, 1, 0));
}

/// The record of another CPU overtakes: the socket left before it entered.
#[test]
fn an_overtaken_entry_has_left() {
    let mut state = state();
    feed(&mut state, &changed(1, 0xa, TimeWaitChange::Reset, 6, 2).encode(ENDS));
    feed(&mut state, &entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).encode(ENDS, None));
    assert_eq!(closes(&state, 5).left, Left::from([(Leaving::Reset, 1)]));
}

/// The four numbers are used again: what is said of the old socket must not touch the new one.
#[test]
fn another_socket_of_the_same_numbers_is_another() {
    let mut state = state();
    feed(&mut state, &entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).encode(ENDS, None));
    feed(&mut state, &entered(1, 6, 0xb, timewait_state::TIME_WAIT, 2).encode(ENDS, None));
    feed(&mut state, &changed(1, 0xa, TimeWaitChange::Reused, 6, 2).encode(ENDS));
    assert_eq!(closes(&state, 5).left, Left::from([(Leaving::Unseen, 1)]), "its end was overtaken");
    assert_eq!(closes(&state, 6).left, Left::default());
    let there = state.attribute(&row(1), Timestamp(at(3)), false);
    assert_eq!(there, Attribution::Process(key(6), Some(OpenKind::Active)));
}

/// One census is not enough to give a socket up: why it left may be on its way.
#[test]
fn what_two_censuses_do_not_show_was_not_seen_to_leave() {
    let mut state = state();
    feed(&mut state, &entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).encode(ENDS, None));
    feed(&mut state, &entered(2, 5, 0xb, timewait_state::TIME_WAIT, 1).encode(ENDS, None));
    state.feed(Input::Census(census(&[], 1_000)));
    assert_eq!(closes(&state, 5).left, Left::default());
    feed(&mut state, &changed(2, 0xb, TimeWaitChange::Expired, 6, 900).encode(ENDS));
    state.feed(Input::Census(census(&[], 2_000)));
    assert_eq!(closes(&state, 5).left, Left::from([(Leaving::Expired, 1), (Leaving::Unseen, 1)]));
}

/// A report comes after the records of what left before its census.
#[test]
fn what_the_last_census_does_not_show_has_left() {
    let mut state = state();
    feed(&mut state, &entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).encode(ENDS, None));
    feed(&mut state, &entered(2, 5, 0xb, timewait_state::TIME_WAIT, 1).encode(ENDS, None));
    feed(&mut state, &entered(3, 5, 0xc, timewait_state::TIME_WAIT, 1_001).encode(ENDS, None));
    let turnover = state.turnover_at(&census(&[2], 1_000));
    assert_eq!(turnover.all_left(), Left::from([(Leaving::Unseen, 1)]), "the third is newer than the census");
    assert_eq!(turnover.by_process().map(|(key, closes)| (key.tgid, closes.entered)).collect::<Vec<_>>(), [(5, 3)]);
    assert_eq!(state.turnover().all_left(), Left::default());
}

/// The agent holds every file it looks at for a moment, and may be the one who closes it.
#[test]
fn the_agent_is_nobodys_closer() {
    let mut record = entered(1, AGENT, 0xa, timewait_state::TIME_WAIT, 1);
    record.opener = 5;
    let mut known = state();
    feed(&mut known, &record.encode(ENDS, None));
    let there = |state: &State| state.attribute(&row(1), Timestamp(at(3)), false);
    assert_eq!(there(&known), Attribution::Process(key(5), Some(OpenKind::Active)));

    // Accepted: by whom is known where accept() is observed.
    record.header.flags = conn_flag::PASSIVE_OPEN | conn_flag::FIN_FIRST;
    let mut accepted = state();
    feed(&mut accepted, &record.encode(ENDS, None));
    assert_eq!(there(&accepted), Attribution::Process(key(5), Some(OpenKind::Passive)));

    record.opener = 0;
    let mut unknown = state();
    feed(&mut unknown, &record.encode(ENDS, None));
    assert_eq!(there(&unknown), Attribution::Unknown(Reason::Agent));
}

/// Somebody closed it, and who that was got lost: that is another reason than that it closed before the session.
#[test]
fn a_closer_that_got_lost_is_said_to_be() {
    let mut record = entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1);
    (record.closer, record.closer_origin) = (TaskNumber::LOST.count, TaskNumber::LOST.origin);
    let mut state = state();
    feed(&mut state, &record.encode(ENDS, None));
    assert_eq!(state.attribute(&row(1), Timestamp(at(3)), false), Attribution::Unknown(Reason::EventLost));
    record.closer = 0;
    let mut before = self::state();
    feed(&mut before, &TransitionRecord { closer_origin: 0, ..record }.encode(ENDS, None));
    assert_eq!(before.attribute(&row(1), Timestamp(at(3)), false), Attribution::Unknown(Reason::ClosedBefore));
}

proptest! {
    /// Any number of connections, of few processes and few ports, that enter and leave in any way, with records lost
    /// and censuses in between.
    #[test]
    fn what_entered_has_left_or_is_there(
        steps in prop::collection::vec((0_u16..6, 0_u32..3, 0_usize..12, any::<bool>()), 0..120)
    ) {
        let mut state = state();
        let mut there: BTreeMap<u16, u64> = BTreeMap::new();
        for (ms, (port, tgid, way, is_lost)) in (1..).zip(steps) {
            match (there.get(&port).copied(), WAYS.get(way)) {
                (Some(timewait), Some((change, substate, _))) => {
                    there.remove(&port);
                    if !is_lost {
                        feed(&mut state, &changed(port, timewait, *change, *substate, ms).encode(ENDS));
                    }
                }
                (None, Some(_)) => {
                    there.insert(port, ms);
                    feed(&mut state, &entered(port, tgid + 1, ms, timewait_state::TIME_WAIT, ms).encode(ENDS, None));
                }
                (_, None) => {
                    let ports: Vec<u16> = there.keys().copied().collect();
                    state.feed(Input::Census(census(&ports, ms)));
                }
            }
        }
        let end = 1_000;
        let ports: Vec<u16> = there.keys().copied().collect();
        let turnover = state.turnover_at(&census(&ports, end));
        for tgid in 1..=3 {
            let closes = turnover.by_process().find(|(of, _)| *of == key(tgid)).map(|(_, closes)| closes.clone());
            let closes = closes.unwrap_or_default();
            let rows = ports.iter().filter(|port| {
                state.attribute(&row(**port), Timestamp(at(end)), false)
                    == Attribution::Process(key(tgid), Some(OpenKind::Active))
            });
            prop_assert_eq!(closes.entered, closes.left.total() + rows.count() as u64);
        }
    }

    #[test]
    fn substates_and_changes_that_mean_nothing_are_errors(change in any::<u8>(), substate in any::<u8>()) {
        let mut record = changed(1, 0xa, TimeWaitChange::Expired, 6, 1);
        (record.header.what, record.substate) = (change, substate);
        let is_known = TimeWaitChange::from_u8(change).is_some()
            && [timewait_state::FIN_WAIT2, timewait_state::TIME_WAIT].contains(&substate);
        prop_assert_eq!(decoder().decode(&record.encode(ENDS)).is_ok(), is_known);
    }
}
