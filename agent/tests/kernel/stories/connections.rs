//! Connections: who closes first, who cuts off, who never closes, and a port that is bound and still cannot be used.

use std::net::{Ipv4Addr, SocketAddr};

use firstfin::{
    kernel::plan::Observed,
    model::{ConnectFailure, Leaving, Reset},
    report::Severity,
};
use libtest_mimic::Trial;

use super::why;
use crate::{
    actor::{Family, SocketOption, establish},
    case::{Outcome, lesser, trials},
    rung,
    scene::{Scene, errno_of, finding},
    watch::{self, Wishes},
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
        no_port_is_left_towards_one_server,
    )
}

const REUSE: &[SocketOption] = &[SocketOption::ReuseAddress(true)];
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
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..2 {
            let (ours, theirs) = establish(&mut client, &mut server, listener)?;
            scene.leave_time_wait((&mut client, ours), (&mut server, theirs))?;
        }
        Ok(())
    })?;
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
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        let ours = client.connect_from(local(42_000), REUSE, listener.address)?;
        let theirs = server.accept(listener)?;
        scene.leave_time_wait((&mut server, theirs), (&mut client, ours))?;
        client.connect_from(local(42_000), REUSE, listener.address)?;
        server.accept(listener)?;
        Ok(())
    })?;
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
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        let ours = client.connect_from(local(42_000), REUSE, listener.address)?;
        let theirs = server.accept(listener)?;
        scene.leave_time_wait((&mut client, ours), (&mut server, theirs))?;
        let again = client.connect_from(local(42_000), REUSE, listener.address);
        assert_eq!(errno_of(again)?, libc::EADDRNOTAVAIL);
        Ok(())
    })?;
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
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..MANY {
            let (ours, theirs) = establish(&mut client, &mut server, listener)?;
            client.set(ours.socket, SocketOption::LingerZero)?;
            client.close(ours.socket)?;
            scene.watch().end(ours.connection(&scene.net))?;
            server.close(theirs.socket)?;
        }
        Ok(())
    })?;
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
            // On loopback it has arrived when send() returns.
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
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        let (ours, theirs) = establish(&mut client, &mut server, listener)?;
        client.shutdown_write(ours.socket)?;
        server.receive_end(theirs.socket)?;
        server.send(theirs.socket, 1_000)?;
        client.receive(ours.socket, 1_000)?;
        server.close(theirs.socket)?;
        client.receive_end(ours.socket)?;
        client.close(ours.socket)?;
        scene.watch().end(theirs.connection(&scene.net))?;
        Ok(())
    })?;
    let process = seen.process(client.who())?;
    assert_eq!((process.sockets, process.fin_wait2, process.closed_first), (1, 0, 1), "{process:#?}");
    let about_it = seen.report.findings.iter().find(|finding| finding.process.is_some());
    assert_eq!(about_it, None, "{about_it:#?}");
    Ok(())
}

/// The other side has forgotten its sockets.
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
        Ok(())
    })?;
    let found = finding(&seen.report, "FinWait2Leak", client.who())?;
    assert!(found.summary.contains("12 connections are in FIN_WAIT2 now"), "{found:#?}");
    assert!(found.summary.contains("127.0.0.1:8080"), "{found:#?}");
    Ok(())
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
