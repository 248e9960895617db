//! Refused bind(), listen() and connect(): who asked, for what, and what it got.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use firstfin::model::{Call, ConnectFailure, Connection, Ending, Event, SocketOptions};
use libtest_mimic::Trial;

use crate::{
    actor::{Family, Protocol, SocketOption, establish},
    case::{Outcome, trials},
    scene::{FIN_WAIT2, Refusal, Scene, errno_of, outbound},
    wire::{self, Way, Wire},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("failures":
        bind_conflict,
        bind_conflict_keeps_the_options,
        bind_conflict_on_ipv6,
        bind_without_a_free_port,
        bind_twice,
        bind_not_permitted,
        bind_to_a_foreign_address,
        bind_of_udp_is_not_ours,
        listen_conflict,
        listen_without_a_free_port,
        connect_without_a_free_port,
        connect_without_a_free_port_after_bind,
        connect_with_the_tuple_in_use,
        connect_refused,
        connect_timed_out,
        connect_unreachable needs Wire,
        connect_abandoned,
        connect_abandoned_by_kill,
    )
}

const NO_OPTIONS: SocketOptions = SocketOptions { reuse_address: false, reuse_port: false, v6_only: false };
const NOBODY: u32 = 65_534;

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn bind_conflict() -> Outcome {
    let scene = Scene::new()?;
    let (mut holder, mut intruder) = (scene.actor("ff-holder")?, scene.actor("ff-intruder")?);
    let listener = holder.listen_anywhere(Family::V4)?;

    let socket = intruder.socket(Family::V4, &[])?;
    assert_eq!(errno_of(intruder.bind(socket, listener.address))?, libc::EADDRINUSE);
    let call = scene.refused(
        intruder.who(),
        Refusal { call: Call::Bind, local: listener.address.to_string(), errno: libc::EADDRINUSE, options: NO_OPTIONS },
    )?;
    assert_eq!(call.task.uid, 0, "{}", scene.story());
    scene.finish(0)
}

/// The options are those of the socket that was refused, each by itself.
fn bind_conflict_keeps_the_options() -> Outcome {
    let scene = Scene::new()?;
    let mut holder = scene.actor("ff-holder")?;
    let listener = holder.listen_anywhere(Family::V4)?;
    let everywhere: SocketAddr = (Ipv6Addr::UNSPECIFIED, listener.address.port()).into();

    let cases = [
        (
            "ff-address",
            Family::V4,
            SocketOption::ReuseAddress(true),
            SocketOptions { reuse_address: true, ..NO_OPTIONS },
        ),
        ("ff-port", Family::V4, SocketOption::ReusePort(true), SocketOptions { reuse_port: true, ..NO_OPTIONS }),
        // Dual-stack, as it is by default where v6only is off: [::] takes the IPv4 port too.
        ("ff-dual", Family::V6, SocketOption::V6Only(false), NO_OPTIONS),
    ];
    for (comm, family, option, options) in cases {
        let mut intruder = scene.actor(comm)?;
        let socket = intruder.socket(family, &[option])?;
        let wanted = if family == Family::V4 { listener.address } else { everywhere };
        assert_eq!(errno_of(intruder.bind(socket, wanted))?, libc::EADDRINUSE, "{comm}");
        let expected = Refusal { call: Call::Bind, local: wanted.to_string(), errno: libc::EADDRINUSE, options };
        scene.refused(intruder.who(), expected)?;
    }

    // With v6only it is another port space, and nothing is refused.
    let mut neighbour = scene.actor("ff-neighbour")?;
    let socket = neighbour.socket(Family::V6, &[SocketOption::V6Only(true)])?;
    neighbour.bind(socket, everywhere)?;
    assert_eq!(refusals(&scene.mark()?), 3, "{}", scene.story());
    Ok(())
}

fn bind_conflict_on_ipv6() -> Outcome {
    let scene = Scene::new()?;
    let (mut holder, mut intruder) = (scene.actor("ff-holder")?, scene.actor("ff-intruder")?);
    let listener = holder.listen_anywhere(Family::V6)?;

    let socket = intruder.socket(Family::V6, &[SocketOption::V6Only(true)])?;
    assert_eq!(errno_of(intruder.bind(socket, listener.address))?, libc::EADDRINUSE);
    let expected = Refusal {
        call: Call::Bind,
        local: format!("[::1]:{}", listener.address.port()),
        errno: libc::EADDRINUSE,
        options: SocketOptions { v6_only: true, ..NO_OPTIONS },
    };
    scene.refused(intruder.who(), expected)?;
    scene.finish(0)
}

/// Port 0: "any port" was asked for, and there is none.
fn bind_without_a_free_port() -> Outcome {
    let scene = Scene::new()?;
    let (mut holder, mut intruder) = (scene.actor("ff-holder")?, scene.actor("ff-intruder")?);
    scene.net.sysctl("ipv4/ip_local_port_range", "45000 45001")?;
    for _ in 0..2 {
        holder.listen_anywhere(Family::V4)?;
    }

    let socket = intruder.socket(Family::V4, &[])?;
    assert_eq!(errno_of(intruder.bind(socket, local(0)))?, libc::EADDRINUSE);
    let expected =
        Refusal { call: Call::Bind, local: "127.0.0.1:0".to_owned(), errno: libc::EADDRINUSE, options: NO_OPTIONS };
    scene.refused(intruder.who(), expected)?;
    Ok(())
}

/// Not a conflict: the socket has an address already.
fn bind_twice() -> Outcome {
    let scene = Scene::new()?;
    let mut actor = scene.actor("ff-twice")?;
    let socket = actor.socket(Family::V4, &[])?;
    actor.bind(socket, local(46_000))?;
    assert_eq!(errno_of(actor.bind(socket, local(46_001)))?, libc::EINVAL);
    let expected =
        Refusal { call: Call::Bind, local: "127.0.0.1:46001".to_owned(), errno: libc::EINVAL, options: NO_OPTIONS };
    scene.refused(actor.who(), expected)?;
    scene.finish(0)
}

/// EACCES is about permission, not about anybody else's socket.
fn bind_not_permitted() -> Outcome {
    let scene = Scene::new()?;
    let mut actor = scene.actor("ff-nobody")?;
    actor.become_user(NOBODY)?;
    let socket = actor.socket(Family::V4, &[])?;
    assert_eq!(errno_of(actor.bind(socket, local(80)))?, libc::EACCES);
    let expected =
        Refusal { call: Call::Bind, local: "127.0.0.1:80".to_owned(), errno: libc::EACCES, options: NO_OPTIONS };
    let call = scene.refused(actor.who(), expected)?;
    assert_eq!(call.task.uid, NOBODY, "{}", scene.story());
    scene.finish(0)
}

fn bind_to_a_foreign_address() -> Outcome {
    let scene = Scene::new()?;
    let mut actor = scene.actor("ff-stranger")?;
    // RFC 5737: nobody's address.
    let foreign: SocketAddr = (Ipv4Addr::new(192, 0, 2, 1), 5_000).into();
    let socket = actor.socket(Family::V4, &[])?;
    assert_eq!(errno_of(actor.bind(socket, foreign))?, libc::EADDRNOTAVAIL);
    let expected =
        Refusal { call: Call::Bind, local: foreign.to_string(), errno: libc::EADDRNOTAVAIL, options: NO_OPTIONS };
    scene.refused(actor.who(), expected)?;
    scene.finish(0)
}

fn bind_of_udp_is_not_ours() -> Outcome {
    let scene = Scene::new()?;
    let mut actor = scene.actor("ff-udp")?;
    let first = actor.socket_of(Family::V4, Protocol::Udp, &[])?;
    actor.bind(first, local(47_000))?;
    let second = actor.socket_of(Family::V4, Protocol::Udp, &[])?;
    assert_eq!(errno_of(actor.bind(second, local(47_000)))?, libc::EADDRINUSE);
    assert_eq!(refusals(&scene.mark()?), 0, "{}", scene.story());
    Ok(())
}

/// With SO_REUSEADDR two sockets may be bound to one port, but only one may listen.
fn listen_conflict() -> Outcome {
    let scene = Scene::new()?;
    let (mut holder, mut intruder) = (scene.actor("ff-holder")?, scene.actor("ff-intruder")?);
    let reuse = [SocketOption::ReuseAddress(true)];
    let first = holder.socket(Family::V4, &reuse)?;
    holder.bind(first, local(48_000))?;
    let second = intruder.socket(Family::V4, &reuse)?;
    intruder.bind(second, local(48_000))?;

    holder.listen_on(first, 8)?;
    assert_eq!(errno_of(intruder.listen_on(second, 8))?, libc::EADDRINUSE);
    let expected = Refusal {
        call: Call::Listen,
        local: "127.0.0.1:48000".to_owned(),
        errno: libc::EADDRINUSE,
        options: SocketOptions { reuse_address: true, ..NO_OPTIONS },
    };
    scene.refused(intruder.who(), expected)?;
    assert_eq!(refusals(&scene.mark()?), 1, "{}", scene.story());
    Ok(())
}

/// listen() without bind() chooses a port, if there is one.
fn listen_without_a_free_port() -> Outcome {
    let scene = Scene::new()?;
    let (mut holder, mut intruder) = (scene.actor("ff-holder")?, scene.actor("ff-intruder")?);
    scene.net.sysctl("ipv4/ip_local_port_range", "45000 45001")?;
    for _ in 0..2 {
        let socket = holder.socket(Family::V4, &[])?;
        holder.listen_on(socket, 8)?;
    }

    let socket = intruder.socket(Family::V4, &[])?;
    assert_eq!(errno_of(intruder.listen_on(socket, 8))?, libc::EADDRINUSE);
    let expected =
        Refusal { call: Call::Listen, local: "0.0.0.0:0".to_owned(), errno: libc::EADDRINUSE, options: NO_OPTIONS };
    scene.refused(intruder.who(), expected)?;
    Ok(())
}

fn connect_without_a_free_port() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen((Ipv4Addr::LOCALHOST, 8_080).into())?;
    scene.net.sysctl("ipv4/ip_local_port_range", "40000 40003")?;
    for _ in 0..4 {
        establish(&mut client, &mut server, listener)?;
    }

    assert_eq!(errno_of(client.connect(listener.address))?, libc::EADDRNOTAVAIL);
    let failed = Connection { netns: scene.net.id(), local: local(0), remote: listener.address };
    let end =
        scene.ended_as(failed, outbound(Ending::ConnectFailed(ConnectFailure::NoFreePort), client.who(), None))?;
    assert_eq!(end.ending().map(|ending| ending.connect_errno(&end)), Some(libc::EADDRNOTAVAIL.unsigned_abs()));
    Ok(())
}

/// bind() to an address without a port (IP_BIND_ADDRESS_NO_PORT) leaves the choice, and the failure, to connect().
fn connect_without_a_free_port_after_bind() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen((Ipv4Addr::LOCALHOST, 8_080).into())?;
    scene.net.sysctl("ipv4/ip_local_port_range", "40000 40001")?;
    let source: SocketAddr = (Ipv4Addr::new(127, 0, 0, 9), 0).into();
    let options = [SocketOption::BindAddressNoPort];
    for _ in 0..2 {
        client.connect_from(source, &options, listener.address)?;
        server.accept(listener)?;
    }

    assert_eq!(errno_of(client.connect_from(source, &options, listener.address))?, libc::EADDRNOTAVAIL);
    let failed = Connection { netns: scene.net.id(), local: source, remote: listener.address };
    scene.ended_as(failed, outbound(Ending::ConnectFailed(ConnectFailure::NoFreePort), client.who(), None))?;
    Ok(())
}

/// A fixed source port, used twice towards the same destination.
fn connect_with_the_tuple_in_use() -> Outcome {
    let scene = Scene::new()?;
    let mut server = scene.actor("ff-server")?;
    let (mut first, mut second) = (scene.actor("ff-first")?, scene.actor("ff-second")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let reuse = [SocketOption::ReuseAddress(true)];
    first.connect_from(local(50_000), &reuse, listener.address)?;

    assert_eq!(errno_of(second.connect_from(local(50_000), &reuse, listener.address))?, libc::EADDRNOTAVAIL);
    let failed = Connection { netns: scene.net.id(), local: local(50_000), remote: listener.address };
    let end =
        scene.ended_as(failed, outbound(Ending::ConnectFailed(ConnectFailure::TupleInUse), second.who(), None))?;
    assert!(end.facts.port_bound, "{}", scene.story());
    assert_eq!(end.ending().map(|ending| ending.connect_errno(&end)), Some(libc::EADDRNOTAVAIL.unsigned_abs()));
    scene.finish(1)
}

fn connect_refused() -> Outcome {
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

/// A listener whose queue is full drops SYNs: nothing answers.
fn connect_timed_out() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    scene.net.sysctl("ipv4/tcp_syn_retries", "1")?;
    let socket = server.socket(Family::V4, &[])?;
    server.bind(socket, local(8_080))?;
    let listener = server.listen_on(socket, 0)?;
    client.connect(listener.address)?;

    assert_eq!(errno_of(client.connect(listener.address))?, libc::ETIMEDOUT);
    let expected = outbound(Ending::ConnectFailed(ConnectFailure::TimedOut), client.who(), None);
    let end = scene.watch().wait(scene.net.id(), "the connect() that timed out", first_failure)?;
    let end = scene.ended_as(end, expected)?;
    assert_eq!(end.facts.errno, libc::ETIMEDOUT.unsigned_abs(), "{}", scene.story());
    scene.finish(1)
}

/// A router says that there is no way.
fn connect_unreachable() -> Outcome {
    let (left, right) = (Scene::new()?, Scene::new()?);
    let wire = Wire::between(&left.net, &right.net)?;
    let mut client = left.actor("ff-client")?;
    wire.hold(Way::LeftToRight);
    let conn = client.connect_in_background((wire::RIGHT, 8_080).into())?;
    let syn = wire.take(Way::LeftToRight, |_| true)?;
    wire.refuse_as_unreachable(&syn)?;
    let expected = outbound(Ending::ConnectFailed(ConnectFailure::Unreachable), client.who(), None);
    let end = left.ended(&conn, expected)?;
    assert_eq!(end.facts.errno, libc::EHOSTUNREACH.unsigned_abs(), "{}", left.story());
    left.finish(1)
}

fn connect_abandoned() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let socket = server.socket(Family::V4, &[])?;
    server.bind(socket, local(8_080))?;
    let listener = server.listen_on(socket, 0)?;
    client.connect(listener.address)?;

    let conn = client.connect_in_background(listener.address)?;
    client.close(conn.socket)?;
    let expected = outbound(Ending::ConnectFailed(ConnectFailure::Abandoned), client.who(), None);
    let end = scene.ended(&conn, expected)?;
    assert_eq!(end.ending().map(|ending| ending.connect_errno(&end)), Some(0), "{}", scene.story());
    scene.finish(1)
}

fn connect_abandoned_by_kill() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let socket = server.socket(Family::V4, &[])?;
    server.bind(socket, local(8_080))?;
    let listener = server.listen_on(socket, 0)?;
    let mut other = scene.actor("ff-other")?;
    let kept = other.connect(listener.address)?;
    server.accept(listener)?;
    other.connect(listener.address)?;

    let conn = client.connect_in_background(listener.address)?;
    assert_ne!(conn.local, kept.local);
    let client = client.kill()?;
    scene.ended(&conn, outbound(Ending::ConnectFailed(ConnectFailure::Abandoned), &client, None))?;
    // The connection of the other process has nothing to do with it.
    other.close_in_fin_wait2(kept.socket)?;
    scene.ended(&kept, outbound(FIN_WAIT2, other.who(), Some(other.who())))?;
    Ok(())
}

fn first_failure(events: &[Event]) -> Option<Connection> {
    events.iter().find_map(|event| match event {
        Event::Transition(end) if matches!(end.ending(), Some(Ending::ConnectFailed(_))) => Some(end.connection),
        _ => None,
    })
}

fn refusals(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Refused(_))).count()
}
