//! What must hold for any input: decoding is total, attribution never names the wrong process, counts never drift.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use agent_ebpf::{
    Address, Header, RecordKind, SocketFacts, SyscallRecord, Task, TaskRecord, TransitionRecord, task_flag,
};
use firstfin::{
    decode::{DecodeError, decode},
    model::{Asker, Census, Connection, Event, Name, Netns, NetnsCensus, ProcessKey, SocketRow, TcpState, Timestamp},
    report::{Lost, Report, SessionFacts, build},
    state::{Input, Limits, State},
};
use proptest::prelude::*;
use zerocopy::{FromBytes as _, IntoBytes as _};

const SECOND: u64 = 1_000_000_000;
/// Sessions of these tests begin here, `CLOCK_BOOTTIME`.
const STARTED: Timestamp = Timestamp(1_000 * SECOND);

fn task(tgid: u32) -> Task {
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().zip(format!("proc-{tgid}").bytes()) {
        *to = from;
    }
    Task {
        tgid,
        uid: 1_000,
        start_ns: u64::from(tgid) * SECOND,
        cgroup: 1,
        comm,
        flags: task_flag::PRESENT,
        reserved: 0,
    }
}

fn key(tgid: u32) -> ProcessKey {
    ProcessKey { tgid, start_ticks: u64::from(tgid) * 100 }
}

/// A connection that was closed by a process and ended a number of milliseconds after the start.
#[derive(Clone, Copy, Debug)]
struct Close {
    /// Makes the local port, hence the connection
    number: u16,
    closer: u32,
    at_ms: u64,
    is_active_close: bool,
}

impl Close {
    fn connection(self) -> Connection {
        Connection {
            netns: Netns(1),
            local: SocketAddr::from(([10, 0, 0, 1], self.number)),
            remote: SocketAddr::from(([10, 0, 0, 2], 80)),
        }
    }

    fn at(self) -> Timestamp {
        STARTED.plus(Duration::from_millis(self.at_ms))
    }

    fn record(self) -> TransitionRecord {
        TransitionRecord {
            header: Header { kind: RecordKind::Transition as u32, cpu: 0, time_ns: self.at().0 },
            sk: 0xffff_0000_0000_0000 | u64::from(self.number),
            netns: 1,
            family: 2,
            old_state: if self.is_active_close { TcpState::FinWait2 } else { TcpState::LastAck } as u8,
            new_state: TcpState::Close as u8,
            local: Address([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            remote: Address([10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            local_port: self.number,
            remote_port: 80,
            port_errno: 0,
            timewait_state: 0,
            reserved: 0,
            timewait: 0,
            facts: SocketFacts {
                born_ns: STARTED.0,
                flags: agent_ebpf::conn_flag::ACTIVE_OPEN
                    | if self.is_active_close {
                        agent_ebpf::conn_flag::FIN_FIRST
                    } else {
                        agent_ebpf::conn_flag::FIN_SECOND
                    },
                fin_received: 1,
                ..SocketFacts::default()
            },
            opener: task(self.closer),
            closer: task(self.closer),
        }
    }

    /// What sock_diag says of it at `dumped`.
    fn row(self, dumped: Timestamp) -> Option<SocketRow> {
        let left = Duration::from_secs(60).checked_sub(dumped.since(self.at()))?;
        self.is_active_close.then(|| SocketRow {
            connection: self.connection(),
            state: TcpState::TimeWait,
            time_wait_left: Some(left),
            inode: None,
            uid: 0,
            silent_for: None,
        })
    }
}

/// Closes with connections of their own, in order of time.
fn closes() -> impl Strategy<Value = Vec<Close>> {
    prop::collection::vec((1_u32..8, 0_u64..50_000, prop::bool::weighted(0.8)), 0..60).prop_map(|closes| {
        let mut closes: Vec<Close> = closes
            .into_iter()
            .enumerate()
            .map(|(number, (closer, at_ms, is_active_close))| Close {
                number: 40_000 + u16::try_from(number).expect("few"),
                closer,
                at_ms,
                is_active_close,
            })
            .collect();
        closes.sort_by_key(|close| close.at_ms);
        closes
    })
}

fn census(closes: &[Close]) -> Census {
    let at = STARTED.plus(Duration::from_secs(55));
    let rows: Vec<SocketRow> = closes.iter().filter_map(|close| close.row(at)).collect();
    let kernel_time_wait = Some(rows.len() as u64);
    Census {
        at,
        namespaces: vec![NetnsCensus { netns: Netns(1), at, rows, kernel_time_wait, ..NetnsCensus::default() }],
        unreachable: Vec::new(),
    }
}

fn facts(lost: u64) -> SessionFacts {
    SessionFacts {
        duration: Duration::from_secs(55),
        lost: Lost { transitions: lost, ..Lost::default() },
        ..SessionFacts::default()
    }
}

fn report(heard: &[Close], there: &[Close]) -> Report {
    let mut state = State::new(STARTED, Limits::default());
    for close in heard {
        state.feed(Input::Event(decode(close.record().as_bytes()).expect("well formed")));
    }
    build(&state, &census(there), &facts((there.len() - heard.len()) as u64))
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        // The point is that it returns; and what it takes for an event has the size of one.
        if decode(&bytes).is_ok() {
            let kinds = [RecordKind::Transition, RecordKind::Syscall, RecordKind::Task, RecordKind::TimeWait];
            let sizes = kinds.map(RecordKind::size);
            prop_assert!(sizes.contains(&bytes.len()));
        }
    }

    #[test]
    fn any_content_of_a_known_kind_is_an_event_or_an_error(kind in 1_u32..=4, noise in prop::collection::vec(any::<u8>(), size_of::<TransitionRecord>())) {
        let size = RecordKind::from_u32(kind).expect("known").size();
        let mut bytes = noise[..size].to_vec();
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        match decode(&bytes) {
            Ok(_) | Err(DecodeError::BadValue { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_wrong_size_is_an_error(kind in 1_u32..=4, change in prop_oneof![-20_i32..0, 1_i32..20]) {
        let size = RecordKind::from_u32(kind).expect("known").size();
        let mut bytes = vec![0; size.checked_add_signed(isize::try_from(change).expect("small")).expect("positive")];
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        let is_right_error = matches!(decode(&bytes), Err(DecodeError::WrongSize { .. }));
        prop_assert!(is_right_error);
    }

    #[test]
    fn what_a_program_writes_is_what_is_read(mut record in any::<[u8; size_of::<TransitionRecord>()]>(), timewait_state in prop::sample::select(&[0, 5, 6, 255_u8][..]), ports in any::<(u16, u16)>(), v6 in any::<bool>()) {
        record[..4].copy_from_slice(&(RecordKind::Transition as u32).to_ne_bytes());
        let mut record = TransitionRecord::read_from_bytes(&record).expect("its size");
        record.family = if v6 { 10 } else { 2 };
        (record.old_state, record.new_state) = (1, 4);
        (record.local_port, record.remote_port) = ports;
        record.timewait_state = timewait_state;
        let Event::Transition(read) = decode(record.as_bytes()).expect("well formed") else {
            return Err(TestCaseError::fail("another event"));
        };
        prop_assert_eq!(read.at.0, record.header.time_ns);
        prop_assert_eq!(read.socket.0, record.sk);
        prop_assert_eq!(read.connection.netns.0, record.netns);
        prop_assert_eq!((read.connection.local.port(), read.connection.remote.port()), ports);
        prop_assert_eq!((read.old, read.new), (TcpState::Established, TcpState::FinWait1));
        // One place for who connected and who accepted.
        let seen = read.opener.as_ref().or(read.accepter.as_ref());
        prop_assert_eq!(seen.is_some(), record.opener.flags & task_flag::PRESENT != 0);
        prop_assert_eq!(read.timewait.is_some(), timewait_state != 0);
        prop_assert_eq!(read.closer.map(|task| task.key.tgid), (record.closer.flags & task_flag::PRESENT != 0).then_some(record.closer.tgid));
        let bytes = record.local.0;
        let expected = if v6 {
            std::net::IpAddr::from(bytes).to_canonical()
        } else {
            std::net::IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        prop_assert_eq!(read.connection.local.ip(), expected);
    }

    #[test]
    fn a_name_never_acts_on_a_terminal(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let name = Name::from_bytes(&bytes);
        prop_assert!(!name.as_str().chars().any(char::is_control), "{name:?}");
        // Once safe it stays as it is.
        prop_assert_eq!(Name::from(name.as_str()), name);
    }

    #[test]
    fn every_close_of_a_connection_has_an_ending(old in 1_u8..=12, flags in any::<u32>(), err in 0_u32..130, bits in any::<[u8; 3]>()) {
        let mut record = Close { number: 1, closer: 1, at_ms: 0, is_active_close: true }.record();
        record.old_state = old;
        record.facts.flags = flags;
        record.facts.err = err;
        (record.facts.shutdown, record.facts.socket_state, record.facts.linger_zero) = (bits[0] & 3, bits[1] & 3, bits[2] & 1);
        match decode(record.as_bytes()).expect("well formed") {
            Event::Transition(transition) => prop_assert!(transition.ending().is_some()),
            Event::Retraction(_) => prop_assert_eq!(old, TcpState::Close as u8),
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn what_is_there_is_counted_and_every_owner_is_right(closes in closes()) {
        let report = report(&closes, &closes);
        let mut expected: HashMap<u32, u64> = HashMap::new();
        for close in closes.iter().filter(|close| close.is_active_close) {
            *expected.entry(close.closer).or_default() += 1;
        }
        prop_assert_eq!(report.time_wait.total, expected.values().sum::<u64>());
        prop_assert_eq!(report.time_wait.total, report.time_wait.kernel_total);
        prop_assert_eq!(report.time_wait.unattributed, 0);
        prop_assert_eq!(report.time_wait.entered, report.time_wait.total);
        for process in &report.time_wait.by_process {
            prop_assert_eq!(Some(&process.sockets), expected.get(&process.process.pid));
            prop_assert_eq!(&process.process.comm, &Name::from(format!("proc-{}", process.process.pid).as_str()));
            prop_assert_eq!(process.closed_first, process.sockets);
            prop_assert_eq!((process.outbound, process.inbound), (process.sockets, 0));
        }
    }

    #[test]
    fn lost_events_cost_owners_and_nothing_else(closes in closes(), mask in any::<u64>()) {
        let heard: Vec<Close> = closes.iter().copied().filter(|close| mask >> (close.number % 64) & 1 == 1).collect();
        let whole = report(&closes, &closes);
        let lossy = report(&heard, &closes);
        prop_assert_eq!(lossy.time_wait.total, whole.time_wait.total);
        let owned: u64 = lossy.time_wait.by_process.iter().map(|process| process.sockets).sum();
        prop_assert_eq!(owned + lossy.time_wait.unattributed, lossy.time_wait.total);
        let unheard = closes.len() - heard.len();
        prop_assert_eq!(lossy.time_wait.unattributed_reasons.event_lost, lossy.time_wait.unattributed);
        prop_assert_eq!(unheard > 0, lossy.findings.iter().any(|finding| finding.id == "EventsLost"));
        let owners: HashMap<u32, u64> = whole.time_wait.by_process.iter().map(|process| (process.process.pid, process.sockets)).collect();
        for process in &lossy.time_wait.by_process {
            prop_assert!(process.sockets <= owners[&process.process.pid]);
        }
    }

    #[test]
    fn the_order_of_independent_connections_does_not_matter(closes in closes(), seed in any::<u64>()) {
        let mut shuffled = closes.clone();
        // Any order: a key that has nothing to do with time.
        shuffled.sort_by_key(|close| u64::from(close.number).wrapping_mul(seed | 1));
        prop_assert_eq!(report(&shuffled, &closes), report(&closes, &closes));
    }

    #[test]
    fn an_older_entry_with_the_same_numbers_is_not_believed(later_s in 130_u64..10_000) {
        // The first connection's TIME_WAIT is long over; the second one, with the same four numbers, was never heard of.
        let close = Close { number: 1, closer: 7, at_ms: 0, is_active_close: true };
        let mut state = State::new(STARTED, Limits::default());
        state.feed(Input::Event(decode(close.record().as_bytes()).expect("well formed")));
        let at = STARTED.plus(Duration::from_secs(later_s));
        let row = SocketRow { connection: close.connection(), state: TcpState::TimeWait, time_wait_left: Some(Duration::from_secs(59)), inode: None, uid: 0, silent_for: None };
        let census = Census { at, namespaces: vec![NetnsCensus { netns: Netns(1), at, rows: vec![row], ..NetnsCensus::default() }], unreachable: Vec::new() };
        let report = build(&state, &census, &facts(0));
        prop_assert_eq!(report.time_wait.unattributed_reasons.not_seen, 1);
    }

    #[test]
    fn tables_stay_within_their_limits(closes in closes(), limit in 1_usize..20) {
        let limits = Limits { timewait_sockets: limit, processes: limit, failures: limit, listeners: limit, older_sockets: limit, routes: limit };
        let mut state = State::new(STARTED, limits);
        for close in &closes {
            state.feed(Input::Event(decode(close.record().as_bytes()).expect("well formed")));
        }
        let active = closes.iter().filter(|close| close.is_active_close).count();
        let report = build(&state, &census(&closes), &facts(0));
        let owned: u64 = report.time_wait.by_process.iter().map(|process| process.sockets).sum();
        prop_assert!(owned <= limit as u64);
        prop_assert_eq!(report.time_wait.total, active as u64);
        if active > limit {
            prop_assert!(report.session.events.evicted > 0);
        }
    }
}

#[test]
fn a_retraction_takes_back_what_was_entered() {
    let close = Close { number: 1, closer: 7, at_ms: 5, is_active_close: true };
    let mut retraction = close.record();
    retraction.old_state = TcpState::Close as u8;
    let mut state = State::new(STARTED, Limits::default());
    for record in [close.record(), retraction] {
        state.feed(Input::Event(decode(record.as_bytes()).expect("well formed")));
    }
    assert_eq!(state.turnover().entered(), 0);
    let closed_first = firstfin::state::Closes { closed_first: 1, ..Default::default() };
    assert_eq!(state.turnover().by_process().next(), Some((key(7), &closed_first)));
}

#[test]
fn a_refused_call_and_a_new_process_are_read() {
    let record = SyscallRecord {
        header: Header { kind: RecordKind::Syscall as u32, cpu: 1, time_ns: 42 },
        sk: 1,
        netns: 4,
        call: agent_ebpf::Call::Listen as u32,
        errno: 98,
        family: 10,
        port: 8080,
        address: Address([0; 16]),
        reuse: 0b11_0001,
        flags: agent_ebpf::ask_flag::NO_PORT_KNOWN | agent_ebpf::ask_flag::NO_PORT,
        reserved: [0; 2],
        device: 3,
        uid: 1000,
        padding: 0,
        task: task(9),
    };
    let Event::Refused(call) = decode(record.as_bytes()).expect("well formed") else { panic!("another event") };
    assert_eq!((call.local, call.errno), (Some(SocketAddr::from(([0; 16], 8080))), 98));
    let asker = Asker { uid: Some(1000), device: Some(3), free_bind: None, bind_address_no_port: Some(true) };
    assert_eq!(call.asker, asker);
    assert!(call.options.reuse_address && call.options.reuse_port && call.options.v6_only);
    assert_eq!((call.task.key, call.call), (key(9), firstfin::model::Call::Listen));

    let record = TaskRecord { header: Header { kind: RecordKind::Task as u32, cpu: 0, time_ns: 1 }, task: task(3) };
    let Event::ProcessSeen(seen) = decode(record.as_bytes()).expect("well formed") else { panic!("another event") };
    assert_eq!((seen.key, seen.comm.as_str()), (key(3), "proc-3"));
}
