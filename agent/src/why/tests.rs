use std::time::Duration;

use super::*;
use crate::{
    model::{Connection, HeldOptions, Inode, SocketRow, TcpState},
    rules::Rule,
};

const OWN: Netns = Netns(4_026_531_840);
const BLUE: Netns = Netns(4_026_532_297);

fn process(tgid: u32, comm: &str) -> Process {
    Process {
        key: ProcessKey { tgid, start_ticks: u64::from(tgid) },
        comm: comm.into(),
        uid: Some(0),
        exe: None,
        cgroup: None,
        unit: None,
        container: None,
        netns: Some(OWN),
    }
}

fn socket(local: &str, state: TcpState, processes: &[Process]) -> HeldSocket {
    let is_timewait = state == TcpState::TimeWait;
    let remote = if state == TcpState::Listen { "0.0.0.0:0" } else { "10.0.0.9:51234" };
    HeldSocket {
        row: SocketRow {
            connection: Connection { netns: OWN, local: local.parse().unwrap(), remote: remote.parse().unwrap() },
            state,
            time_wait_left: is_timewait.then_some(Duration::from_secs(43)),
            inode: (!is_timewait).then_some(Inode(7)),
            uid: 0,
            silent_for: None,
        },
        processes: processes.to_vec(),
        options: HeldOptions::default(),
    }
}

fn found(netns: Netns, sockets: Vec<HeldSocket>) -> Found {
    let settings = NetnsSettings { port_range: Some((32_768, 60_999)), ..NetnsSettings::default() };
    Found { netns, sockets, settings, is_local: None }
}

fn ask(port: u16, found: Vec<Found>) -> BindAnswer {
    bind(&Question { port, address: None, uid: 0 }, Some(OWN), found)
}

/// What bind() says to an address with these options.
fn outcome(answer: &BindAnswer, local: &str, options: SocketOptions) -> AttemptOutcome {
    let attempts = &answer.namespaces.first().unwrap().attempts;
    let of = |options| attempts.iter().find(|it| it.local == local && it.options == options);
    // What is not listed is as the plain one.
    of(options).or_else(|| of(SocketOptions::default())).unwrap().outcome
}

const PLAIN: SocketOptions = options(false, false);
const REUSE_ADDRESS: SocketOptions = options(true, false);
const REUSE_PORT: SocketOptions = options(false, true);

#[test]
fn a_free_port_is_granted_in_any_way() {
    let answer = ask(8080, vec![found(OWN, Vec::new()), found(BLUE, Vec::new())]);
    let [own] = answer.namespaces.as_slice() else { panic!("{answer:?}") };
    assert!(own.is_own && own.holders.is_empty());
    assert_eq!(own.is_ephemeral, Some(false));
    let said: Vec<_> = own.attempts.iter().map(|it| (it.local.as_str(), it.outcome)).collect();
    assert_eq!(said, [("0.0.0.0:8080", AttemptOutcome::Granted), ("[::]:8080", AttemptOutcome::Granted)]);
}

#[test]
fn a_listener_is_named_with_all_that_have_it_open() {
    let (master, worker) = (process(100, "nginx"), process(101, "nginx"));
    let mut listener = socket("127.0.0.1:8080", TcpState::Listen, &[master, worker]);
    listener.options =
        HeldOptions { reuse_address: Some(true), reuse_port: Some(false), v6_only: None, device: Some(0) };
    let answer = ask(8080, vec![found(OWN, vec![listener])]);
    let own = answer.namespaces.first().unwrap();
    let [holder] = own.holders.as_slice() else { panic!("{own:?}") };
    assert_eq!(holder.process.as_ref().unwrap().pid, 100);
    assert_eq!(holder.also_open_in.iter().map(|it| it.pid).collect::<Vec<_>>(), [101]);
    for options in [PLAIN, REUSE_ADDRESS, REUSE_PORT] {
        assert_eq!(outcome(&answer, "0.0.0.0:8080", options), AttemptOutcome::Refused);
    }
    let plain = own.attempts.first().unwrap();
    assert_eq!(plain.refusal.as_ref().unwrap().rule, Some(Rule::HolderListens));
    assert_eq!((plain.holder, plain.free_in_s), (Some(0), None));
}

/// Nothing tells whether the socket that left TIME_WAIT had SO_REUSEADDR: that is said, and not guessed.
#[test]
fn time_wait_is_a_matter_of_waiting_or_of_what_is_not_known() {
    let answer = ask(8080, vec![found(OWN, vec![socket("10.0.0.1:8080", TcpState::TimeWait, &[])])]);
    assert_eq!(outcome(&answer, "0.0.0.0:8080", PLAIN), AttemptOutcome::Refused);
    assert_eq!(outcome(&answer, "0.0.0.0:8080", REUSE_ADDRESS), AttemptOutcome::Undecided);
    let own = answer.namespaces.first().unwrap();
    assert_eq!(own.attempts.first().unwrap().free_in_s, Some(43));
    assert_eq!(own.holders.first().unwrap().process, None);
}

#[test]
fn other_namespaces_are_shown_if_the_port_is_used_there() {
    let there = || vec![socket("0.0.0.0:8080", TcpState::Listen, &[process(7, "inside")])];
    let answer = ask(8080, vec![found(BLUE, there()), found(OWN, Vec::new()), found(Netns(1), Vec::new())]);
    assert_eq!(answer.namespaces.iter().map(|it| it.netns).collect::<Vec<_>>(), [OWN, BLUE]);
    assert_eq!(outcome(&answer, "0.0.0.0:8080", PLAIN), AttemptOutcome::Granted);
}

/// Of four ports one is a listener's, one reserved; of the two left one is in TIME_WAIT towards this destination.
#[test]
fn ports_towards_a_destination_are_counted() {
    let remote: SocketAddr = "10.0.0.9:51234".parse().unwrap();
    let row = |local: &str, state| socket(local, state, &[]).row;
    let namespace = crate::model::NetnsCensus {
        netns: OWN,
        rows: vec![
            row("127.0.0.1:40000", TcpState::Listen),
            row("10.0.0.1:40002", TcpState::TimeWait),
            row("10.0.0.1:8080", TcpState::Established),
        ]
        .into(),
        settings: NetnsSettings {
            port_range: Some((40_000, 40_003)),
            reserved_ports: Some(vec![(40_001, 40_001)]),
            ..NetnsSettings::default()
        },
        ..crate::model::NetnsCensus::default()
    };
    let answer = connect(remote, &namespace);
    assert_eq!((answer.usable, answer.bound), (Some(2), 1));
    let [from] = answer.from.as_slice() else { panic!("{answer:?}") };
    assert_eq!((from.local.as_str(), from.left, from.live, from.time_wait, from.reusable), ("10.0.0.1", 1, 0, 1, 0));
    assert_eq!(from.next_in_s, Some(43));
    assert_eq!(connect("10.0.0.9:1".parse().unwrap(), &namespace).from, []);
}
