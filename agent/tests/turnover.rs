//! The ledger of timewait sockets, fed with records as a kernel on the upper rungs writes them: whatever enters has left
//! or is there, in any order two CPUs can bring about.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, net::SocketAddr};

use agent_ebpf::{
    Address, Header, RecordKind, SocketFacts, Task, TimeWaitChange, TimeWaitRecord, TransitionRecord, conn_flag,
    task_flag, timewait_state,
};
use firstfin::{
    decode::decode,
    model::{
        Census, Connection, Leaving, Netns, NetnsCensus, NetnsSettings, OpenKind, ProcessKey, SocketRow, TcpState,
        Timestamp,
    },
    state::{Attribution, Closes, Input, Limits, Reason, State},
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

fn address(last: u8) -> Address {
    Address([10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// The end of a connection of process `tgid` that got the timewait socket `timewait`.
fn entered(port: u16, tgid: u32, timewait: u64, timewait_state: u8, ms: u64) -> TransitionRecord {
    TransitionRecord {
        header: Header { kind: RecordKind::Transition as u32, cpu: 0, time_ns: at(ms) },
        sk: 0xffff_0000_0000_0000 | u64::from(port),
        netns: NETNS,
        family: 2,
        old_state: TcpState::FinWait2 as u8,
        new_state: TcpState::Close as u8,
        local: address(1),
        remote: address(2),
        local_port: port,
        remote_port: 80,
        port_errno: 0,
        timewait_state,
        reserved: 0,
        timewait,
        facts: SocketFacts {
            born_ns: at(0),
            flags: conn_flag::ACTIVE_OPEN | conn_flag::ESTABLISHED | conn_flag::FIN_FIRST,
            ..SocketFacts::default()
        },
        opener: task(tgid),
        closer: task(tgid),
    }
}

fn changed(port: u16, timewait: u64, change: TimeWaitChange, substate: u8, ms: u64) -> TimeWaitRecord {
    TimeWaitRecord {
        header: Header { kind: RecordKind::TimeWait as u32, cpu: 1, time_ns: at(ms) },
        timewait,
        netns: NETNS,
        family: 2,
        change: change as u8,
        substate,
        local: address(1),
        remote: address(2),
        local_port: port,
        remote_port: 80,
        reserved: 0,
    }
}

fn state() -> State {
    State::new(STARTED, Limits::default())
}

fn feed(state: &mut State, record: &[u8]) {
    state.feed(Input::Event(decode(record).expect("well formed")));
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
            rows,
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
        feed(&mut state, entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).as_bytes());
        feed(&mut state, changed(1, 0xa, change, substate, 2).as_bytes());
        let closes = closes(&state, 5);
        assert_eq!((closes.entered, &closes.left), (1, &BTreeMap::from([(why, 1)])), "{change:?} of {substate}");
        assert_eq!(state.turnover().all_left(), closes.left);
        let gone = state.attribute(&row(1), Timestamp(at(3)), false);
        assert_eq!(gone, Attribution::Unknown(Reason::NotSeen), "nothing is left of it");
    }
}

#[test]
fn a_refusal_is_no_entry() {
    let mut state = state();
    feed(&mut state, entered(1, 5, 0, timewait_state::REFUSED, 1).as_bytes());
    let closes = closes(&state, 5);
    assert_eq!((closes.entered, closes.refused, closes.closed_first), (0, 1, 1));
}

#[test]
fn a_minisocket_that_became_time_wait_is_the_same_entry() {
    let mut state = state();
    feed(&mut state, entered(1, 5, 0xa, timewait_state::FIN_WAIT2, 1).as_bytes());
    feed(&mut state, changed(1, 0xa, TimeWaitChange::BecameTimeWait, 6, 2).as_bytes());
    let closes = closes(&state, 5);
    assert_eq!((closes.entered, closes.became, closes.left.len()), (1, 1, 0));
}

/// The record of another CPU overtakes: the socket left before it entered.
#[test]
fn an_overtaken_entry_has_left() {
    let mut state = state();
    feed(&mut state, changed(1, 0xa, TimeWaitChange::Reset, 6, 2).as_bytes());
    feed(&mut state, entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).as_bytes());
    assert_eq!(closes(&state, 5).left, BTreeMap::from([(Leaving::Reset, 1)]));
}

/// The four numbers are used again: what is said of the old socket must not touch the new one.
#[test]
fn another_socket_of_the_same_numbers_is_another() {
    let mut state = state();
    feed(&mut state, entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).as_bytes());
    feed(&mut state, entered(1, 6, 0xb, timewait_state::TIME_WAIT, 2).as_bytes());
    feed(&mut state, changed(1, 0xa, TimeWaitChange::Reused, 6, 2).as_bytes());
    assert_eq!(closes(&state, 5).left, BTreeMap::from([(Leaving::Unseen, 1)]), "its end was overtaken");
    assert_eq!(closes(&state, 6).left, BTreeMap::new());
    let there = state.attribute(&row(1), Timestamp(at(3)), false);
    assert_eq!(there, Attribution::Process(key(6), Some(OpenKind::Active)));
}

/// One census is not enough to give a socket up: why it left may be on its way.
#[test]
fn what_two_censuses_do_not_show_was_not_seen_to_leave() {
    let mut state = state();
    feed(&mut state, entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).as_bytes());
    feed(&mut state, entered(2, 5, 0xb, timewait_state::TIME_WAIT, 1).as_bytes());
    state.feed(Input::Census(census(&[], 1_000)));
    assert_eq!(closes(&state, 5).left, BTreeMap::new());
    feed(&mut state, changed(2, 0xb, TimeWaitChange::Expired, 6, 900).as_bytes());
    state.feed(Input::Census(census(&[], 2_000)));
    assert_eq!(closes(&state, 5).left, BTreeMap::from([(Leaving::Expired, 1), (Leaving::Unseen, 1)]));
}

/// A report comes after the records of what left before its census.
#[test]
fn what_the_last_census_does_not_show_has_left() {
    let mut state = state();
    feed(&mut state, entered(1, 5, 0xa, timewait_state::TIME_WAIT, 1).as_bytes());
    feed(&mut state, entered(2, 5, 0xb, timewait_state::TIME_WAIT, 1).as_bytes());
    feed(&mut state, entered(3, 5, 0xc, timewait_state::TIME_WAIT, 1_001).as_bytes());
    let turnover = state.turnover_at(&census(&[2], 1_000));
    assert_eq!(turnover.all_left(), BTreeMap::from([(Leaving::Unseen, 1)]), "the third is newer than the census");
    assert_eq!(turnover.by_process().map(|(key, closes)| (key.tgid, closes.entered)).collect::<Vec<_>>(), [(5, 3)]);
    assert_eq!(state.turnover().all_left(), BTreeMap::new());
}

/// The agent holds every file it looks at for a moment, and may be the one who closes it.
#[test]
fn the_agent_is_nobodys_closer() {
    let mut record = entered(1, AGENT, 0xa, timewait_state::TIME_WAIT, 1);
    record.opener = task(5);
    let mut known = state();
    feed(&mut known, record.as_bytes());
    let there = |state: &State| state.attribute(&row(1), Timestamp(at(3)), false);
    assert_eq!(there(&known), Attribution::Process(key(5), Some(OpenKind::Active)));

    // Accepted: by whom is known where accept() is observed.
    record.facts.flags = conn_flag::PASSIVE_OPEN | conn_flag::ESTABLISHED | conn_flag::FIN_FIRST;
    let mut accepted = state();
    feed(&mut accepted, record.as_bytes());
    assert_eq!(there(&accepted), Attribution::Process(key(5), Some(OpenKind::Passive)));

    record.opener = Task::default();
    let mut unknown = state();
    feed(&mut unknown, record.as_bytes());
    assert_eq!(there(&unknown), Attribution::Unknown(Reason::Agent));
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
                        feed(&mut state, changed(port, timewait, *change, *substate, ms).as_bytes());
                    }
                }
                (None, Some(_)) => {
                    there.insert(port, ms);
                    feed(&mut state, entered(port, tgid + 1, ms, timewait_state::TIME_WAIT, ms).as_bytes());
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
            prop_assert_eq!(closes.entered, closes.left.values().sum::<u64>() + rows.count() as u64);
        }
    }

    #[test]
    fn substates_and_changes_that_mean_nothing_are_errors(change in any::<u8>(), substate in any::<u8>()) {
        let mut record = changed(1, 0xa, TimeWaitChange::Expired, 6, 1);
        (record.change, record.substate) = (change, substate);
        let is_known = TimeWaitChange::from_u8(change).is_some()
            && [timewait_state::FIN_WAIT2, timewait_state::TIME_WAIT].contains(&substate);
        prop_assert_eq!(decode(record.as_bytes()).is_ok(), is_known);
    }
}
