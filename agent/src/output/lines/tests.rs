//! Lines of a trace, as text and as JSON, from events as the decoder makes them.

use std::{net::SocketAddr, sync::Arc};

use jiff::tz::TimeZone;
use serde_json::Value;

use super::*;
use crate::model::{
    Asker, Connection, Name, OpenKind, ProcessKey, RefusedCall, Retraction, SocketFacts, SocketId, SocketOptions, Task,
    TcpState, Timestamp, Transition,
};

const HOST: Netns = Netns(4_026_531_840);
const BLUE: Netns = Netns(4_026_532_297);
const SOCKET: u64 = 0xffff_8880_1234_5678;
const MS: u64 = 1_000_000;

fn lines(with_states: bool) -> Lines {
    let clock = Clock::new("2026-05-09T07:29:33Z".parse().unwrap(), Timestamp(1_000 * MS), TimeZone::UTC);
    Lines { clock, with_states, host_netns: Some(HOST) }
}

fn task(tgid: u32, comm: &[u8]) -> Task {
    let key = ProcessKey { tgid, start_ticks: 5 };
    Task { key, uid: 33, comm: Name::from_comm(comm), cgroup_id: 7_361, is_kernel_thread: false, is_agent: false }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn transition(old: TcpState, new: TcpState) -> Transition {
    Transition {
        at: Timestamp(1_120 * MS),
        socket: SocketId(SOCKET),
        connection: Connection { netns: HOST, local: address("10.0.0.1:40000"), remote: address("10.0.0.2:80") },
        old,
        new,
        opened: Some(OpenKind::Active),
        born: Some(Timestamp(1_115 * MS + 750_000)),
        opener: Some(Arc::new(task(4242, b"curl"))),
        accepter: None,
        closer: Some(Arc::new(task(4242, b"curl"))),
        timewait: None,
        facts: SocketFacts { established: true, ..SocketFacts::default() },
    }
}

fn with_facts(old: TcpState, facts: SocketFacts) -> Transition {
    Transition { facts, ..transition(old, TcpState::Close) }
}

fn time_wait() -> Transition {
    let facts = SocketFacts {
        established: true,
        fin_first: true,
        fin_received: true,
        is_shut_down: true,
        ..Default::default()
    };
    with_facts(TcpState::FinWait2, facts)
}

fn refused() -> RefusedCall {
    RefusedCall {
        at: Timestamp(1_200 * MS),
        call: Call::Bind,
        netns: HOST,
        local: Some(address("0.0.0.0:80")),
        errno: 98,
        options: SocketOptions { reuse_address: true, ..SocketOptions::default() },
        asker: Asker::default(),
        task: task(812, b"nginx"),
    }
}

fn listener(old: TcpState, new: TcpState) -> Transition {
    let connection = Connection { netns: BLUE, local: address("[::]:8080"), remote: address("[::]:0") };
    Transition {
        connection,
        opened: None,
        closer: None,
        opener: Some(Arc::new(task(900, b"java"))),
        ..transition(old, new)
    }
}

/// One of each kind, and those that are easy to get wrong.
fn events() -> Vec<Event> {
    let established = SocketFacts { established: true, ..SocketFacts::default() };
    let shut_down = SocketFacts { is_shut_down: true, ..established };
    let inbound = Transition {
        opened: Some(OpenKind::Passive),
        opener: Some(Arc::new(task(900, b"java"))),
        closer: Some(Arc::new(task(901, b"java-worker"))),
        connection: Connection {
            netns: BLUE,
            local: address("[2001:db8::1]:8080"),
            remote: address("[2001:db8::9]:5"),
        },
        ..with_facts(TcpState::FinWait2, SocketFacts { fin_received: false, ..time_wait().facts })
    };
    let no_port = Transition {
        connection: Connection {
            local: address("10.0.0.1:0"),
            ..transition(TcpState::Close, TcpState::Close).connection
        },
        closer: None,
        ..with_facts(TcpState::SynSent, SocketFacts::default())
    };
    let unknown = Transition {
        opened: None,
        born: None,
        opener: None,
        closer: None,
        ..with_facts(TcpState::LastAck, SocketFacts { fin_second: true, ..SocketFacts::default() })
    };
    let broken =
        Transition { opened: Some(OpenKind::Passive), ..with_facts(TcpState::SynRecv, SocketFacts::default()) };
    let transitions = vec![
        time_wait(),
        inbound,
        Transition { old: TcpState::Closing, ..time_wait() },
        unknown,
        no_port,
        with_facts(TcpState::SynSent, SocketFacts { errno: 111, ..SocketFacts::default() }),
        with_facts(TcpState::SynSent, SocketFacts { errno: 4711, ..SocketFacts::default() }),
        with_facts(TcpState::SynSent, SocketFacts { is_unconnected: true, ..SocketFacts::default() }),
        with_facts(TcpState::SynSent, SocketFacts { is_shut_down: true, ..SocketFacts::default() }),
        broken,
        with_facts(TcpState::Established, SocketFacts { linger_zero: true, ..shut_down }),
        with_facts(TcpState::CloseWait, shut_down),
        with_facts(TcpState::Established, SocketFacts { reset_received: true, errno: 104, ..established }),
        with_facts(TcpState::Established, SocketFacts { has_socket: true, ..established }),
        with_facts(TcpState::Established, established),
        with_facts(TcpState::Established, SocketFacts { errno: 103, ..established }),
        with_facts(TcpState::Established, SocketFacts { errno: 110, has_socket: true, ..established }),
        with_facts(TcpState::FinWait1, SocketFacts { fin_first: true, errno: 0, ..shut_down }),
        listener(TcpState::Close, TcpState::Listen),
        listener(TcpState::Listen, TcpState::Close),
    ];
    let mut events: Vec<_> = transitions.into_iter().map(Event::Transition).collect();
    events.push(Event::Refused(refused()));
    events.push(Event::Refused(RefusedCall {
        call: Call::Listen,
        local: None,
        options: SocketOptions::default(),
        task: task(1, b"evil\x1b[2J\n"),
        ..refused()
    }));
    let time_wait = time_wait();
    let retraction = Retraction { at: time_wait.at, socket: time_wait.socket, connection: time_wait.connection };
    events.push(Event::Retraction(retraction));
    events
}

impl Lines {
    fn text(&self, event: &Event) -> Option<String> {
        let mut line = Vec::new();
        self.write_text(event, None, &mut line).then(|| String::from_utf8(line).unwrap())
    }

    fn json(&self, event: &Event) -> Option<String> {
        let mut line = Vec::new();
        self.write_json(event, None, &mut line).unwrap().then(|| String::from_utf8(line).unwrap())
    }
}

fn text(lines: &Lines) -> String {
    std::iter::once(lines.header()).chain(events().iter().filter_map(|event| lines.text(event))).collect()
}

fn json(lines: &Lines) -> Vec<Value> {
    let lines = events().iter().filter_map(|event| lines.json(event)).collect::<Vec<_>>();
    lines.iter().map(|line| serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap()).collect()
}

#[test]
fn ends_and_failures() {
    insta::assert_snapshot!(text(&lines(false)));
}

#[test]
fn states() {
    let lines = lines(true);
    let shown: Vec<_> = [
        Transition {
            closer: None,
            opener: Some(Arc::new(task(4242, b"curl"))),
            born: None,
            ..transition(TcpState::Close, TcpState::SynSent)
        },
        transition(TcpState::SynSent, TcpState::Established),
        transition(TcpState::Established, TcpState::FinWait1),
        transition(TcpState::FinWait1, TcpState::FinWait2),
        time_wait(),
        listener(TcpState::Close, TcpState::Listen),
    ]
    .into_iter()
    .filter_map(|it| lines.text(&Event::Transition(it)))
    .collect();
    insta::assert_snapshot!(format!("{}{}", lines.header(), shown.concat()));
}

#[test]
fn json_of_ends_and_failures() {
    let lines = lines(false);
    let json: String = events().iter().filter_map(|event| lines.json(event)).collect();
    insta::assert_snapshot!(json);
}

#[test]
fn transitions_that_end_nothing_show_only_when_asked_for() {
    let event = Event::Transition(transition(TcpState::Established, TcpState::FinWait1));
    assert_eq!(lines(false).text(&event), None);
    assert_eq!(lines(false).json(&event), None);
    let value: Value = serde_json::from_str(&lines(true).json(&event).unwrap()).unwrap();
    assert_eq!(
        (&value["type"], &value["from"], &value["to"]),
        (&"transition".into(), &"ESTABLISHED".into(), &"FIN_WAIT1".into())
    );
    assert_eq!(value.get("ending"), None);
    let seen = Event::ProcessSeen(task(1, b"init"));
    assert_eq!(lines(true).text(&seen), None);
}

#[test]
fn records_are_what_the_schema_says() {
    let schema = serde_json::to_value(schemars::schema_for!(EventRecord<'static>)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for value in json(&lines(false)).into_iter().chain(json(&lines(true))) {
        assert!(validator.is_valid(&value), "{value:#}: {:?}", validator.iter_errors(&value).collect::<Vec<_>>());
        let mut broken = value;
        broken["type"] = "something".into();
        assert!(!validator.is_valid(&broken));
    }
}

#[test]
fn no_kernel_address_leaves_the_program() {
    for lines in [lines(false), lines(true)] {
        for event in events() {
            let both = format!("{:?}{:?}", lines.text(&event), lines.json(&event));
            for address in [format!("{SOCKET}"), format!("{SOCKET:x}"), format!("{SOCKET:X}")] {
                assert!(!both.contains(&address), "{both}");
            }
        }
    }
}

#[test]
fn every_event_is_one_line() {
    for lines in [lines(false), lines(true)] {
        for event in events() {
            for line in [lines.text(&event), lines.json(&event)].into_iter().flatten() {
                assert_eq!(line.matches('\n').count(), 1, "{line:?}");
                assert!(line.ends_with('\n') && line.chars().filter(|c| c.is_control()).count() == 1, "{line:?}");
            }
        }
    }
}
