//! Sessions with wishes of their own: filters, every transition, too little room, and what was there before them.

use std::collections::HashMap;

use agent_ebpf::{Detail, Filter};
use firstfin::{
    kernel::Settings,
    model::{Call, Connection, Ending, Event, OpenKind, ProcessKey, TcpState, Transition},
    report::HolderKind,
    state::{Attribution, Reason},
};
use libtest_mimic::{Failed, Trial};

use crate::{
    actor::{Actor, Conn, Family, SocketOption, establish},
    case::{Outcome, trials},
    rung,
    scene::{FIN_WAIT2, Scene, TIME_WAIT, Wanted, errno_of, outbound},
    watch::{self, NO_EVENT, Watch, Wishes},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("sessions":
        sockets_from_before,
        holder_is_named,
        retracted_claim_is_not_counted,
        minisocket_killed_by_a_reset_is_not_counted,
        every_transition,
        connect_is_timed,
        filter_by_process,
        filter_by_name,
        filter_by_port,
        filter_by_namespace,
        ring_too_small,
        socket_table_too_small,
    )
}

/// What is older than the session: a live connection has the owner /proc names, a timewait socket has none any more.
fn sockets_from_before() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (gone, gone_there) = establish(&mut client, &mut server, listener)?;
    let (half, half_there) = establish(&mut client, &mut server, listener)?;
    let (live, live_there) = establish(&mut client, &mut server, listener)?;
    let (orphan, orphan_there) = establish(&mut client, &mut server, listener)?;
    // In TIME_WAIT before the session.
    client.close_in_fin_wait2(gone.socket)?;
    scene.ended(&gone, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
    server.close(gone_there.socket)?;
    scene.watch().end(gone_there.connection(&scene.net))?;
    // Half closed before: its FIN is sent, but the process still has it open.
    client.shutdown_write(half.socket)?;
    client.await_state(half.socket, TcpState::FinWait2)?;
    // Closed before, but the other side's FIN comes during the session.
    client.close_in_fin_wait2(orphan.socket)?;
    scene.ended(&orphan, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;

    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        server.close(half_there.socket)?;
        scene.ended(&half, outbound(TIME_WAIT, client.who(), Some(client.who())))?;
        server.close(live_there.socket)?;
        client.receive_end(live.socket)?;
        client.close(live.socket)?;
        let theirs = live_there.connection(&scene.net);
        scene.watch().end(theirs)?;
        server.close(orphan_there.socket)?;
        scene.watch().end(orphan_there.connection(&scene.net))?;
        Ok(())
    })?;

    let attribution = |conn: &Conn| seen.attributions.get(&conn.connection(&scene.net)).copied();
    let before = Some(Attribution::Unknown(Reason::BeforeSession));
    assert_eq!(attribution(&gone), before, "TIME_WAIT from before");
    assert_eq!(attribution(&orphan), before, "FIN_WAIT2 from before");
    let owned = |actor: &Actor, opened| Some(Attribution::Process(actor.who().key, Some(opened)));
    assert_eq!(attribution(&half), owned(&client, OpenKind::Active), "owner from /proc, direction from the listeners");
    assert_eq!(attribution(&live_there), owned(&server, OpenKind::Passive), "owner from its close()");
    assert_eq!(seen.attributions.len(), 4, "{:?}", seen.attributions);
    let namespace = seen.namespace(&scene.net)?;
    assert_eq!((namespace.total, namespace.kernel_total), (4, 4));

    // The session itself has seen neither the birth of these connections nor, of one, who closed it.
    let end_of = |conn: &Conn| end_in(&seen.events, conn.connection(&scene.net));
    let half = end_of(&half)?;
    assert_eq!((half.born, half.opened, half.opener, half.closer), (None, None, None, None));
    let live = end_of(&live_there)?;
    // Its socket still has what its listener's listen() was told.
    assert_eq!((live.born, live.opened, live.opener), (None, Some(OpenKind::Passive), None));
    scene.assert_is(live.closer.as_deref(), Some(server.who()), "closer of the connection from before");
    Ok(())
}

fn end_in(events: &[Event], connection: Connection) -> Result<Transition, Failed> {
    let end = events.iter().find_map(|event| match event {
        Event::Transition(end) if end.connection == connection && end.ending().is_some() => Some(end.clone()),
        _ => None,
    });
    end.ok_or_else(|| format!("no end of {connection:?} in the session").into())
}

/// A refused bind() is reported with whoever holds the port, to each that was refused.
fn holder_is_named() -> Outcome {
    let scene = Scene::new()?;
    let mut holder = scene.actor("ff-holder")?;
    let mut intruders = [scene.actor("ff-intruder")?, scene.actor("ff-another")?];
    let listener = holder.listen_anywhere(Family::V4)?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..3 {
            for intruder in &mut intruders {
                let socket = intruder.socket(Family::V4, &[])?;
                assert_eq!(errno_of(intruder.bind(socket, listener.address))?, libc::EADDRINUSE);
            }
        }
        scene.mark()?;
        Ok(())
    })?;

    let failures = &seen.report.bind_failures;
    assert_eq!(failures.len(), 2, "{failures:?}");
    for intruder in &intruders {
        let failure = failures.iter().find(|failure| failure.process.pid == intruder.pid());
        let failure = failure.ok_or_else(|| format!("{:?} is not in {failures:?}", intruder.who()))?;
        assert_eq!((failure.call, failure.errno, failure.count), (Call::Bind, libc::EADDRINUSE.unsigned_abs(), 3));
        assert_eq!(failure.local.as_deref(), Some(&*listener.address.to_string()));
        assert_eq!((failure.netns, &failure.process.comm), (scene.net.id(), &intruder.who().comm));
        let [found] = &failure.holders[..] else { return Err(format!("one holder expected: {failure:?}").into()) };
        assert_eq!((found.kind, found.sockets), (HolderKind::Listener, 1), "{found:?}");
        let process = found.process.as_ref().ok_or_else(|| format!("holder without a process: {found:?}"))?;
        assert_eq!((process.pid, &process.comm), (holder.pid(), &holder.who().comm));
    }
    Ok(())
}

/// TCP_LINGER2 below zero: what looked like an entry into TIME_WAIT was none.
fn retracted_claim_is_not_counted() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for linger2 in [-1, 5] {
            let (ours, theirs) = establish(&mut client, &mut server, listener)?;
            client.set(ours.socket, SocketOption::Linger2(linger2))?;
            client.close(ours.socket)?;
            // With the negative one this is a RST.
            let _ = server.receive_end(theirs.socket);
            server.close(theirs.socket)?;
            scene.ended(&ours, outbound(Wanted::TimeWait, client.who(), Some(client.who())))?;
            scene.watch().end(theirs.connection(&scene.net))?;
        }
        scene.mark()?;
        Ok(())
    })?;
    let process = seen.process(client.who())?;
    // The program that sees the RST may be one that was skipped.
    let skipped = rung::assert_nothing_lost(&seen.report.session.events)?;
    assert!((1..=1 + skipped).contains(&process.entered), "{process:?}, {skipped} programs skipped");
    assert_eq!(process.sockets + process.fin_wait2, 1, "{process:?}");
    let namespace = seen.namespace(&scene.net)?;
    assert_eq!((namespace.total, namespace.kernel_total), (1, 1));
    Ok(())
}

/// It was there, and it is gone: counted as entered, not as being there now.
fn minisocket_killed_by_a_reset_is_not_counted() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        let (ours, theirs) = establish(&mut client, &mut server, listener)?;
        client.close_in_fin_wait2(ours.socket)?;
        scene.ended(&ours, outbound(FIN_WAIT2, client.who(), Some(client.who())))?;
        server.set(theirs.socket, SocketOption::LingerZero)?;
        server.close(theirs.socket)?;
        scene.watch().end(theirs.connection(&scene.net))?;
        scene.mark()?;
        Ok(())
    })?;
    let process = seen.process(client.who())?;
    assert_eq!((process.entered, process.sockets + process.fin_wait2), (1, 0), "{process:?}");
    let namespace = seen.namespace(&scene.net)?;
    assert_eq!((namespace.total, namespace.kernel_total), (0, 0));
    Ok(())
}

fn every_transition() -> Outcome {
    let watch = Watch::attach(&Settings { detail: Detail::States, ..rung::settings() })?;
    let scene = Scene::with(&watch)?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;
    client.shutdown_write(ours.socket)?;
    client.await_state(ours.socket, FinWait2)?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    scene.ended(&ours, outbound(TIME_WAIT, client.who(), Some(client.who())))?;
    scene.watch().end(theirs.connection(&scene.net))?;

    use TcpState::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent};
    let steps_of = |conn: &Conn| -> Result<Vec<(TcpState, TcpState)>, Failed> {
        let end = end_in(&scene.events(), conn.connection(&scene.net))?;
        let steps = scene.events().into_iter().filter_map(|event| match event {
            Event::Transition(step) if step.socket == end.socket => Some((step.old, step.new)),
            _ => None,
        });
        Ok(steps.collect())
    };
    let expected =
        [(Close, SynSent), (SynSent, Established), (Established, FinWait1), (FinWait1, FinWait2), (FinWait2, Close)];
    assert_steps(&scene, &steps_of(&ours)?, &expected)?;
    let expected =
        [(Listen, SynRecv), (SynRecv, Established), (Established, CloseWait), (CloseWait, LastAck), (LastAck, Close)];
    assert_steps(&scene, &steps_of(&theirs)?, &expected)
}

/// One that did not come is an event waited for in vain: the last one has come. Anything else that differs is wrong.
fn assert_steps(scene: &Scene<'_>, steps: &[(TcpState, TcpState)], expected: &[(TcpState, TcpState)]) -> Outcome {
    if let Some(missing) = expected.iter().find(|step| !steps.contains(step)) {
        return Err(format!("{NO_EVENT}: {missing:?}\n{}", scene.story()).into());
    }
    assert_eq!(steps, expected, "{}", scene.story());
    Ok(())
}

/// The events, both ends of the wanted connection, and who keeps them open.
type Filtered = (Vec<Event>, [(Actor, Conn); 2], Actor);

/// Two clients do the same; only what the filter lets pass is reported. The unwanted one goes first: when the wanted
/// one's end is there, the other's would be.
fn filtered(scene: &Scene<'_>, filter: impl FnOnce(&Actor, &Conn) -> Filter) -> Result<Filtered, Failed> {
    let (mut unwanted, mut wanted) = (scene.actor("ff-unwanted")?, scene.actor("ff-wanted")?);
    let mut server = scene.actor("ff-server")?;
    let listener = server.listen_anywhere(Family::V4)?;
    let (one, one_there) = establish(&mut unwanted, &mut server, listener)?;
    let (other, other_there) = establish(&mut wanted, &mut server, listener)?;

    // Connected before: a filter by process must know the closer as well as the opener.
    let watch = Watch::attach(&Settings { filter: filter(&wanted, &other), ..rung::settings() })?;
    for (client, ours, theirs) in [(&mut unwanted, &one, &one_there), (&mut wanted, &other, &other_there)] {
        client.close_in_fin_wait2(ours.socket)?;
        // The shared programs say when it is over.
        scene.watch().end(ours.connection(&scene.net))?;
        server.close(theirs.socket)?;
        scene.watch().end(theirs.connection(&scene.net))?;
    }
    watch.end(other.connection(&scene.net))?;
    watch.read();
    Ok((watch.events(scene.net.id()), [(unwanted, one), (wanted, other)], server))
}

fn ended_connections(events: &[Event]) -> Vec<Connection> {
    let ends = events.iter().filter_map(|event| match event {
        Event::Transition(end) => end.ending().map(|_| end.connection),
        _ => None,
    });
    ends.collect()
}

/// A listener with room for one connection drops the SYN of the second. The kernel sends it again after a second, and by
/// then there is room.
fn connect_is_timed() -> Outcome {
    const AT_ONCE: u64 = 20;
    // The bucket that a second is in begins at 0.5 s; of other tests there may be more than these.
    const SLOW_US: u64 = 1 << 20;
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let play = |client: &mut Actor, server: &mut Actor| {
        let open = server.listen_anywhere(Family::V4)?;
        for _ in 0..AT_ONCE {
            establish(client, server, open)?;
        }
        let socket = server.socket(Family::V4, &[])?;
        server.bind(socket, (std::net::Ipv4Addr::LOCALHOST, 0).into())?;
        let full = server.listen_on(socket, 0)?;
        client.connect(full.address)?;
        let late = client.connect_in_background(full.address)?;
        server.accept(full)?;
        client.await_state(late.socket, TcpState::Established)?;
        server.accept(full)?;
        Ok(())
    };
    let ((), seen) = watch::session(&Wishes::of(&scene.net).every_end(), || play(&mut client, &mut server))?;
    let latency = seen.report.connect_latency.ok_or("nothing was timed")?;
    let is_slow = |below: Option<u64>| below.is_none_or(|below| below >= SLOW_US);
    let slow: u64 = latency.buckets.iter().filter(|it| is_slow(it.below_us)).map(|it| it.count).sum();
    if slow == 0 || latency.connections < AT_ONCE + 2 {
        return Err(format!("{NO_EVENT} of the {} connections: {latency:#?}", AT_ONCE + 2).into());
    }
    assert!(latency.connections - slow > AT_ONCE, "{latency:#?}");

    let ((), seen) = watch::session(&Wishes::of(&scene.net), || play(&mut client, &mut server))?;
    assert_eq!(seen.report.connect_latency, None, "a report without a page times nothing");
    Ok(())
}

fn filter_by_process() -> Outcome {
    let scene = Scene::new()?;
    let (events, [_, (_, conn)], _) = filtered(&scene, |wanted, _| Filter { tgid: wanted.pid(), ..Filter::default() })?;
    assert_eq!(ended_connections(&events), [conn.connection(&scene.net)], "{events:?}");
    Ok(())
}

fn filter_by_name() -> Outcome {
    let scene = Scene::new()?;
    let mut comm = [0; 16];
    comm[..9].copy_from_slice(b"ff-wanted");
    let (events, [_, (_, conn)], _) = filtered(&scene, |_, _| Filter { comm, has_comm: 1, ..Filter::default() })?;
    assert_eq!(ended_connections(&events), [conn.connection(&scene.net)], "{events:?}");
    Ok(())
}

/// Local or remote: both ends of the connection have the port.
fn filter_by_port() -> Outcome {
    let scene = Scene::new()?;
    let (events, [_, (_, conn)], _) =
        filtered(&scene, |_, conn| Filter { port: conn.local.port().into(), ..Filter::default() })?;
    let ours = conn.connection(&scene.net);
    let theirs = Connection { local: ours.remote, remote: ours.local, ..ours };
    assert_eq!(ended_connections(&events), [ours, theirs], "{events:?}");
    Ok(())
}

fn filter_by_namespace() -> Outcome {
    let (scene, other) = (Scene::new()?, Scene::new()?);
    let filter = Filter { netns: scene.net.id().0, ..Filter::default() };
    let watch = Watch::attach(&Settings { filter, ..rung::settings() })?;
    // The other namespace first: when the wanted events are there, its would be.
    let mut actors = Vec::new();
    for scene in [&other, &scene] {
        let mut actor = scene.actor("ff-actor")?;
        let listener = actor.listen_anywhere(Family::V4)?;
        let socket = actor.socket(Family::V4, &[])?;
        assert_eq!(errno_of(actor.bind(socket, listener.address))?, libc::EADDRINUSE);
        let ours = actor.connect(listener.address)?;
        actor.close_in_fin_wait2(ours.socket)?;
        scene.watch().end(ours.connection(&scene.net))?;
        actors.push(actor);
    }
    let wanted = watch.wait(scene.net.id(), "what the filter lets pass", |events| {
        let is_refusal = |event: &Event| matches!(event, Event::Refused(_));
        (ended_connections(events).len() == 1 && events.iter().any(is_refusal)).then(|| events.to_vec())
    })?;
    assert!(!wanted.is_empty());
    assert!(watch.events(other.net.id()).is_empty(), "{}", watch.story(other.net.id()));
    Ok(())
}

/// A ring of one page that nobody reads. What does not fit is counted, record by record, and what is left of the story
/// is true: each timewait socket of the dump has its right owner or none, and the count is the kernel's.
fn ring_too_small() -> Outcome {
    const CONNECTIONS: usize = 100;
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    let mut server = scene.actor("ff-server")?;
    let mut clients = [scene.actor("ff-alpha")?, scene.actor("ff-beta")?];
    let listener = server.listen_anywhere(Family::V4)?;

    let filter = Filter { netns: scene.net.id().0, ..Filter::default() };
    let watch = Watch::attach_unread(&Settings { filter, ring_bytes: 4_096, ..rung::settings() })?;
    let started = watch::now();
    let mut truth: HashMap<Connection, ProcessKey> = HashMap::new();
    for _ in 0..CONNECTIONS / 2 {
        for client in &mut clients {
            let (ours, theirs) = establish(client, &mut server, listener)?;
            client.close(ours.socket)?;
            server.receive_end(theirs.socket)?;
            server.close(theirs.socket)?;
            truth.insert(ours.connection(&scene.net), client.who().key);
        }
    }
    assert_eq!(truth.len(), CONNECTIONS);
    scene.watch().wait(scene.net.id(), "all ends", |events| {
        (ended_connections(events).len() == 2 * CONNECTIONS).then_some(())
    })?;
    watch.read();

    let events = watch.events(scene.net.id());
    let losses = watch.losses()?;
    let received = ended_connections(&events).len();
    assert!(received > 0 && received < 2 * CONNECTIONS, "{received} ends in a page");
    assert_eq!(received as u64 + losses.lost.transitions, 2 * CONNECTIONS as u64, "{losses:?}");

    let (attributions, kernel) = watch::attribute(&scene.net, started, &events, true)?;
    assert_eq!((attributions.len(), kernel), (CONNECTIONS, Some(CONNECTIONS as u64)));
    let mut owned = 0;
    for (connection, attribution) in &attributions {
        match attribution {
            Attribution::Process(owner, _) => {
                assert_eq!(truth.get(connection), Some(owner), "{connection:?}");
                owned += 1;
            }
            Attribution::Unknown(reason) => assert_eq!(*reason, Reason::EventLost, "{connection:?}"),
        }
    }
    assert!(owned > 0 && owned < CONNECTIONS, "{owned} of {CONNECTIONS} have an owner");
    Ok(())
}

/// Room for one socket: the others are not followed, that is counted, and nobody is named who was not seen.
fn socket_table_too_small() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let filter = Filter { netns: scene.net.id().0, ..Filter::default() };
    let watch = Watch::attach(&Settings { filter, max_sockets: 1, ..rung::settings() })?;
    let mut pairs = Vec::new();
    for _ in 0..10 {
        pairs.push(establish(&mut client, &mut server, listener)?);
    }
    for (ours, theirs) in &pairs {
        client.close(ours.socket)?;
        server.receive_end(theirs.socket)?;
        server.close(theirs.socket)?;
    }
    let mut unknown = 0;
    for (ours, theirs) in &pairs {
        let end = watch.end(ours.connection(&scene.net))?;
        assert!(matches!(end.ending(), Some(Ending::TimeWait { .. })), "{}", watch.story(scene.net.id()));
        for task in [&end.opener, &end.closer].into_iter().flatten() {
            assert_eq!(task.key, client.who().key, "{}", watch.story(scene.net.id()));
        }
        unknown += u64::from(end.opener.is_none());
        let end = watch.end(theirs.connection(&scene.net))?;
        for task in [&end.opener, &end.closer].into_iter().flatten() {
            assert_eq!(task.key, server.who().key, "{}", watch.story(scene.net.id()));
        }
    }
    assert!(unknown > 0 && watch.losses()?.sockets_not_followed >= unknown, "{:?}", watch.losses());
    Ok(())
}
