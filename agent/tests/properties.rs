//! What must hold for any input: decoding is total, attribution never names the wrong process, counts never drift.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use agent_ebpf::{
    Address, Ends, Header, RecordKind, SyscallRecord, Task, TaskNumber, TaskRecord, TimeWaitRecord, TransitionRecord,
    conn_flag, look, task_flag,
};
use firstfin::{
    decode::{DecodeError, Decoder},
    model::{
        Asker, Census, Connection, Event, Name, Netns, NetnsCensus, ProcessKey, SocketRow, TcpState, TimeWaitMade,
        Timestamp,
    },
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

/// Both states of a transition, as its header has them.
const fn what(old: u8, new: TcpState) -> u8 {
    old << 4 | new as u8
}

const ENDS: Ends = Ends::V4([10, 0, 0, 1], [10, 0, 0, 2]);

/// A decoder that has been told of the processes with the pids below so many, by numbers that are their pids.
fn decoder(pids: u32) -> Decoder {
    let mut decoder = Decoder::default();
    for tgid in 1..pids {
        let header = Header { kind: RecordKind::Task as u8, ..Header::default() };
        let number = TaskNumber { count: tgid, origin: 0, reserved: 0 };
        decoder.decode(TaskRecord { header, number, task: task(tgid) }.as_bytes()).expect("well formed");
    }
    decoder
}

/// What a state is told of these connections, in this order.
fn feed(state: &mut State, closes: &[Close]) {
    let mut decoder = decoder(8);
    for close in closes {
        state.feed(Input::Event(decoder.decode(&close.bytes()).expect("well formed")));
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
        let old = if self.is_active_close { TcpState::FinWait2 } else { TcpState::LastAck };
        let closes = if self.is_active_close { conn_flag::FIN_FIRST } else { conn_flag::FIN_SECOND };
        TransitionRecord {
            header: Header {
                kind: RecordKind::Transition as u8,
                what: what(old as u8, TcpState::Close),
                flags: conn_flag::ACTIVE_OPEN | conn_flag::SEEN_BEGIN | closes,
                netns: 1,
                time_ns: self.at().0,
            },
            socket: 0xffff_0000_0000_0000 | u64::from(self.number),
            opener: self.closer,
            closer: self.closer,
            local_port: self.number,
            remote_port: 80,
            look: look::FIN_RECEIVED,
            ..TransitionRecord::default()
        }
    }

    /// As it comes out of the ring buffer.
    fn bytes(self) -> Vec<u8> {
        self.record().encode(ENDS, None)
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
        namespaces: vec![NetnsCensus {
            netns: Netns(1),
            at,
            rows: rows.into(),
            kernel_time_wait,
            ..NetnsCensus::default()
        }],
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
    feed(&mut state, heard);
    build(&state, &census(there), &facts((there.len() - heard.len()) as u64))
}

/// Sizes a record of this kind can have: with IPv4 and IPv6 addresses, and in full.
fn sizes(kind: u8) -> Vec<usize> {
    let both = |bytes: usize| [Ends::V4_SIZE, Ends::V6_SIZE].map(|ends| bytes + ends);
    match RecordKind::from_u8(kind).expect("known") {
        RecordKind::Transition => [0, 16].iter().flat_map(|rest| both(size_of::<TransitionRecord>() + rest)).collect(),
        RecordKind::TimeWait => both(size_of::<TimeWaitRecord>()).to_vec(),
        RecordKind::ClosedByPeer => both(size_of::<Header>()).to_vec(),
        RecordKind::Syscall => vec![size_of::<SyscallRecord>()],
        RecordKind::Task => vec![size_of::<TaskRecord>()],
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        // The point is that it returns; and what it takes for an event has the size of one.
        if decoder(8).decode(&bytes).is_ok() {
            prop_assert!((1..=5).any(|kind| sizes(kind).contains(&bytes.len())));
        }
    }

    #[test]
    fn any_content_of_a_known_kind_is_an_event_or_an_error(kind in 1_u8..=5, noise in prop::collection::vec(any::<u8>(), 128)) {
        for size in sizes(kind) {
            let mut bytes = noise[..size].to_vec();
            bytes[0] = kind;
            match decoder(8).decode(&bytes) {
                Ok(_) | Err(DecodeError::BadValue { .. }) => {}
                // The flags ask for another size of this kind.
                Err(DecodeError::WrongSize { .. }) => prop_assert!(sizes(kind).len() > 1),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn a_wrong_size_is_an_error(kind in 1_u8..=5, size in 16_usize..200, noise in any::<[u8; 15]>()) {
        prop_assume!(!sizes(kind).contains(&size));
        let mut bytes = vec![0; size];
        bytes[0] = kind;
        bytes[1..16].copy_from_slice(&noise);
        let is_right_error = matches!(decoder(8).decode(&bytes), Err(DecodeError::WrongSize { .. }));
        prop_assert!(is_right_error);
    }

    #[test]
    fn what_a_program_writes_is_what_is_read(
        record in any::<[u8; size_of::<TransitionRecord>()]>(),
        timewait_state in prop::sample::select(&[0, 5, 6, 255_u8][..]),
        ends in prop_oneof![any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| Ends::V4(a, b)), any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| Ends::V6(a, b))],
        in_full in any::<Option<[u64; 2]>>(),
        (opener, closer) in (0_u32..20, 0_u32..20),
    ) {
        let mut record = TransitionRecord::read_from_bytes(&record).expect("its size");
        record.header.what = what(1, TcpState::FinWait1);
        record.timewait_state = timewait_state;
        (record.opener, record.opener_origin, record.closer, record.closer_origin) = (opener, 0, closer, 0);
        let mut decoder = decoder(8);
        let Event::Transition(read) = decoder.decode(&record.encode(ends, in_full)).expect("well formed") else {
            return Err(TestCaseError::fail("another event"));
        };
        prop_assert_eq!(read.at.0, record.header.time_ns);
        prop_assert_eq!(read.socket.0, record.socket);
        prop_assert_eq!(read.connection.netns.0, record.header.netns);
        prop_assert_eq!((read.connection.local.port(), read.connection.remote.port()), (record.local_port, record.remote_port));
        prop_assert_eq!((read.old, read.new), (TcpState::Established, TcpState::FinWait1));
        prop_assert_eq!(read.born.map(|born| born.0), in_full.map(|[born, _]| born).filter(|&born| born != 0));
        // One place for who connected and who accepted. Numbers up to 7 have been announced, 0 is nobody.
        let known = |number: u32| (1..8).contains(&number).then_some(number);
        let seen = read.opener.as_ref().or(read.accepter.as_ref());
        prop_assert_eq!(seen.map(|task| task.key), known(opener).map(key));
        prop_assert_eq!(read.closer.as_ref().map(|task| task.key), known(closer).map(key));
        prop_assert_eq!(read.facts.closer_lost, closer >= 8);
        let timewait = in_full.map_or(record.socket, |[_, timewait]| timewait);
        match read.timewait {
            None => prop_assert_eq!(timewait_state, 0),
            Some(TimeWaitMade::Refused) => prop_assert_eq!(timewait_state, 255),
            Some(TimeWaitMade::Made { id, .. }) => prop_assert_eq!(id.0, timewait),
        }
        let (local, remote) = match ends {
            Ends::V4(local, remote) => (IpAddr::from(local), IpAddr::from(remote)),
            Ends::V6(local, remote) => (IpAddr::from(local).to_canonical(), IpAddr::from(remote).to_canonical()),
        };
        prop_assert_eq!((read.connection.local.ip(), read.connection.remote.ip()), (local, remote));
    }

    #[test]
    fn an_end_in_few_words_is_read(remote_port in any::<u16>(), ends in any::<([u8; 4], [u8; 4])>(), time_ns in any::<u64>()) {
        let bytes = agent_ebpf::closed_by_peer(7, time_ns, remote_port, Ends::V4(ends.0, ends.1));
        let Event::ClosedByPeer(end) = decoder(1).decode(&bytes).expect("well formed") else {
            return Err(TestCaseError::fail("another event"));
        };
        prop_assert_eq!((end.at, end.netns, end.local), (Timestamp(time_ns), Netns(7), IpAddr::from(ends.0)));
        prop_assert_eq!(end.remote, SocketAddr::from((ends.1, remote_port)));
    }

    #[test]
    fn the_oldest_process_is_forgotten_first(limit in 1_u32..20, told in 1_u32..40) {
        let mut decoder = Decoder::new(limit as usize);
        for tgid in 1..=told {
            let number = TaskNumber { count: tgid, origin: 0, reserved: 0 };
            let header = Header { kind: RecordKind::Task as u8, ..Header::default() };
            decoder.decode(TaskRecord { header, number, task: task(tgid) }.as_bytes()).expect("well formed");
        }
        for tgid in 1..=told {
            let close = Close { number: 1, closer: tgid, at_ms: 0, is_active_close: true };
            let Event::Transition(read) = decoder.decode(&close.bytes()).expect("well formed") else {
                return Err(TestCaseError::fail("another event"));
            };
            // Forgotten is lost, never somebody else.
            let known = (tgid + limit > told).then_some(key(tgid));
            prop_assert_eq!(read.closer.as_ref().map(|task| task.key), known);
            prop_assert_eq!(read.facts.closer_lost, known.is_none());
        }
    }

    #[test]
    fn a_name_never_acts_on_a_terminal(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let name = Name::from_bytes(&bytes);
        prop_assert!(!name.as_str().chars().any(char::is_control), "{name:?}");
        // Once safe it stays as it is.
        prop_assert_eq!(Name::from(name.as_str()), name);
    }

    #[test]
    fn every_close_of_a_connection_has_an_ending(old in 1_u8..=12, flags in any::<u16>(), err in 0_u16..130, look in any::<u8>()) {
        let mut record = Close { number: 1, closer: 1, at_ms: 0, is_active_close: true }.record();
        record.header.what = what(old, TcpState::Close);
        record.header.flags = flags;
        (record.err, record.look) = (err, look);
        match decoder(8).decode(&record.encode(ENDS, None)).expect("well formed") {
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
        feed(&mut state, &[close]);
        let at = STARTED.plus(Duration::from_secs(later_s));
        let row = SocketRow { connection: close.connection(), state: TcpState::TimeWait, time_wait_left: Some(Duration::from_secs(59)), inode: None, uid: 0, silent_for: None };
        let census = Census { at, namespaces: vec![NetnsCensus { netns: Netns(1), at, rows: vec![row].into(), ..NetnsCensus::default() }], unreachable: Vec::new() };
        let report = build(&state, &census, &facts(0));
        prop_assert_eq!(report.time_wait.unattributed_reasons.not_seen, 1);
    }

    #[test]
    fn tables_stay_within_their_limits(closes in closes(), limit in 1_usize..20) {
        let limits = Limits { timewait_sockets: limit, processes: limit, failures: limit, listeners: limit, older_sockets: limit, routes: limit };
        let mut state = State::new(STARTED, limits);
        feed(&mut state, &closes);
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

/// A host that starts process after process, and one that serves: it is announced once, however long it goes on.
#[test]
fn a_number_that_is_in_use_is_not_forgotten() {
    let mut decoder = Decoder::new(100);
    let told = |decoder: &mut Decoder, tgid: u32| {
        let number = TaskNumber { count: tgid, origin: 0, reserved: 0 };
        let header = Header { kind: RecordKind::Task as u8, ..Header::default() };
        decoder.decode(TaskRecord { header, number, task: task(tgid) }.as_bytes()).expect("well formed");
    };
    let closer = |decoder: &mut Decoder, tgid| {
        let close = Close { number: 1, closer: tgid, at_ms: 0, is_active_close: true };
        let Event::Transition(read) = decoder.decode(&close.bytes()).expect("well formed") else { panic!("another") };
        (read.closer.map(|task| task.key), read.facts.closer_lost, read.facts.opener_lost)
    };
    let (busy, runs, idle) = (1, 2, 3);
    for tgid in [busy, runs, idle] {
        told(&mut decoder, tgid);
    }
    for tgid in 10..10_000 {
        told(&mut decoder, tgid);
        if tgid % 50 == 0 {
            assert_eq!(closer(&mut decoder, busy), (Some(key(busy)), false, false), "a record names it");
            decoder.keep([key(runs)]);
        }
        assert!(decoder.remembered() <= 100);
    }
    assert_eq!(closer(&mut decoder, runs), (Some(key(runs)), false, false), "it was said to run");
    assert_eq!(closer(&mut decoder, idle), (None, true, true), "and this is no secret");
}

#[test]
fn a_retraction_takes_back_what_was_entered() {
    let close = Close { number: 1, closer: 7, at_ms: 5, is_active_close: true };
    let mut retraction = close.record();
    retraction.header.what = what(TcpState::Close as u8, TcpState::Close);
    let mut state = State::new(STARTED, Limits::default());
    let mut decoder = decoder(8);
    for record in [close.record(), retraction] {
        state.feed(Input::Event(decoder.decode(&record.encode(ENDS, None)).expect("well formed")));
    }
    assert_eq!(state.turnover().entered(), 0);
    let closed_first = firstfin::state::Closes { closed_first: 1, ..Default::default() };
    assert_eq!(state.turnover().by_process().next(), Some((key(7), &closed_first)));
}

#[test]
fn a_refused_call_and_a_new_process_are_read() {
    let record = SyscallRecord {
        header: Header {
            kind: RecordKind::Syscall as u8,
            what: agent_ebpf::Call::Listen as u8,
            flags: 0,
            netns: 4,
            time_ns: 42,
        },
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
    let Event::Refused(call) = decoder(1).decode(record.as_bytes()).expect("well formed") else {
        panic!("another event")
    };
    assert_eq!((call.local, call.errno), (Some(SocketAddr::from(([0; 16], 8080))), 98));
    let asker = Asker { uid: Some(1000), device: Some(3), free_bind: None, bind_address_no_port: Some(true) };
    assert_eq!(call.asker, asker);
    assert!(call.options.reuse_address && call.options.reuse_port && call.options.v6_only);
    assert_eq!((call.task.key, call.call), (key(9), firstfin::model::Call::Listen));

    let header = Header { kind: RecordKind::Task as u8, ..Header::default() };
    let record = TaskRecord { header, number: TaskNumber { count: 1, origin: 0, reserved: 0 }, task: task(3) };
    let Event::ProcessSeen(seen) = decoder(1).decode(record.as_bytes()).expect("well formed") else {
        panic!("another event")
    };
    assert_eq!((seen.key, seen.comm.as_str()), (key(3), "proc-3"));
}
