//! connect() and the ports it can have: the kernel chooses one for each destination, or takes the one that was bound.
//! What fails is reported once, with cause, errno, process and both ends; what succeeds is not.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use firstfin::model::{Call, ConnectFailure, Connection, Ending, Event, OpenKind, SocketOptions};
use libtest_mimic::{Failed, Trial};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    actor::{Actor, Conn, Family, Fork, Listener, REUSE, SocketOption, establish},
    case::{Outcome, trials},
    scene::{Refusal, Scene, errno_of, outbound},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("connect_matrix":
        range_used_up,
        range_used_up_on_ipv6,
        range_of_the_socket_used_up needs PortRange,
        range_used_up_after_bind,
        range_taken_by_a_bound_socket,
        fixed_port_of_a_connection,
        fixed_port_of_a_timewait_socket,
        only_port_in_time_wait,
        only_port_in_time_wait_just_now,
        refused,
    )
}

const PLAIN: &[SocketOption] = &[];

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Who connects, who is connected to, and what failed so far.
struct Play<'a> {
    scene: Scene<'a>,
    client: Actor,
    server: Actor,
    /// Every connect() that failed, as it is to be reported
    failed: Vec<Failure>,
}

/// A connect() that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    cause: ConnectFailure,
    errno: u32,
    connection: Connection,
}

impl Play<'static> {
    fn new() -> Result<Self, Failed> {
        let scene = Scene::new()?;
        let (client, server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
        Ok(Self { scene, client, server, failed: Vec::new() })
    }

    /// The ports the kernel chooses from, here.
    fn range(&self, first: u16, last: u16) -> io::Result<()> {
        self.scene.net.sysctl("ipv4/ip_local_port_range", &format!("{first} {last}"))
    }

    /// A connection from a port of the kernel's choice, and its other end.
    fn connected(&mut self, to: Listener) -> io::Result<(Conn, Conn)> {
        establish(&mut self.client, &mut self.server, to)
    }

    /// The same, and only the client's TIME_WAIT is left of it.
    fn time_wait(&mut self, to: Listener) -> Result<Conn, Failed> {
        let (ours, theirs) = self.connected(to)?;
        self.scene.leave_time_wait((&mut self.client, ours), (&mut self.server, theirs))?;
        Ok(ours)
    }

    /// A connect() that cannot have its port: asserts the errno, and notes what is to be reported.
    fn unavailable(
        &mut self,
        result: io::Result<Conn>,
        cause: ConnectFailure,
        from: SocketAddr,
        to: Listener,
    ) -> Outcome {
        assert_eq!(errno_of(result)?, libc::EADDRNOTAVAIL, "{from} -> {}", to.address);
        let connection = Connection { netns: self.scene.net.id(), local: from, remote: to.address };
        self.failed.push(Failure { cause, errno: libc::EADDRNOTAVAIL.unsigned_abs(), connection });
        Ok(())
    }

    /// A connect() of a plain socket for which no port is left.
    fn no_free_port(&mut self, to: Listener) -> Outcome {
        let result = self.client.connect(to.address);
        self.unavailable(result, ConnectFailure::NoFreePort, SocketAddr::new(to.address.ip(), 0), to)
    }

    /// Everything that was to be reported as failed has been, once, as the client's; and nothing else.
    fn finish(self) -> Outcome {
        self.range(60_000, 60_999)?;
        let events = self.scene.mark()?;
        let failed: Vec<_> = events.iter().filter_map(|event| failure_of(event, self.client.who())).collect();
        assert_eq!(failed, self.failed, "{}", self.scene.story());
        Ok(())
    }
}

fn failure_of(event: &Event, who: &Fork) -> Option<Failure> {
    let Event::Transition(end) = event else { return None };
    let ending @ Ending::ConnectFailed(cause) = end.ending()? else { return None };
    let opener = end.opener.as_ref().map(|task| (task.key, &task.comm));
    assert_eq!((end.opened, opener), (Some(OpenKind::Active), Some((who.key, &who.comm))), "{end:?}");
    assert_eq!(end.facts.port_bound, cause == ConnectFailure::TupleInUse, "{end:?}");
    Some(Failure { cause, errno: ending.connect_errno(end), connection: end.connection })
}

/// As many connections as there are ports; and then only to another destination.
fn used_up(ip: &str) -> Outcome {
    let mut play = Play::new()?;
    let ip: IpAddr = ip.parse()?;
    let listener = play.server.listen((ip, 8_080).into())?;
    let other = play.server.listen((ip, 8_081).into())?;
    play.range(40_000, 40_003)?;
    for _ in 0..4 {
        play.connected(listener)?;
    }
    play.no_free_port(listener)?;
    // One that does not wait is told at once, too.
    let result = play.client.connect_in_background(listener.address);
    play.unavailable(result, ConnectFailure::NoFreePort, SocketAddr::new(ip, 0), listener)?;

    let (shared, _) = play.connected(other)?;
    assert!((40_000..=40_003).contains(&shared.local.port()), "{shared:?}");
    play.finish()
}

fn range_used_up() -> Outcome {
    used_up("127.0.0.1")
}

fn range_used_up_on_ipv6() -> Outcome {
    used_up("::1")
}

/// IP_LOCAL_PORT_RANGE: others may have ports left.
fn range_of_the_socket_used_up() -> Outcome {
    let mut play = Play::new()?;
    let listener = play.server.listen(local(8_080))?;
    play.range(40_000, 40_999)?;
    let connect = |play: &mut Play<'_>| {
        let socket = play.client.socket(Family::V4, &[SocketOption::LocalPortRange(40_100, 40_101)])?;
        play.client.connect_on(socket, listener.address)
    };
    for _ in 0..2 {
        let ours = connect(&mut play)?;
        assert!((40_100..=40_101).contains(&ours.local.port()), "{ours:?}");
        play.server.accept(listener)?;
    }
    let result = connect(&mut play);
    play.unavailable(result, ConnectFailure::NoFreePort, local(0), listener)?;
    play.connected(listener)?;
    play.finish()
}

/// bind() to an address without a port: with IP_BIND_ADDRESS_NO_PORT the choice, and the failure, is connect()'s.
fn range_used_up_after_bind() -> Outcome {
    let mut play = Play::new()?;
    let listener = play.server.listen(local(8_080))?;
    play.range(40_000, 40_001)?;
    let source: SocketAddr = (Ipv4Addr::new(127, 0, 0, 9), 0).into();
    let later = [SocketOption::BindAddressNoPort];
    for _ in 0..2 {
        play.client.connect_from(source, &later, listener.address)?;
        play.server.accept(listener)?;
    }
    let result = play.client.connect_from(source, &later, listener.address);
    play.unavailable(result, ConnectFailure::NoFreePort, source, listener)?;

    assert_eq!(errno_of(play.client.connect_from(source, PLAIN, listener.address))?, libc::EADDRINUSE);
    let options = SocketOptions::default();
    let refusal = Refusal { call: Call::Bind, local: source.to_string(), errno: libc::EADDRINUSE, options };
    play.scene.refused(play.client.who(), refusal)?;
    play.finish()
}

/// A port that somebody has bound is nobody's to choose, be it at another address.
fn range_taken_by_a_bound_socket() -> Outcome {
    let mut play = Play::new()?;
    let listener = play.server.listen(local(8_080))?;
    play.range(40_000, 40_000)?;
    let taken = play.server.socket(Family::V4, PLAIN)?;
    play.server.bind(taken, (Ipv4Addr::new(127, 0, 0, 2), 40_000).into())?;
    play.no_free_port(listener)?;
    play.server.close(taken)?;
    play.connected(listener)?;
    play.finish()
}

/// A fixed source port, used twice towards the same destination.
fn fixed_port_of_a_connection() -> Outcome {
    let mut play = Play::new()?;
    let mut first = play.scene.actor("ff-first")?;
    let listener = play.server.listen_anywhere(Family::V4)?;
    first.connect_from(local(20_000), REUSE, listener.address)?;

    let result = play.client.connect_from(local(20_000), REUSE, listener.address);
    play.unavailable(result, ConnectFailure::TupleInUse, local(20_000), listener)?;
    play.finish()
}

/// Timestamps tell old segments from new ones, so that the connection can begin again.
fn fixed_port_of_a_timewait_socket() -> Outcome {
    let mut play = Play::new()?;
    let listener = play.server.listen(local(8_080))?;
    for (port, has_timestamps) in [(20_000, true), (20_001, false)] {
        play.scene.net.sysctl("ipv4/tcp_timestamps", if has_timestamps { "1" } else { "0" })?;
        let ours = play.client.connect_from(local(port), REUSE, listener.address)?;
        let theirs = play.server.accept(listener)?;
        play.scene.leave_time_wait((&mut play.client, ours), (&mut play.server, theirs))?;
        let result = play.client.connect_from(local(port), REUSE, listener.address);
        if has_timestamps {
            assert_eq!(result?.local, local(port));
            play.server.accept(listener)?;
        } else {
            play.unavailable(result, ConnectFailure::TupleInUse, local(port), listener)?;
        }
    }
    play.finish()
}

/// net.ipv4.tcp_tw_reuse: 0 never, 1 always, 2 on the loopback; and only what has been in TIME_WAIT for more than 1 s.
fn only_port_in_time_wait() -> Outcome {
    let mut play = Play::new()?;
    let listener = play.server.listen(local(8_080))?;
    let other = play.server.listen(local(8_081))?;
    for port in [40_001, 40_002] {
        play.range(port, port)?;
        play.time_wait(listener)?;
    }
    // What the row is about.
    thread::sleep(Duration::from_millis(1_100));
    for (port, reuse) in [(40_001, "1"), (40_002, "2")] {
        play.range(port, port)?;
        play.scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
        play.no_free_port(listener)?;
        // Towards another destination it is free.
        assert_eq!(play.connected(other)?.0.local, local(port));
        play.scene.net.sysctl("ipv4/tcp_tw_reuse", reuse)?;
        assert_eq!(play.connected(listener)?.0.local, local(port));
    }
    play.finish()
}

/// Before that second is over the port is not to be had.
fn only_port_in_time_wait_just_now() -> Outcome {
    let mut play = Play::new()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    for (port, serving) in (40_000..).zip(8_080..) {
        let listener = play.server.listen(local(serving))?;
        play.range(port, port)?;
        // Kernels before 6.14 compare whole seconds: it counts only if all of it falls in one.
        let begun = await_next_second();
        play.time_wait(listener)?;
        let result = play.client.connect(listener.address);
        if kernel_second() == begun {
            play.unavailable(result, ConnectFailure::NoFreePort, local(0), listener)?;
            break;
        }
        if result.is_err() {
            play.unavailable(result, ConnectFailure::NoFreePort, local(0), listener)?;
        }
        if Instant::now() > deadline {
            return Err("this host never got it done within a second".into());
        }
    }
    play.finish()
}

/// `ktime_get_seconds()`, which goes on with the timer interrupt: the precise clock may be ahead of it.
fn kernel_second() -> i64 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec
}

fn await_next_second() -> i64 {
    let before = kernel_second();
    while kernel_second() == before {
        thread::sleep(Duration::from_millis(1));
    }
    kernel_second()
}

/// Nobody listens there: a RST answers. Unlike above a port was found.
fn refused() -> Outcome {
    let scene = Scene::new()?;
    let mut client = scene.actor("ff-client")?;
    for (loopback, port) in [("127.0.0.1", 9), ("[::1]", 9)] {
        let remote: SocketAddr = format!("{loopback}:{port}").parse()?;
        assert_eq!(errno_of(client.connect(remote))?, libc::ECONNREFUSED);
        let end = scene.watch().wait(scene.net.id(), "the refused connect()", |events| {
            events.iter().find_map(|event| match event {
                Event::Transition(end) if end.connection.remote == remote && end.ending().is_some() => {
                    Some(end.connection)
                }
                _ => None,
            })
        })?;
        assert_ne!(end.local.port(), 0, "a port was chosen\n{}", scene.story());
        let expected = outbound(Ending::ConnectFailed(ConnectFailure::Refused), client.who(), None);
        let end = scene.ended_as(end, expected)?;
        assert_eq!(end.facts.errno, libc::ECONNREFUSED.unsigned_abs(), "{}", scene.story());
    }
    scene.finish(2)
}
