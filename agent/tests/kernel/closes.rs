//! Connections that end with FINs: who sent the first one, and so has TIME_WAIT.

use firstfin::model::{Ending, TcpState, TimeWaitSubstate};
use libtest_mimic::Trial;

use crate::{
    actor::{Command, Family, establish},
    case::{Outcome, trials},
    scene::{FIN_WAIT2, Scene, TIME_WAIT, Wanted, inbound, outbound},
    wire::{self, Way, Wire},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("closes":
        client_closes_first,
        server_closes_first,
        half_close,
        shutdown_then_close,
        simultaneous_close needs Wire,
        exit_closes,
        kill_closes,
        last_holder_closes,
        shutdown_counts_not_the_last_close,
        another_thread_closes,
    )
}

fn client_closes_first() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.close(ours.socket)?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    let end = scene.ended(&ours, outbound(Wanted::TimeWait, client.who(), Some(client.who())))?;
    assert!(end.facts.fin_first && !end.facts.fin_second && end.facts.established, "{}", scene.story());
    let end = scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    assert!(!end.facts.fin_first && end.facts.fin_second && end.facts.established, "{}", scene.story());
    scene.finish(2)
}

fn server_closes_first() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    server.close(theirs.socket)?;
    client.receive_end(ours.socket)?;
    client.close(ours.socket)?;
    scene.ended(&theirs, inbound(Wanted::TimeWait, Some(server.who())))?;
    scene.ended(&ours, outbound(Ending::PassiveClose, client.who(), Some(client.who())))?;
    scene.finish(2)
}

/// shutdown() ends the sending side; the descriptor may stay open long after TIME_WAIT has begun.
fn half_close() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.shutdown_write(ours.socket)?;
    client.await_state(ours.socket, TcpState::FinWait2)?;
    server.receive_end(theirs.socket)?;
    server.send(theirs.socket, 3)?;
    client.receive(ours.socket, 3)?;
    server.close(theirs.socket)?;
    scene.ended(&ours, outbound(TIME_WAIT, client.who(), Some(client.who())))?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    client.close(ours.socket)?;
    scene.finish(2)
}

fn shutdown_then_close() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.close_in_fin_wait2(ours.socket)?;
    scene.ended(&ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    server.close(theirs.socket)?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}

/// Both FINs are under way before either arrives: both sides go through CLOSING, and both have TIME_WAIT.
fn simultaneous_close() -> Outcome {
    let (left, right) = (Scene::new()?, Scene::new()?);
    let wire = Wire::between(&left.net, &right.net)?;
    let (mut client, mut server) = (left.actor("ff-client")?, right.actor("ff-server")?);
    let listener = server.listen((wire::RIGHT, 0).into())?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    wire.hold(Way::LeftToRight);
    wire.hold(Way::RightToLeft);
    client.close(ours.socket)?;
    server.close(theirs.socket)?;
    let (to_right, to_left) = (
        wire.take(Way::LeftToRight, |segment| segment.is_fin())?,
        wire.take(Way::RightToLeft, |segment| segment.is_fin())?,
    );
    wire.deliver(Way::LeftToRight, &to_right)?;
    wire.deliver(Way::RightToLeft, &to_left)?;
    for way in [Way::LeftToRight, Way::RightToLeft] {
        let answer = wire.take(way, |segment| !segment.is_fin())?;
        wire.deliver(way, &answer)?;
        wire.release(way);
    }

    let both = Ending::TimeWait { substate: TimeWaitSubstate::TimeWait, simultaneous: true };
    left.ended(&ours, outbound(both, client.who(), Some(client.who())))?;
    right.ended(&theirs, inbound(both, Some(server.who())))?;
    left.finish(1)?;
    right.finish(1)
}

/// A process that ends is gone before its sockets are closed. It is the closer all the same, and keeps its name.
fn exit_closes() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    let client = client.exit()?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    scene.ended(&ours, outbound(Wanted::TimeWait, &client, Some(&client)))?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}

fn kill_closes() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    let server = server.kill()?;
    client.receive_end(ours.socket)?;
    client.close(ours.socket)?;
    scene.ended(&theirs, inbound(Wanted::TimeWait, Some(&server)))?;
    scene.ended(&ours, outbound(Ending::PassiveClose, client.who(), Some(client.who())))?;
    scene.finish(2)
}

/// After fork() both have the connection: whoever lets go of it last sends the FIN. Who connected stays known.
fn last_holder_closes() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    let heir = client.fork(b"ff-heir")?;
    client.close(ours.socket)?;
    // Not the end: the server can still send to whoever has it.
    server.send(theirs.socket, 1)?;
    client.done(Command::Child(Box::new(Command::Receive { fd: ours.socket.0, bytes: 1 })))?;
    scene.assert_nothing_ended()?;

    client.child_exit()?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    scene.ended(&ours, outbound(Wanted::TimeWait, client.who(), Some(&heir)))?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}

/// shutdown() by one holder sends the FIN; close() by another, later, does not make that one the closer.
fn shutdown_counts_not_the_last_close() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.fork(b"ff-heir")?;
    client.shutdown_write(ours.socket)?;
    client.await_state(ours.socket, TcpState::FinWait2)?;
    client.close(ours.socket)?;
    client.child_exit()?;
    scene.ended(&ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    server.close(theirs.socket)?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}

/// A thread has a name of its own; the process is named by its leader's.
fn another_thread_closes() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;

    client.done(Command::CloseInThread { fd: ours.socket.0, name: "a-worker".to_owned() })?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    scene.ended(&ours, outbound(Wanted::TimeWait, client.who(), Some(client.who())))?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}
