use proptest::prelude::*;

use super::*;
use crate::model::{Connection, Netns, TcpState};

const LISTEN: TcpState = TcpState::Listen;
const LIVE: TcpState = TcpState::Established;

fn row(local: &str, remote: &str, state: TcpState) -> SocketRow {
    let connection = Connection { netns: Netns(1), local: local.parse().unwrap(), remote: remote.parse().unwrap() };
    SocketRow { connection, state, time_wait_left: None, inode: None, uid: 0, silent_for: None }
}

fn time_wait(local: &str, remote: &str, left_ms: u64) -> SocketRow {
    let left = Some(Duration::from_millis(left_ms));
    SocketRow { time_wait_left: left, ..row(local, remote, TcpState::TimeWait) }
}

/// Ports 40000 to 40009, 40009 reserved, no reuse.
fn namespace(rows: Vec<SocketRow>) -> NetnsCensus {
    let settings = NetnsSettings {
        port_range: Some((40_000, 40_009)),
        usable_ports: Some(9),
        reserved_ports: Some(vec![(40_009, 40_100)]),
        tw_reuse: Some(0),
        timestamps: Some(1),
        ..NetnsSettings::default()
    };
    NetnsCensus { netns: Netns(1), rows: rows.into(), settings, ..NetnsCensus::default() }
}

fn route(local: &str, remote: &str) -> Route {
    Route { netns: Netns(1), local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

/// The places of the sockets of a route, and when they let go of their ports.
fn details(namespace: &NetnsCensus, route: &Route) -> (Vec<RowPlace>, Vec<Duration>) {
    let Some(space) = PortSpace::of(namespace) else { return (Vec::new(), Vec::new()) };
    let mut places = sockets(namespace, &space, unknown, |other| other == route);
    let places = places.remove(route).unwrap_or_default();
    let frees = frees(namespace, route, &places);
    (places, frees)
}

fn places(namespace: &NetnsCensus, numbers: &[usize]) -> Vec<RowPlace> {
    let all: Vec<RowPlace> = namespace.rows.iter_with_places().map(|(place, _)| place).collect();
    numbers.iter().map(|number| all[*number]).collect()
}

fn unknown(_: &SocketRow) -> Option<OpenKind> {
    None
}

#[test]
fn each_route_has_all_ports() {
    let rows = vec![
        row("10.0.0.1:40000", "10.0.0.2:80", LIVE),
        row("10.0.0.1:40000", "10.0.0.3:80", LIVE),
        row("10.0.0.9:40000", "10.0.0.2:80", LIVE),
        time_wait("10.0.0.1:40001", "10.0.0.2:80", 30_000),
        time_wait("10.0.0.1:40002", "10.0.0.2:80", 20_000),
    ];
    let all = namespace(rows);
    let account = account(&all, unknown);
    let towards = route("10.0.0.1", "10.0.0.2:80");
    let used = &account.routes[&towards];
    assert_eq!((used.live, used.time_wait, used.reusable, used.used()), (1, 2, 0, 3));
    assert_eq!(used.second_choice, 1, "connect() begins with the parity of 40000");
    assert_eq!(details(&all, &towards), (places(&all, &[0, 3, 4]), [20, 30].map(Duration::from_secs).to_vec()));
    assert_eq!(account.routes.len(), 3);
    assert_eq!((account.space.unwrap().usable(), account.taken), (9, 3));
}

#[test]
fn what_connect_cannot_choose_is_not_counted() {
    let rows = vec![
        row("10.0.0.1:8080", "10.0.0.2:50000", LIVE),
        row("10.0.0.1:40009", "10.0.0.2:80", LIVE),
        row("10.0.0.1:40001", "0.0.0.0:0", LISTEN),
        row("10.0.0.1:40001", "10.0.0.2:50000", LIVE),
        row("10.0.0.1:40002", "10.0.0.2:50000", TcpState::SynRecv),
    ];
    let account = account(&namespace(rows), unknown);
    assert_eq!(account.routes, FastMap::default(), "out of range, reserved, inbound, half open");
    assert_eq!(account.taken, 1);
}

#[test]
fn an_inbound_connection_that_is_known_takes_no_port_of_a_route() {
    let rows = vec![time_wait("10.0.0.1:40001", "10.0.0.2:50000", 1_000)];
    let account = account(&namespace(rows), |_| Some(OpenKind::Passive));
    assert_eq!((account.routes.len(), account.taken), (0, 1));
}

#[test]
fn a_bound_port_is_lost_to_every_destination() {
    let bound = |local| row(local, "0.0.0.0:0", TcpState::BoundInactive);
    let rows = vec![
        bound("127.0.0.2:40000"),
        row("[::]:40001", "[::]:0", LISTEN),
        row("0.0.0.0:40001", "0.0.0.0:0", LISTEN),
        bound("0.0.0.0:40009"),
        bound("0.0.0.0:0"),
        bound("0.0.0.0:22"),
    ];
    let all = namespace(rows);
    let space = PortSpace::of(&all).unwrap();
    let poisoned = [(40_000, places(&all, &[0])), (40_001, places(&all, &[1, 2]))];
    assert_eq!(space.poisoned, BTreeMap::from(poisoned));
    assert_eq!((space.open(), space.usable(), space.range()), (9, 7, (40_000, 40_009)));
    assert!(!space.is_usable(40_000) && space.is_usable(40_002) && !space.is_usable(40_009));
}

/// `tcp_tw_reuse`, the route, the time a TIME_WAIT has left: whether connect() can take it over, and when.
#[test]
fn reuse_is_what_tcp_twsk_unique_allows() {
    let far = (("10.0.0.1:40000", "10.0.0.2:80"), route("10.0.0.1", "10.0.0.2:80"));
    let near = (("127.0.0.1:40000", "127.0.0.1:80"), route("127.0.0.1", "127.0.0.1:80"));
    let reused = |mode, delay, timestamps, ((local, remote), route): ((&str, &str), Route), left_ms| {
        let mut namespace = namespace(vec![time_wait(local, remote, left_ms)]);
        namespace.settings.tw_reuse = mode;
        namespace.settings.tw_reuse_delay_ms = delay;
        namespace.settings.timestamps = timestamps;
        let used = account(&namespace, unknown).routes[&route].clone();
        let (_, frees) = details(&namespace, &route);
        assert_eq!(used.reusable + u32::try_from(frees.len()).unwrap(), 1);
        frees.first().copied()
    };
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!(reused(Some(1), None, Some(1), far, 58_900), None);
    assert_eq!(reused(Some(1), None, Some(1), far, 59_500), ms(500));
    assert_eq!(reused(Some(1), Some(5_000), Some(1), far, 58_900), ms(3_900));
    assert_eq!(reused(Some(2), None, Some(1), near, 58_900), None);
    assert_eq!(reused(Some(2), None, Some(1), far, 58_900), ms(58_900), "not loopback");
    assert_eq!(reused(Some(0), None, Some(1), near, 58_900), ms(58_900));
    assert_eq!(reused(Some(1), None, Some(0), near, 58_900), ms(58_900), "no timestamps");
    assert_eq!(reused(Some(1), None, None, near, 58_900), ms(58_900), "not known");
    assert_eq!(reused(None, None, Some(1), near, 100), ms(100));
}

#[test]
fn a_fin_wait2_minisocket_is_never_taken_over() {
    let mut fin_wait2 = time_wait("127.0.0.1:40000", "127.0.0.1:80", 5_000);
    fin_wait2.state = TcpState::FinWait2;
    let mut namespace = namespace(vec![fin_wait2]);
    namespace.settings.tw_reuse = Some(1);
    let near = route("127.0.0.1", "127.0.0.1:80");
    let used = account(&namespace, unknown).routes[&near].clone();
    let (_, frees) = details(&namespace, &near);
    assert_eq!((used.time_wait, used.reusable, frees), (1, 0, vec![TIME_WAIT_LENGTH]));
}

#[test]
fn without_the_range_nothing_is_said() {
    let mut unknown_range = namespace(vec![row("10.0.0.1:40000", "10.0.0.2:80", LIVE)]);
    unknown_range.settings.port_range = None;
    assert_eq!(account(&unknown_range, unknown), Accounting::default());
    let mut unknown_reserved = namespace(Vec::new());
    unknown_reserved.settings.reserved_ports = None;
    assert_eq!(PortSpace::of(&unknown_reserved), None, "one of ten is reserved: which one is not known");
    unknown_reserved.settings.usable_ports = Some(10);
    assert_eq!(PortSpace::of(&unknown_reserved).unwrap().usable(), 10);
}

proptest! {
    #[test]
    fn the_open_ports_are_those_that_are_open(
        (low, length) in (0_u16..60_000, 0_u16..400),
        reserved in prop::collection::vec((0_u16..61_000, 0_u16..300), 0..6),
    ) {
        let mut all = namespace(Vec::new());
        all.settings.port_range = Some((low, low + length));
        all.settings.reserved_ports = Some(reserved.iter().map(|&(first, more)| (first, first + more)).collect());
        let space = PortSpace::of(&all).unwrap();
        let open = (0..=u16::MAX).filter(|&port| space.is_usable(port)).count();
        prop_assert_eq!(usize::try_from(space.open()).unwrap(), open);
        prop_assert_eq!(space.usable(), space.open());
    }

    #[test]
    fn no_route_uses_more_than_there_is(
        sockets in prop::collection::vec((39_995_u16..40_015, 0_u8..4, 80_u16..83, 0_u64..60_000), 0..120),
        reuse in 0_u8..3,
    ) {
        let rows = sockets.iter().map(|&(port, kind, serving, left)| {
            let (local, remote) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{serving}"));
            match kind {
                0 => row(&local, "0.0.0.0:0", TcpState::BoundInactive),
                1 => row(&local, &remote, LIVE),
                _ => time_wait(&local, &remote, left),
            }
        });
        let mut all = namespace(rows.collect());
        all.settings.tw_reuse = Some(reuse);
        let account = account(&all, unknown);
        let usable = account.space.as_ref().unwrap().usable();
        for (route, used) in &account.routes {
            let (places, frees) = details(&all, route);
            prop_assert!(used.live + used.time_wait <= usable);
            prop_assert!(used.reusable <= used.time_wait && used.second_choice <= used.live + used.time_wait);
            prop_assert_eq!(places.len(), usize::try_from(used.live + used.time_wait).unwrap());
            prop_assert_eq!(frees.len(), usize::try_from(used.time_wait - used.reusable).unwrap());
            prop_assert!(used.used() <= account.taken);
        }
    }
}
