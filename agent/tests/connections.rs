//! What a report says of connections nobody closes, of ports that are shared, and of SYNs that meet an old connection:
//! pure, from censuses and events made by hand.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use firstfin::{
    model::{
        Census, Connection, Event, Inode, Name, Netns, NetnsCensus, NetnsSettings, OpenKind, Process, ProcessKey,
        SocketFacts, SocketId, SocketRow, Task, TcpState, Timestamp, Transition,
    },
    ports::accounting::account,
    report::{Direction, Finding, Report, SessionFacts, Severity, build, retain_relevant, sockets_to_name},
    state::{Input, Limits, State},
};

const NETNS: Netns = Netns(4_026_531_840);
const STARTED: Timestamp = Timestamp(1_000_000_000_000);

fn key(tgid: u32) -> ProcessKey {
    ProcessKey { tgid, start_ticks: u64::from(tgid) * 10 }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn row(local: &str, remote: &str, state: TcpState, inode: u64) -> SocketRow {
    SocketRow {
        connection: Connection { netns: NETNS, local: address(local), remote: address(remote) },
        state,
        time_wait_left: None,
        inode: Some(Inode(inode)),
        uid: 0,
        silent_for: None,
    }
}

fn listener(local: &str, inode: u64) -> SocketRow {
    row(local, "0.0.0.0:0", TcpState::Listen, inode)
}

/// In CLOSE_WAIT, and silent for so many seconds.
fn close_wait(local: &str, remote: &str, seconds: u64, inode: u64) -> SocketRow {
    SocketRow { silent_for: Some(Duration::from_secs(seconds)), ..row(local, remote, TcpState::CloseWait, inode) }
}

fn namespace(rows: Vec<SocketRow>) -> NetnsCensus {
    let settings = NetnsSettings {
        port_range: Some((40_000, 40_009)),
        usable_ports: Some(10),
        reserved_ports: Some(Vec::new()),
        timestamps: Some(0),
        ..NetnsSettings::default()
    };
    NetnsCensus { netns: NETNS, at: STARTED, rows: rows.into(), settings, ..NetnsCensus::default() }
}

/// The report of a session that ended with these sockets, of which those with an inode are this process's.
fn report(mut state: State, rows: Vec<SocketRow>, owners: &[(u64, u32)]) -> Report {
    let census = Census { at: STARTED, namespaces: vec![namespace(rows)], unreachable: Vec::new() };
    let wanted = sockets_to_name(&state, &census);
    let owners: Vec<_> = owners.iter().filter(|(inode, _)| wanted.contains(&Inode(*inode))).collect();
    for (_, tgid) in &owners {
        state.feed(Input::Process(Process::from_task(&task(*tgid))));
    }
    let facts = SessionFacts {
        duration: Duration::from_secs(5),
        alive: owners.iter().map(|(_, tgid)| key(*tgid)).collect(),
        socket_owners: owners.iter().map(|(inode, tgid)| (Inode(*inode), key(*tgid))).collect(),
        ..SessionFacts::default()
    };
    build(&state, &census, &facts)
}

fn task(tgid: u32) -> Task {
    let comm = Name::from(format!("program-{}", tgid / 10).as_str());
    Task { key: key(tgid), uid: 0, comm, cgroup_id: 1, is_kernel_thread: false, is_agent: false }
}

fn empty() -> State {
    State::new(STARTED, Limits::default())
}

fn ids(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.id.as_str()).collect()
}

/// What a finding is about: namespace, local and remote end.
fn about(finding: &Finding) -> (Option<Netns>, Option<&str>, Option<&str>) {
    (finding.netns, finding.local.as_deref(), finding.remote.as_deref())
}

fn only(report: &Report) -> &Finding {
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    report.findings.first().expect("one")
}

#[test]
fn ten_connections_that_nobody_closes_are_a_leak() {
    let forgotten = |count: u64| -> Vec<SocketRow> {
        let each = (0..count).map(|number| {
            close_wait("10.0.0.1:8080", &format!("10.0.0.2:{}", 50_000 + number), 10 + number, number + 1)
        });
        each.chain([listener("0.0.0.0:8080", 99)]).collect()
    };
    let owners: Vec<(u64, u32)> = (1..=20).map(|inode| (inode, 70)).collect();
    let report_of = |count| report(empty(), forgotten(count), &owners);
    assert_eq!(ids(&report_of(9)), Vec::<&str>::new());
    let leak = report_of(12);
    let finding = only(&leak);
    assert_eq!((finding.id.as_str(), finding.severity), ("CloseWaitLeak", Severity::Warning));
    assert_eq!(
        finding.summary,
        "program-7[70] does not close 12 connections that the other side has closed, for 21 s or longer"
    );
    assert_eq!(about(finding), (Some(NETNS), Some("10.0.0.1:8080"), None), "clients come and go");
    let [group] = leak.close_wait.as_slice() else { panic!("{:#?}", leak.close_wait) };
    assert_eq!((group.remote.as_str(), group.local.as_deref(), group.sockets), ("10.0.0.2", Some("10.0.0.1:8080"), 12));
}

#[test]
fn who_is_slow_to_close_leaks_nothing() {
    let busy = (0..20).map(|number| close_wait("10.0.0.1:8080", "10.0.0.2:50000", 9, number)).collect();
    assert_eq!(ids(&report(empty(), busy, &[])), Vec::<&str>::new());
}

#[test]
fn workers_of_one_program_share_their_port_and_others_should_not() {
    let same = vec![listener("0.0.0.0:80", 1), listener("0.0.0.0:80", 2)];
    assert_eq!(ids(&report(empty(), same.clone(), &[(1, 71), (2, 72)])), Vec::<&str>::new());
    assert_eq!(ids(&report(empty(), same.clone(), &[(1, 71)])), Vec::<&str>::new(), "the other one is not known");
    let shared = report(empty(), same, &[(1, 71), (2, 82)]);
    let finding = only(&shared);
    assert_eq!((finding.id.as_str(), finding.severity), ("SharedPort", Severity::Warning));
    assert_eq!(finding.summary, "program-7[71] and program-8[82] share 0.0.0.0:80");
    assert_eq!(about(finding), (Some(NETNS), Some("0.0.0.0:80"), None));

    let bound = vec![listener("10.0.0.1:80", 1), row("10.0.0.1:80", "0.0.0.0:0", TcpState::BoundInactive, 2)];
    let shared = report(empty(), bound, &[(1, 71), (2, 82)]);
    assert_eq!(only(&shared).severity, Severity::Info, "only one of them can listen");
}

#[test]
fn an_address_comes_before_the_wildcard() {
    let rows = vec![
        listener("0.0.0.0:80", 1),
        listener("10.0.0.1:80", 2),
        listener("10.0.0.2:80", 3),
        listener("0.0.0.0:81", 4),
    ];
    let shadowed = report(empty(), rows, &[(1, 71), (2, 82), (3, 73), (4, 94)]);
    let finding = only(&shadowed);
    assert_eq!(finding.id, "WildcardShadowed");
    assert_eq!(about(finding), (Some(NETNS), Some("10.0.0.1:80"), None));
    assert_eq!(
        finding.summary,
        "connections to 10.0.0.1:80 reach program-8[82], not program-7[71], which listens at 0.0.0.0:80"
    );
    // Whether [::] takes IPv4 connections too a dump does not say.
    let both = vec![listener("0.0.0.0:80", 1), listener("[::]:80", 2)];
    assert_eq!(ids(&report(empty(), both, &[(1, 71), (2, 82)])), Vec::<&str>::new());
}

/// A connection that was made after its SYN had met an old one.
fn late(port: u16) -> Event {
    Event::Transition(Transition {
        at: STARTED,
        socket: SocketId(u64::from(port)),
        connection: Connection {
            netns: NETNS,
            local: SocketAddr::from(([10, 0, 0, 1], port)),
            remote: address("10.0.0.2:80"),
        },
        old: TcpState::LastAck,
        new: TcpState::Close,
        opened: Some(OpenKind::Active),
        born: Some(STARTED),
        opener: Some(Arc::new(task(71))),
        accepter: None,
        closer: Some(Arc::new(task(71))),
        timewait: None,
        facts: SocketFacts {
            established: true,
            fin_second: true,
            syn_rejected: port.is_multiple_of(2),
            ..SocketFacts::default()
        },
    })
}

#[test]
fn a_syn_that_meets_an_old_connection_is_port_reuse() {
    let mut state = empty();
    for port in 30_000..30_010 {
        state.feed(Input::Event(late(port)));
    }
    let reused = report(state, Vec::new(), &[]);
    let [rejected] = reused.rejected_syns.as_slice() else { panic!("{:#?}", reused.rejected_syns) };
    assert_eq!((rejected.direction, rejected.remote.as_str(), rejected.count), (Direction::Outbound, "10.0.0.2:80", 5));
    let finding = only(&reused);
    assert_eq!(finding.id, "ResetByPortReuse");
    assert_eq!(about(finding), (Some(NETNS), None, Some("10.0.0.2:80")));
    assert_eq!(
        finding.summary,
        "program-7[71] (exited) connects to 10.0.0.2:80 from ports whose earlier connection the other side still has: 5 times"
    );
    assert!(finding.remedy.iter().any(|step| step.contains("tcp_timestamps=1 here (0 now)")), "{finding:#?}");
}

#[test]
fn what_is_dropped_changes_no_report() {
    let mut all = namespace(vec![
        row("10.0.0.1:8080", "10.0.0.2:50000", TcpState::Established, 1),
        listener("0.0.0.0:8080", 2),
        listener("0.0.0.0:40001", 3),
        row("10.0.0.1:40001", "10.0.0.2:50000", TcpState::Established, 4),
        row("10.0.0.1:40002", "10.0.0.2:80", TcpState::Established, 5),
        close_wait("10.0.0.1:8080", "10.0.0.2:50001", 11, 6),
        close_wait("10.0.0.1:8080", "10.0.0.2:50002", 9, 7),
        SocketRow {
            time_wait_left: Some(Duration::from_secs(1)),
            ..row("10.0.0.1:8080", "10.0.0.2:50003", TcpState::TimeWait, 0)
        },
    ]);
    let before = account(&all, |_| None);
    retain_relevant(&mut all);
    let kept: HashSet<u64> = all.rows.iter().filter_map(|row| row.inode).map(|inode| inode.0).collect();
    assert_eq!(kept, HashSet::from([0, 2, 3, 5, 6]));
    let after = account(&all, |_| None);
    assert_eq!((before.taken, before.routes.len()), (after.taken, after.routes.len()));
    assert_eq!(before.space.map(|space| space.usable()), after.space.map(|space| space.usable()));
}
