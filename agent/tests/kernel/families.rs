//! Address families and protocols: what one connection looks like, and what is none.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use firstfin::model::{Ending, Event, TcpState, Transition};
use libtest_mimic::{Failed, Trial};

use crate::{
    actor::{Actor, Conn, Family, Listener, Protocol, SocketOption, establish},
    case::{Outcome, trials},
    scene::{Scene, Wanted, inbound, outbound},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("families":
        ipv4,
        ipv6,
        ipv4_client_of_a_dual_stack_server,
        ipv4_mapped_client_of_an_ipv4_server,
        mptcp_client_closes_first needs Mptcp,
        mptcp_server_closes_first needs Mptcp,
        plain_client_of_an_mptcp_server needs Mptcp,
        udp_and_unix_are_not_ours,
    )
}

/// The client closes first, then the server; both ends are compared.
fn close_both(
    scene: &Scene<'_>,
    (client, ours): (&mut Actor, Conn),
    (server, theirs): (&mut Actor, Conn),
) -> Result<(Transition, Transition), Failed> {
    client.close(ours.socket)?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    let first = scene.ended(&ours, outbound(Wanted::TimeWait, client.who(), Some(client.who())))?;
    let second = scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    // Whatever the family of each socket, both ends name the same two endpoints.
    assert_eq!(first.connection.local, second.connection.remote, "{}", scene.story());
    assert_eq!(first.connection.remote, second.connection.local, "{}", scene.story());
    Ok((first, second))
}

fn plain(family: Family, loopback: &str) -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(family)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;
    let (first, _) = close_both(&scene, (&mut client, ours), (&mut server, theirs))?;
    assert_eq!(first.connection.local.ip().to_string(), loopback, "{}", scene.story());
    assert_eq!(first.connection.remote, listener.address, "{}", scene.story());
    scene.finish(2)
}

fn ipv4() -> Outcome {
    plain(Family::V4, "127.0.0.1")
}

fn ipv6() -> Outcome {
    plain(Family::V6, "::1")
}

fn ipv4_client_of_a_dual_stack_server() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let socket = server.socket(Family::V6, &[SocketOption::V6Only(false)])?;
    server.bind(socket, (Ipv6Addr::UNSPECIFIED, 0).into())?;
    let listener = server.listen_on(socket, 8)?;
    let ours = client.connect((Ipv4Addr::LOCALHOST, listener.address.port()).into())?;
    let theirs = server.accept(listener)?;
    assert_eq!(theirs.local.ip(), Ipv4Addr::LOCALHOST.to_ipv6_mapped(), "the server sees a mapped address");

    let (_, second) = close_both(&scene, (&mut client, ours), (&mut server, theirs))?;
    assert!(second.connection.local.is_ipv4() && second.connection.remote.is_ipv4(), "{}", scene.story());
    scene.finish(2)
}

fn ipv4_mapped_client_of_an_ipv4_server() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let mapped: SocketAddr = (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), listener.address.port()).into();
    let ours = client.connect(mapped)?;
    let theirs = server.accept(listener)?;
    assert_eq!(ours.local.ip(), Ipv4Addr::LOCALHOST.to_ipv6_mapped(), "the client sees a mapped address");

    let (first, _) = close_both(&scene, (&mut client, ours), (&mut server, theirs))?;
    assert!(first.connection.local.is_ipv4() && first.connection.remote.is_ipv4(), "{}", scene.story());
    scene.finish(2)
}

fn mptcp_listener(server: &mut Actor) -> Result<Listener, Failed> {
    let socket = server.socket_of(Family::V4, Protocol::Mptcp, &[])?;
    server.bind(socket, (Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(server.listen_on(socket, 8)?)
}

fn mptcp_connect(client: &mut Actor, listener: Listener) -> Result<Conn, Failed> {
    let socket = client.socket_of(Family::V4, Protocol::Mptcp, &[])?;
    Ok(client.connect_on(socket, listener.address)?)
}

/// The end of an MPTCP subflow: it is closed by a kernel thread, on behalf of nobody that could be seen.
fn assert_subflow(scene: &Scene<'_>, end: &Transition, opener: Option<&crate::actor::Fork>) {
    scene.assert_is(end.opener.as_deref(), opener, "opener of the subflow");
    assert!(
        end.closer.as_ref().is_some_and(|closer| closer.is_kernel_thread),
        "closer of the subflow\n{}",
        scene.story()
    );
}

/// An MPTCP connection is one TCP connection for each subflow, here one, and no second one of its own.
fn mptcp_client_closes_first() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = mptcp_listener(&mut server)?;
    let ours = mptcp_connect(&mut client, listener)?;
    let theirs = server.accept(listener)?;

    client.close(ours.socket)?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    let end = scene.watch().end(ours.connection(&scene.net))?;
    assert_subflow(&scene, &end, Some(client.who()));
    let end = scene.watch().end(theirs.connection(&scene.net))?;
    assert_subflow(&scene, &end, None);
    scene.finish(2)
}

fn mptcp_server_closes_first() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = mptcp_listener(&mut server)?;
    let ours = mptcp_connect(&mut client, listener)?;
    let theirs = server.accept(listener)?;

    server.close(theirs.socket)?;
    client.receive_end(ours.socket)?;
    client.close(ours.socket)?;
    let end = scene.watch().end(theirs.connection(&scene.net))?;
    assert_subflow(&scene, &end, None);
    let end = scene.watch().end(ours.connection(&scene.net))?;
    assert_subflow(&scene, &end, Some(client.who()));
    scene.finish(2)
}

/// What most MPTCP servers see: accept() gives a plain TCP socket, which its process closes itself.
fn plain_client_of_an_mptcp_server() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = mptcp_listener(&mut server)?;
    let ours = client.connect(listener.address)?;
    let theirs = server.accept(listener)?;

    server.close(theirs.socket)?;
    client.receive_end(ours.socket)?;
    client.close(ours.socket)?;
    scene.ended(&theirs, inbound(Wanted::TimeWait, Some(server.who())))?;
    scene.ended(&ours, outbound(Ending::PassiveClose, client.who(), Some(client.who())))?;
    scene.finish(2)
}

/// The actors themselves talk over unix sockets, in the watched namespace.
fn udp_and_unix_are_not_ours() -> Outcome {
    let scene = Scene::new()?;
    let mut actor = scene.actor("ff-udp")?;
    let server = actor.socket_of(Family::V4, Protocol::Udp, &[])?;
    actor.bind(server, (Ipv4Addr::LOCALHOST, 5_353).into())?;
    let client = actor.socket_of(Family::V4, Protocol::Udp, &[])?;
    actor.connect_on(client, (Ipv4Addr::LOCALHOST, 5_353).into())?;
    actor.send(client, 4)?;
    actor.receive(server, 4)?;
    actor.close(client)?;
    actor.close(server)?;
    let events = scene.mark()?;
    let is_listening = |event: &Event| matches!(event, Event::Transition(end) if end.new == TcpState::Listen);
    assert!(events.iter().all(is_listening), "{}", scene.story());
    Ok(())
}
