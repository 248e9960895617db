//! bind() and connect() that fail for another reason than that a port is taken: who asked, for what, and what it got.

use std::net::{Ipv4Addr, SocketAddr};

use firstfin::model::{Call, ConnectFailure, Connection, Ending, Event, SocketOptions};
use libtest_mimic::Trial;

use crate::{
    actor::{Family, Protocol},
    case::{Outcome, trials},
    scene::{FIN_WAIT2, NOBODY, Refusal, Scene, errno_of, outbound},
    wire::{self, Way, Wire},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("failures":
        bind_twice,
        bind_not_permitted,
        bind_to_a_foreign_address,
        bind_of_udp_is_not_ours,
        connect_timed_out,
        connect_unreachable needs Wire,
        connect_abandoned,
        connect_abandoned_by_kill,
    )
}

const NO_OPTIONS: SocketOptions = SocketOptions { reuse_address: false, reuse_port: false, v6_only: false };

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
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
