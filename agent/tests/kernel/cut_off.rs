//! Connections that end with a RST, or whose TIME_WAIT a RST takes away: nobody may be told to have TIME_WAIT then.

use firstfin::model::{Ending, Event, Reset, TcpState};
use libtest_mimic::Trial;

use crate::{
    actor::{Command, Family, SocketOption, establish},
    case::{Outcome, trials},
    scene::{FIN_WAIT2, Scene, errno_of, inbound, outbound},
    wire::{self, Way, Wire},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("cut_off":
        linger_zero,
        linger_zero_at_exit,
        unread_data,
        disconnect,
        listener_closed_before_accept,
        reset_in_fin_wait2,
        negative_linger2_after_shutdown,
        negative_linger2_at_close,
        data_after_close_before_its_ack needs Wire,
        data_after_close_with_its_ack needs Wire,
    )
}

const RECEIVED: Ending = Ending::Reset(Reset::Received);

fn linger_zero() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.set(ours.socket, SocketOption::LingerZero)?;
    client.close(ours.socket)?;
    scene.ended(&ours, outbound(Ending::Reset(Reset::LingerZero), client.who(), Some(client.who())))?;
    scene.ended(&theirs, inbound(RECEIVED, None))?;
    assert_eq!(errno_of(server.receive_end(theirs.socket))?, libc::ECONNRESET);
    scene.finish(2)
}

fn linger_zero_at_exit() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    server.set(theirs.socket, SocketOption::LingerZero)?;
    let server = server.exit()?;
    scene.ended(&theirs, inbound(Ending::Reset(Reset::LingerZero), Some(&server)))?;
    scene.ended(&ours, outbound(RECEIVED, client.who(), None))?;
    scene.finish(2)
}

fn unread_data() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    server.send(theirs.socket, 5)?;
    // Having read the first byte, the client has received the rest.
    client.receive(ours.socket, 1)?;
    client.close(ours.socket)?;
    scene.ended(&ours, outbound(Ending::Reset(Reset::UnreadData), client.who(), Some(client.who())))?;
    scene.ended(&theirs, inbound(RECEIVED, None))?;
    scene.finish(2)
}

fn disconnect() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.done(Command::Disconnect { fd: ours.socket.0 })?;
    scene.ended(&ours, outbound(Ending::Reset(Reset::Disconnected), client.who(), Some(client.who())))?;
    scene.ended(&theirs, inbound(RECEIVED, None))?;

    // The socket can be used again, and is another connection then.
    let again = client.connect_on(ours.socket, listener.address)?;
    let theirs = server.accept(listener)?;
    client.close_in_fin_wait2(again.socket)?;
    scene.ended(&again, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    server.close(theirs.socket)?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(4)
}

fn listener_closed_before_accept() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let ours = client.connect(listener.address)?;

    server.close(listener.socket)?;
    scene.ended(&ours, outbound(RECEIVED, client.who(), None))?;
    let mut theirs = ours.connection(&scene.net);
    std::mem::swap(&mut theirs.local, &mut theirs.remote);
    scene.ended_as(theirs, inbound(Ending::Reset(Reset::NotAccepted), Some(server.who())))?;
    let end = scene.watch().wait(scene.net.id(), "the end of the listener", |events| {
        events.iter().find_map(|event| match event {
            Event::Transition(end) if end.ending() == Some(Ending::ListenerClosed) => Some(end.clone()),
            _ => None,
        })
    })?;
    assert_eq!(end.connection.local, listener.address, "{}", scene.story());
    scene.assert_is(end.opener.as_deref(), Some(server.who()), "who listened");
    scene.finish(2)
}

/// The full socket is still there, waiting for the other side's FIN, and gets a RST: no TIME_WAIT.
fn reset_in_fin_wait2() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.shutdown_write(ours.socket)?;
    client.await_state(ours.socket, TcpState::FinWait2)?;
    server.set(theirs.socket, SocketOption::LingerZero)?;
    server.close(theirs.socket)?;
    scene.ended(&ours, outbound(RECEIVED, client.who(), Some(client.who())))?;
    scene.ended(&theirs, inbound(Ending::Reset(Reset::LingerZero), Some(server.who())))?;
    scene.finish(2)
}

/// Waits for the claim of this connection to be taken back.
fn retracted(scene: &Scene<'_>, claim: &firstfin::model::Transition) -> Outcome {
    scene.watch().wait(scene.net.id(), "the retraction of the claim", |events| {
        events.iter().find(|event| match event {
            Event::Retraction(retraction) => {
                retraction.socket == claim.socket
                    && retraction.connection == claim.connection
                    && retraction.at >= claim.at
            }
            _ => false,
        })?;
        Some(())
    })
}

/// TCP_LINGER2 below zero: no FIN_WAIT2 after close(). The kernel goes FIN_WAIT2 -> CLOSE as it does on the way to
/// TIME_WAIT, and only then sends the RST.
fn negative_linger2_after_shutdown() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.set(ours.socket, SocketOption::Linger2(-1))?;
    client.shutdown_write(ours.socket)?;
    client.await_state(ours.socket, TcpState::FinWait2)?;
    client.close(ours.socket)?;
    let claim = scene.ended(&ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    retracted(&scene, &claim)?;
    scene.ended(&theirs, inbound(RECEIVED, None))?;
    scene.finish(2)
}

/// The same without the shutdown(): here the ACK of the FIN, in softirq, ends it.
fn negative_linger2_at_close() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.set(ours.socket, SocketOption::Linger2(-1))?;
    client.close(ours.socket)?;
    let claim = scene.ended(&ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    retracted(&scene, &claim)?;
    scene.ended(&theirs, inbound(RECEIVED, None))?;
    scene.finish(2)
}

/// Data that was under way when the process closed: the kernel treats it as a RST (`tcp_reset()`).
fn data_after_close_before_its_ack() -> Outcome {
    let (left, right) = (Scene::new()?, Scene::new()?);
    let wire = Wire::between(&left.net, &right.net)?;
    let (mut client, mut server) = (left.actor("ff-client")?, right.actor("ff-server")?);
    let listener = server.listen((wire::RIGHT, 0).into())?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    wire.hold(Way::LeftToRight);
    wire.hold(Way::RightToLeft);
    server.send(theirs.socket, 7)?;
    let data = wire.take(Way::RightToLeft, |segment| segment.payload() == 7)?;
    client.close(ours.socket)?;
    wire.take(Way::LeftToRight, |segment| segment.is_fin())?;
    wire.deliver(Way::RightToLeft, &data)?;
    let end = left.ended(&ours, outbound(RECEIVED, client.who(), Some(client.who())))?;
    assert_eq!(end.old, TcpState::FinWait1, "{}", left.story());
    left.finish(1)
}

/// Data that acknowledges the FIN: FIN_WAIT1 -> FIN_WAIT2 -> CLOSE, then a RST.
fn data_after_close_with_its_ack() -> Outcome {
    let (left, right) = (Scene::new()?, Scene::new()?);
    let wire = Wire::between(&left.net, &right.net)?;
    let (mut client, mut server) = (left.actor("ff-client")?, right.actor("ff-server")?);
    let listener = server.listen((wire::RIGHT, 0).into())?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    wire.hold(Way::RightToLeft);
    client.close(ours.socket)?;
    server.receive_end(theirs.socket)?;
    server.send(theirs.socket, 7)?;
    let data = wire.take(Way::RightToLeft, |segment| segment.payload() == 7)?;
    wire.deliver(Way::RightToLeft, &data)?;
    let claim = left.ended(&ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    retracted(&left, &claim)?;
    right.ended(&theirs, inbound(RECEIVED, None))?;
    left.finish(1)?;
    right.finish(1)
}
