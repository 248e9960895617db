//! Connections: who closes first, who cuts off, who never closes, and a port that is bound and still cannot be used.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use firstfin::{
    kernel::plan::Observed,
    model::{ConnectFailure, Event, Leaving, Reset, Transition},
    report::{Finding, HolderKind, Severity},
    why::PortsLeft,
};
use libtest_mimic::{Failed, Trial};

use super::{why, why_bind};
use crate::{
    actor::{Family, REUSE, SocketOption, establish},
    case::{Outcome, lesser, trials},
    leaves::time_wait_with_a_late_fin,
    rung,
    scene::{Scene, errno_of, finding},
    watch::{self, Wishes},
    wire::Way,
};

pub(super) fn tests() -> Vec<Trial> {
    trials!("stories":
        client_closes_first_twice,
        client_comes_back_to_a_port_in_time_wait,
        bound_port_whose_connection_exists,
        client_cuts_its_connections_off,
        server_closes_with_data_unread,
        half_closed_for_a_while,
        peer_never_closes,
        proxy_uses_a_port_again,
        reset_ends_a_time_wait,
        no_port_is_left_towards_one_server,
    )
}

/// As many as make a finding.
const MANY: usize = 12;

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Its TIME_WAITs are its own, and the server is clean.
fn client_closes_first_twice() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    let (from, seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..2 {
            let (ours, theirs) = establish(&mut client, &mut server, listener)?;
            scene.leave_time_wait((&mut client, ours), (&mut server, theirs))?;
        }
        ports_left(&scene, listener.address)
    })?;
    assert_eq!((from.live, from.time_wait), (0, 2), "{from:?}");
    let process = seen.process(client.who())?;
    assert_eq!((process.sockets, process.closed_first, process.outbound), (2, 2, 2), "{process:#?}");
    assert_eq!((process.destinations[0].remote.as_str(), process.destinations[0].sockets), ("127.0.0.1:8080", 2));
    assert!(seen.process(server.who()).is_err(), "{:#?}", seen.report.time_wait.by_process);
    Ok(())
}

/// The server closed first; the client's SYN from the same port takes its TIME_WAIT over.
fn client_comes_back_to_a_port_in_time_wait() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    let (during, seen) = watch::session(&Wishes::of(&scene.net), || {
        let ours = client.connect_from(local(42_000), REUSE, listener.address)?;
        let theirs = server.accept(listener)?;
        scene.leave_time_wait((&mut server, theirs), (&mut client, ours))?;
        let during = held_by(&scene, listener.address)?;
        client.connect_from(local(42_000), REUSE, listener.address)?;
        server.accept(listener)?;
        Ok(during)
    })?;
    let at_the_port = [(HolderKind::Listener, None), (HolderKind::TimeWait, Some("127.0.0.1:42000".to_owned()))];
    assert_eq!(during, at_the_port);
    let process = seen.process(server.who())?;
    assert_eq!((process.entered, process.sockets), (1, 0), "{process:#?}");
    if rung::is_upper(Observed::TimeWaitLeft)? {
        assert_eq!(process.left, [(Leaving::NewSyn, 1)].into(), "{process:#?}");
    } else {
        lesser("that a timewait socket is gone shows at the next dump, why it went does not");
    }
    Ok(())
}

/// SO_REUSEADDR makes bind() succeed; without timestamps connect() cannot take its own TIME_WAIT over. It gets the errno
/// of port exhaustion, and is none.
fn bound_port_whose_connection_exists() -> Outcome {
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_timestamps", "0")?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    let (answer, seen) = watch::session(&Wishes::of(&scene.net), || {
        let ours = client.connect_from(local(42_000), REUSE, listener.address)?;
        let theirs = server.accept(listener)?;
        scene.leave_time_wait((&mut client, ours), (&mut server, theirs))?;
        let again = client.connect_from(local(42_000), REUSE, listener.address);
        assert_eq!(errno_of(again)?, libc::EADDRNOTAVAIL);
        why(&scene.net, &["--connect", "127.0.0.1:8080"])
    })?;
    let usable = answer.connect.and_then(|connect| connect.usable);
    assert!(usable.is_some_and(|usable| usable > 20_000), "it is not for want of ports");
    let found = finding(&seen.report, "ConnectTupleInUse", client.who())?;
    assert!(found.summary.contains("127.0.0.1:8080"), "{found:#?}");
    assert!(seen.report.findings.iter().all(|it| it.id != "EphemeralPortExhaustion"), "{:#?}", seen.report.findings);
    let [failure] = seen.report.connect_failures.as_slice() else {
        panic!("one failure expected: {:#?}", seen.report.connect_failures)
    };
    assert_eq!((failure.cause, failure.count), (ConnectFailure::TupleInUse, 1));
    Ok(())
}

/// No TIME_WAIT is left, and that is no good sign.
fn client_cuts_its_connections_off() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-hasty")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    let (after, seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..MANY {
            let (ours, theirs) = establish(&mut client, &mut server, listener)?;
            client.set(ours.socket, SocketOption::LingerZero)?;
            client.close(ours.socket)?;
            scene.watch().end(ours.connection(&scene.net))?;
            server.close(theirs.socket)?;
        }
        held_by(&scene, listener.address)
    })?;
    assert_eq!(after, [(HolderKind::Listener, None)]);
    let found = finding(&seen.report, "HardClose", client.who())?;
    assert_eq!(found.severity, Severity::Warning);
    assert!(found.summary.contains("SO_LINGER 0, 12 times, towards 127.0.0.1:8080"), "{found:#?}");
    assert!(found.avoid.iter().any(|line| line.contains("TIME_WAIT")), "{found:#?}");
    assert_eq!(seen.namespace(&scene.net)?.total, 0);
    Ok(())
}

/// The client gets ECONNRESET in place of an answer.
fn server_closes_with_data_unread() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-rude")?);
    let listener = server.listen(local(8_080))?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..MANY {
            let (ours, theirs) = establish(&mut client, &mut server, listener)?;
            client.send(ours.socket, 100)?;
            // When the first byte has arrived all have.
            server.receive(theirs.socket, 1)?;
            server.close(theirs.socket)?;
            scene.watch().end(theirs.connection(&scene.net))?;
            client.close(ours.socket)?;
        }
        Ok(())
    })?;
    let found = finding(&seen.report, "HardClose", server.who())?;
    assert!(found.summary.contains("unread data, 12 times"), "{found:#?}");
    let reset = seen.report.resets.iter().find(|reset| reset.kind == Reset::UnreadData).ok_or("no such reset")?;
    assert_eq!((reset.local.as_deref(), reset.count), (Some("127.0.0.1:8080"), 12), "{reset:#?}");
    Ok(())
}

/// A client that says it is done and reads on: in FIN_WAIT2 with its socket open, which is nobody's mistake.
fn half_closed_for_a_while() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    let (from, seen) = watch::session(&Wishes::of(&scene.net), || {
        let (ours, theirs) = establish(&mut client, &mut server, listener)?;
        client.shutdown_write(ours.socket)?;
        server.receive_end(theirs.socket)?;
        let from = ports_left(&scene, listener.address)?;
        server.send(theirs.socket, 1_000)?;
        client.receive(ours.socket, 1_000)?;
        server.close(theirs.socket)?;
        client.receive_end(ours.socket)?;
        client.close(ours.socket)?;
        scene.watch().end(theirs.connection(&scene.net))?;
        Ok(from)
    })?;
    assert_eq!((from.live, from.time_wait), (1, 0), "in FIN_WAIT2 and alive: {from:?}");
    let process = seen.process(client.who())?;
    assert_eq!((process.sockets, process.fin_wait2, process.closed_first), (1, 0, 1), "{process:#?}");
    // The report is of the whole host, and other tests make mistakes on purpose.
    let is_about = |finding: &&Finding| {
        let pid = finding.process.as_ref().map(|process| process.pid);
        [&client, &server].iter().any(|actor| Some(actor.pid()) == pid)
    };
    let about_it = seen.report.findings.iter().find(is_about);
    assert_eq!(about_it, None, "{about_it:#?}");
    Ok(())
}

/// The other side has forgotten its sockets. Either side is told what it sees of it.
fn peer_never_closes() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-leaky")?);
    let listener = server.listen(local(8_080))?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..MANY {
            let socket = client.socket(Family::V4, &[])?;
            let ours = client.connect_on(socket, listener.address)?;
            server.accept(listener)?;
            client.close_in_fin_wait2(ours.socket)?;
            scene.watch().end(ours.connection(&scene.net))?;
        }
        // Until then a process may just be slow.
        std::thread::sleep(Duration::from_millis(10_500));
        Ok(())
    })?;
    let found = finding(&seen.report, "FinWait2Leak", client.who())?;
    assert!(found.summary.contains("12 connections are in FIN_WAIT2 now"), "{found:#?}");
    assert!(found.summary.contains("127.0.0.1:8080"), "{found:#?}");

    let found = finding(&seen.report, "CloseWaitLeak", server.who())?;
    assert!(found.summary.contains("does not close 12 connections"), "{found:#?}");
    let forgotten = seen.report.close_wait.iter().find(|it| it.netns == scene.net.id()).ok_or("none in CLOSE_WAIT")?;
    assert_eq!(
        (forgotten.remote.as_str(), forgotten.local.as_deref(), forgotten.sockets),
        ("127.0.0.1", Some("127.0.0.1:8080"), 12),
        "{forgotten:#?}"
    );
    assert!((10.0..60.0).contains(&forgotten.longest_s), "{forgotten:#?}");
    Ok(())
}

/// The upstream closes first, so the TIME_WAIT is there and the proxy's source port is free. Used again at once, without
/// timestamps and after more data than sequence numbers move on in the time, its SYN is not one the upstream can accept.
fn proxy_uses_a_port_again() -> Outcome {
    // The sequence numbers of one tuple's connections begin 15.6 million a second apart (`secure_tcp_seq()`).
    const BYTES: usize = 192 << 20;
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_timestamps", "0")?;
    // But for the SYN, nothing is to end a TIME_WAIT: an ACK that another CPU sent late would, by way of a RST.
    let rst_ends_time_wait = |does| scene.net.sysctl("ipv4/tcp_rfc1337", if does { "0" } else { "1" });
    rst_ends_time_wait(false)?;
    let (mut proxy, mut upstream) = (scene.actor("ff-proxy")?, scene.actor("ff-upstream")?);
    let listener = upstream.listen(local(8_080))?;
    let (held, seen) = watch::session(&Wishes::of(&scene.net), || {
        let ours = proxy.connect_from(local(42_000), REUSE, listener.address)?;
        let theirs = upstream.accept(listener)?;
        proxy.begin_send(ours.socket, BYTES)?;
        upstream.receive(theirs.socket, BYTES)?;
        proxy.finish()?;
        scene.leave_time_wait((&mut upstream, theirs), (&mut proxy, ours))?;
        rst_ends_time_wait(true)?;
        let again = proxy.connect_from(local(42_000), REUSE, listener.address)?;
        rst_ends_time_wait(false)?;
        let theirs = upstream.accept(listener)?;
        scene.leave_time_wait((&mut upstream, theirs), (&mut proxy, again))?;
        // Which has waited for the end of the first one: it had the same four numbers.
        scene.watch().wait(scene.net.id(), "the end of both connections", |events| {
            let is_its = |end: &Transition| end.connection == again.connection(&scene.net) && end.ending().is_some();
            let ends = events.iter().filter(|event| matches!(event, Event::Transition(end) if is_its(end)));
            (ends.count() == 2).then_some(())
        })?;
        held_by(&scene, listener.address)
    })?;
    let found = finding(&seen.report, "ResetByPortReuse", proxy.who())?;
    assert!(found.summary.contains("connects to 127.0.0.1:8080"), "{found:#?}");
    assert!(found.summary.contains("1 time"), "{found:#?}");
    let upstream_is = format!("ff-upstream[{}]", upstream.pid());
    assert!(found.evidence.iter().any(|line| line.contains(&format!("{upstream_is} has 1 socket"))), "{found:#?}");
    assert!(found.remedy.iter().any(|step| step.contains("net.ipv4.tcp_timestamps=1 here (0 now)")), "{found:#?}");
    if rung::is_upper(Observed::TimeWaitLeft)? {
        let closes_first = format!("{upstream_is}, which closes first, got 1 of them in TIME_WAIT");
        assert!(found.evidence.iter().any(|line| line.contains(&closes_first)), "{found:#?}");
        assert_eq!(seen.process(upstream.who())?.left, [(Leaving::Reset, 1)].into());
        assert!(finding(&seen.report, "TimeWaitAssassination", upstream.who()).is_err(), "it is this, and not that");
    } else {
        lesser("what a SYN does to a TIME_WAIT is not seen where it is, only where the SYN came from");
    }
    let at_the_port = [(HolderKind::Listener, None), (HolderKind::TimeWait, Some("127.0.0.1:42000".to_owned()))];
    assert_eq!(held, at_the_port);
    Ok(())
}

/// RFC 1337, over a wire that delivers the other side's FIN once more after it has forgotten the connection.
fn reset_ends_a_time_wait() -> Outcome {
    let (scene, right) = (Scene::new()?, Scene::new()?);
    scene.net.sysctl("ipv4/tcp_rfc1337", "0")?;
    let ((client, from), seen) = watch::session(&Wishes::of(&scene.net), || {
        let (client, late_fin, wire, ours) = time_wait_with_a_late_fin(&scene, &right)?;
        let from = ports_left(&scene, ours.remote)?;
        wire.deliver(Way::RightToLeft, &late_fin)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while scene.net.kernel_time_wait()? > 0 {
            assert!(Instant::now() < deadline, "it stays");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((client, from))
    })?;
    assert_eq!((from.live, from.time_wait), (0, 1), "{from:?}");
    let process = seen.process(client.who())?;
    assert_eq!((process.entered, process.sockets), (1, 0), "{process:#?}");
    if rung::is_upper(Observed::TimeWaitLeft)? {
        let found = finding(&seen.report, "TimeWaitAssassination", client.who())?;
        assert!(found.summary.contains("was ended by a RST before the 60 s were over"), "{found:#?}");
        assert_eq!(process.left, [(Leaving::Reset, 1)].into(), "{process:#?}");
    } else {
        lesser("that a timewait socket is gone shows at the next dump, why it went does not");
    }
    Ok(())
}

/// What `why` says while it goes on of the ports that are left towards a server, from the one address that connected.
fn ports_left(scene: &Scene<'_>, remote: SocketAddr) -> Result<PortsLeft, Failed> {
    let answer = why(&scene.net, &["--connect", &remote.to_string()])?.connect.ok_or("no answer about connect()")?;
    let [from] = answer.from.as_slice() else { return Err(format!("one address expected: {answer:?}").into()) };
    Ok(from.clone())
}

/// Who has a port by `why`, with the other end of each connection.
fn held_by(scene: &Scene<'_>, address: SocketAddr) -> Result<Vec<(HolderKind, Option<String>)>, Failed> {
    let answer = why_bind(&scene.net, &address.to_string())?;
    let own = answer.namespaces.into_iter().next().ok_or("not even its own namespace")?;
    Ok(own.holders.into_iter().map(|holder| (holder.kind, holder.remote)).collect())
}

/// While connect() fails, `why` says how many ports there are, who has them, and when the next one is free.
fn no_port_is_left_towards_one_server() -> Outcome {
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let (full, free) = (server.listen(local(8_080))?, server.listen(local(8_081))?);
    scene.net.sysctl("ipv4/ip_local_port_range", "43000 43003")?;
    for number in 0..4 {
        let (ours, theirs) = establish(&mut client, &mut server, full)?;
        if number > 0 {
            scene.leave_time_wait((&mut client, ours), (&mut server, theirs))?;
        }
    }
    assert_eq!(errno_of(client.connect(full.address))?, libc::EADDRNOTAVAIL);
    let answer = why(&scene.net, &["--connect", "127.0.0.1:8080"])?.connect.ok_or("no answer")?;
    assert_eq!((answer.usable, answer.bound), (Some(4), 0), "{answer:?}");
    let [from] = answer.from.as_slice() else { panic!("{answer:?}") };
    assert_eq!((from.local.as_str(), from.left, from.live, from.time_wait, from.reusable), ("127.0.0.1", 0, 1, 3, 0));
    assert!(from.next_in_s.is_some_and(|next| (50..=60).contains(&next)), "{from:?}");

    // The ports are counted for each destination.
    let answer = why(&scene.net, &["--connect", "127.0.0.1:8081"])?.connect.ok_or("no answer")?;
    assert_eq!((answer.usable, answer.from), (Some(4), Vec::new()));
    client.connect(free.address)?;
    Ok(())
}
