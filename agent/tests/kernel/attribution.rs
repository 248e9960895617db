//! Whose a connection is, where it is easy to get wrong: many at once, other namespaces, processes that are gone, names
//! that are strange, system calls that are none.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use firstfin::{
    model::{Connection, Ending, Event, Name, OpenKind, ProcessKey, Reset},
    state::{Attribution, Reason},
};
use libtest_mimic::{Failed, Trial};

use crate::{
    actor::{Actor, Command, Conn, Family, Fork, Listener, SocketOption, establish},
    case::{Outcome, alone, lesser, trials},
    rung,
    scene::{FIN_WAIT2, Scene, Wanted, inbound, looks_at_files, outbound},
    watch::{self, Wishes},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("attribution":
        ten_thousand_connections,
        same_endpoints_in_two_namespaces,
        short_lived_process_keeps_its_name,
        strange_name,
        new_name,
        io_uring_connects_and_closes needs Uring,
        sockets_used_again_at_once,
    )
}

/// What the actors themselves say of their connections: whose TIME_WAIT each one leaves.
type Truth = HashMap<Connection, (ProcessKey, OpenKind)>;

/// As many connections as are sure to be made before the TIME_WAIT of the first is over, by each of three at the same
/// time: an emulated machine makes a hundred in a second.
fn as_many_as_last(most: usize) -> Result<usize, Failed> {
    const PROBE: usize = 100;
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let started = Instant::now();
    server.begin_serve(listener, PROBE, false)?;
    client.begin_churn(listener.address, PROBE, true, None)?;
    client.ports()?;
    server.finish()?;
    // Twelve seconds for all of them, should they be no faster together than this one. They take up to three times as
    // long: they are watched by one session more, and other tests go on.
    let in_four_seconds = PROBE as f64 * 4.0 / started.elapsed().as_secs_f64();
    Ok(most.min(in_four_seconds as usize))
}

/// Three processes connect 10,000 times, at the same time. Two close first themselves; the third's server does.
fn ten_thousand_connections() -> Outcome {
    let _alone = alone();
    let each = as_many_as_last(3_334)?;
    let all = 3 * each;
    if all < 10_000 {
        lesser(&format!("{all} connections instead of ten thousand: this machine is slower than TIME_WAIT lasts"));
    }
    let scene = Scene::new()?;
    // Nothing is to be taken over or refused: each connection leaves a timewait socket that stays.
    scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    scene.net.sysctl("ipv4/tcp_max_tw_buckets", "100000")?;
    // Nor killed: an ACK that another CPU sent late makes a timewait socket answer, and the other side, closed by then,
    // answers that with a RST (RFC 1337).
    scene.net.sysctl("ipv4/tcp_rfc1337", "1")?;
    let (mut patient, mut hasty) = (scene.actor("ff-patient")?, scene.actor("ff-hasty")?);
    let mut clients = [scene.actor("ff-alpha")?, scene.actor("ff-beta")?, scene.actor("ff-gamma")?];
    let (first, second) = (patient.listen_anywhere(Family::V4)?, hasty.listen_anywhere(Family::V4)?);
    let servers = [first, first, second];

    let (ports, seen) = watch::session(&Wishes::of(&scene.net), || {
        patient.begin_serve(first, 2 * each, false)?;
        hasty.begin_serve(second, each, true)?;
        for (index, client) in clients.iter_mut().enumerate() {
            // Where the server has TIME_WAIT, the kernel may give the client's port to its next connection, which then
            // takes the server's timewait socket over. So that client counts its ports up.
            let from = if index < 2 { None } else { Some(10_000) };
            client.begin_churn(servers[index].address, each, index < 2, from)?;
        }
        let ports = clients.iter_mut().map(Actor::ports).collect::<Result<Vec<_>, _>>()?;
        patient.finish()?;
        hasty.finish()?;
        // The last ACKs are on their way yet.
        scene.net.await_time_wait(all as u64)?;
        Ok(ports)
    })?;

    let skipped = rung::assert_nothing_lost(&seen.report.session.events)?;

    let mut truth = Truth::new();
    for (index, ports) in ports.iter().enumerate() {
        assert_eq!(ports.len(), each);
        for &port in ports {
            let (client, server) = (local(port), servers[index].address);
            let (here, there, owner) =
                if index < 2 { (client, server, &clients[index]) } else { (server, client, &hasty) };
            let opened = if index < 2 { OpenKind::Active } else { OpenKind::Passive };
            let connection = Connection { netns: scene.net.id(), local: here, remote: there };
            assert_eq!(truth.insert(connection, (owner.who().key, opened)), None, "a port was used twice");
        }
    }

    // Every end, by its event.
    let who: HashMap<ProcessKey, &Fork> =
        clients.iter().chain([&patient, &hasty]).map(|a| (a.who().key, a.who())).collect();
    let mut looked_at = HashSet::new();
    for event in &seen.events {
        let Event::Transition(end) = event else { continue };
        let (Some(ending), Some(closer)) = (end.ending(), &end.closer) else { continue };
        if looks_at_files(closer) {
            looked_at.insert(end.connection);
            continue;
        }
        assert_eq!(who.get(&closer.key).map(|who| &who.comm), Some(&closer.comm), "{end:?}");
        match truth.get(&end.connection) {
            Some((owner, opened)) => {
                assert!(matches!(ending, Ending::TimeWait { simultaneous: false, .. }), "{end:?}");
                assert_eq!((closer.key, end.opened), (*owner, Some(*opened)), "{end:?}");
            }
            None => assert_eq!(ending, Ending::PassiveClose, "{end:?}"),
        }
    }

    // Every row of the dump, by the ledger.
    let mut unseen = 0;
    assert_eq!(seen.attributions.len(), all);
    for (connection, attribution) in &seen.attributions {
        // Whoever looked at the files just then may be taken for its owner.
        if looked_at.contains(connection) {
            continue;
        }
        if *attribution == Attribution::Unknown(Reason::NotSeen) {
            unseen += 1;
            continue;
        }
        let expected = truth.get(connection).map(|(owner, opened)| Attribution::Process(*owner, Some(*opened)));
        assert_eq!(Some(*attribution), expected, "{connection:?}");
    }
    assert!(unseen <= skipped, "{unseen} have no owner, {skipped} programs were skipped");
    if unseen > 0 {
        return Ok(());
    }

    // The report adds up to the kernel's own count.
    let namespace = seen.namespace(&scene.net)?;
    assert_eq!((namespace.total, namespace.kernel_total, namespace.overflowed), (all as u64, all as u64, 0));
    for (actor, outbound) in [(&clients[0], true), (&clients[1], true), (&hasty, false)] {
        let process = seen.process(actor.who())?;
        let is_unsure = |connection: &&Connection| {
            truth.get(*connection).is_some_and(|(owner, opened)| {
                let its = Attribution::Process(*owner, Some(*opened));
                *owner == actor.who().key && seen.attributions.get(*connection) != Some(&its)
            })
        };
        let connections = (each - looked_at.iter().filter(is_unsure).count()) as u64;
        assert_eq!(process.sockets + process.fin_wait2, connections, "{process:?}");
        assert_eq!((process.entered, process.closed_first), (connections, connections), "{process:?}");
        let expected = if outbound { (connections, 0) } else { (0, connections) };
        assert_eq!((process.outbound, process.inbound), expected, "{process:?}");
    }
    for actor in [&clients[2], &patient] {
        let process = seen.report.time_wait.by_process.iter().find(|process| process.process.pid == actor.pid());
        assert!(
            process.is_none_or(|process| process.sockets + process.fin_wait2 + process.entered == 0),
            "{process:?}"
        );
    }
    Ok(())
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The four numbers alone name nothing: here they are the same, and the processes are not.
fn same_endpoints_in_two_namespaces() -> Outcome {
    let scenes = [Scene::new()?, Scene::new()?];
    let mut ends = Vec::new();
    for (scene, comm) in scenes.iter().zip(["ff-here", "ff-there"]) {
        let (mut client, mut server) = (scene.actor(comm)?, scene.actor("ff-server")?);
        let listener = server.listen(local(8_080))?;
        let ours = client.connect_from(local(50_000), &[SocketOption::ReuseAddress(true)], listener.address)?;
        let theirs = server.accept(listener)?;
        ends.push((client, server, ours, theirs));
    }
    for (scene, (client, server, ours, theirs)) in scenes.iter().zip(&mut ends) {
        client.close_in_fin_wait2(ours.socket)?;
        scene.ended(ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
        server.close(theirs.socket)?;
        scene.ended(theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
        scene.finish(2)?;
    }
    Ok(())
}

/// Most processes that build up TIME_WAIT are gone when somebody asks.
fn short_lived_process_keeps_its_name() -> Outcome {
    let scene = Scene::new()?;
    let mut server = scene.actor("ff-server")?;
    let listener = server.listen_anywhere(Family::V4)?;
    let (who, seen) = watch::session(&Wishes::of(&scene.net), || {
        let mut client = scene.actor("ff-mayfly")?;
        let (ours, theirs) = establish(&mut client, &mut server, listener)?;
        let who = client.exit()?;
        server.receive_end(theirs.socket)?;
        server.close(theirs.socket)?;
        scene.ended(&ours, outbound(Wanted::TimeWait, &who, Some(&who)))?;
        scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
        Ok(who)
    })?;

    let process = seen.process(&who)?;
    assert_eq!((process.sockets + process.fin_wait2, process.entered), (1, 1), "{process:?}");
    assert_eq!(process.process.comm, who.comm);
    assert!(process.process.exited, "{process:?}");
    assert_eq!(process.process.netns, Some(scene.net.id()));
    // Announced when it connected, so read while it lived, unless the host was busy; but never another's.
    let exe = std::env::current_exe()?;
    let own = exe.to_str().map(Name::from);
    assert!(process.process.exe.is_none() || process.process.exe == own, "{process:?}");
    Ok(())
}

/// A process chooses its name, and may choose to act on the terminal of whoever reads it.
fn strange_name() -> Outcome {
    let scene = Scene::new()?;
    let mut server = scene.actor("ff-server")?;
    let mut client = Actor::start(&scene.net, b"\x1b]0;x\x07\n\"\xff\xc3")?;
    assert_eq!(client.who().comm.as_str(), "\\x1b]0;x\\x07\\n\"\\xff\\xc3");
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;
    client.close_in_fin_wait2(ours.socket)?;
    scene.ended(&ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    server.close(theirs.socket)?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}

/// A process may change its name between connect() and close(). It is one process, and each event has its name then.
fn new_name() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-before")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;
    client.done(Command::Rename { comm: b"ff-after".to_vec() })?;
    client.close(ours.socket)?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    let renamed = Fork { key: client.who().key, comm: Name::from("ff-after") };
    scene.ended(&ours, outbound(Wanted::TimeWait, client.who(), Some(&renamed)))?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}

/// No system call named connect or close is made, and it may run in a kernel-made thread of the process.
fn io_uring_connects_and_closes() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-uring")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let socket = client.socket(Family::V4, &[])?;
    let ours = client.uring_connect(socket, listener.address)?;
    let theirs = server.accept(listener)?;
    client.done(Command::UringClose { fd: ours.socket.0 })?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    scene.ended(&ours, outbound(Wanted::TimeWait, client.who(), Some(client.who())))?;
    scene.ended(&theirs, inbound(Ending::PassiveClose, Some(server.who())))?;
    scene.finish(2)
}

/// The kernel gives the memory of a socket to the next one within microseconds. What was known of the first must not
/// be said of the second.
fn sockets_used_again_at_once() -> Outcome {
    let scene = Scene::new()?;
    let mut server = scene.actor("ff-server")?;
    let listener = server.listen_anywhere(Family::V4)?;
    let mut addresses = HashMap::new();
    // How soon depends on what else is allocated on this CPU.
    let mut rounds = 0;
    while rounds < 20 || addresses.len() == 2 * rounds && rounds < 500 {
        let round = rounds;
        rounds += 1;
        let mut client = scene.actor(&format!("ff-round-{round}"))?;
        let (ours, theirs) = close_by_reset(&scene, &mut client, &mut server, listener)?;
        let cut = Ending::Reset(Reset::LingerZero);
        let end = scene.ended(&ours, outbound(cut, client.who(), Some(client.who())))?;
        *addresses.entry(end.socket).or_insert(0) += 1;
        let end = scene.ended(&theirs, inbound(Ending::Reset(Reset::Received), None))?;
        *addresses.entry(end.socket).or_insert(0) += 1;
    }
    scene.finish(2 * rounds)?;
    assert!(addresses.len() < 2 * rounds, "no address was used again: this test showed nothing\n{addresses:?}");
    Ok(())
}

fn close_by_reset(
    scene: &Scene<'_>,
    client: &mut Actor,
    server: &mut Actor,
    listener: Listener,
) -> Result<(Conn, Conn), Failed> {
    let (ours, theirs) = establish(client, server, listener)?;
    client.set(ours.socket, SocketOption::LingerZero)?;
    client.close(ours.socket)?;
    // On a busy host the RST is on its way for a while.
    scene.watch().end(theirs.connection(&scene.net))?;
    server.close(theirs.socket)?;
    Ok((ours, theirs))
}
