//! Ephemeral ports: what the report counts is what connect() gets, who uses them up is named, and the forecast comes
//! true.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use firstfin::{
    model::{Call, ConnectFailure, Ending, Event, Name},
    report::{HolderKind, PortOutcome, PortUse, ProcessInfo, Report, Severity},
};
use jiff::Timestamp;
use libtest_mimic::{Failed, Trial};

use crate::{
    actor::{Actor, Family, Listener, SocketOption, establish},
    case::{Outcome, alone, trials},
    scene::{Scene, claims_time_wait, errno_of, finding},
    stories::why,
    watch::{self, NO_EVENT, Wishes},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("ports":
        churn_until_none_is_left,
        bound_sockets_take_them_all,
        what_failed_is_looked_at_when_it_fails,
        what_fails_soon_after_a_look_is_looked_at_later,
        usable_is_what_connect_gets,
        reusable_ones_are_not_used,
        none_to_bind,
        none_to_listen,
    )
}

const PLAIN: &[SocketOption] = &[];

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn range(scene: &Scene<'_>, first: u16, last: u16) -> Outcome {
    Ok(scene.net.sysctl("ipv4/ip_local_port_range", &format!("{first} {last}"))?)
}

/// What the report says of the ports towards a listener of the scene.
fn towards<'a>(report: &'a Report, scene: &Scene<'_>, remote: SocketAddr) -> Result<&'a PortUse, Failed> {
    let found = report.ports.towards(scene.net.id(), &remote.to_string());
    found.ok_or_else(|| format!("nothing of {remote} in {:#?}", report.ports).into())
}

fn is(process: Option<&ProcessInfo>, who: &Actor) -> bool {
    process.is_some_and(|process| process.pid == who.pid() && process.comm == who.who().comm)
}

fn assert_says(lines: &[String], what: &str) {
    assert!(lines.iter().any(|line| line.contains(what)), "{what:?} is not in {lines:#?}");
}

/// One connection that the client closes first.
fn leave(client: &mut Actor, server: &mut Actor, listener: Listener) -> std::io::Result<()> {
    let (ours, theirs) = establish(client, server, listener)?;
    client.close(ours.socket)?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)
}

/// One connection after the other, begun at equal distances, until none can be made; says how many there are after each.
/// Returns when that was.
fn churn(
    client: &mut Actor,
    server: &mut Actor,
    listener: Listener,
    (every, most): (Duration, u32),
    made: &mpsc::Sender<u32>,
) -> Result<Timestamp, Failed> {
    let begun = Instant::now();
    for number in 1..=most {
        thread::sleep((begun + every * number).saturating_duration_since(Instant::now()));
        match leave(client, server, listener) {
            Ok(()) => made.send(number).map_err(|error| error.to_string())?,
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => return Ok(Timestamp::now()),
            Err(error) => return Err(format!("connection {number}: {error}").into()),
        }
    }
    Err(format!("{most} connections were made, and still there are ports").into())
}

/// A client opens and closes connections to one server. Halfway through its ports the report says when they will be used
/// up; then they are.
fn churn_until_none_is_left() -> Outcome {
    const PORTS: u32 = 240;
    const EVERY: Duration = Duration::from_millis(50);
    let _alone = alone();
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-churn")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    // On loopback the kernel would take TIME_WAIT over after a second.
    scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    range(&scene, 40_000, 40_239)?;

    let (made, counted) = mpsc::channel();
    let ((halfway, failed_at), seen) = watch::session_asked(&Wishes::of(&scene.net), |session| {
        thread::scope(|scope| {
            let churning = scope.spawn(|| churn(&mut client, &mut server, listener, (EVERY, 2 * PORTS), &made));
            while counted.recv_timeout(Duration::from_secs(30)).map_err(|error| error.to_string())? < PORTS / 2 {}
            let halfway = session.report()?;
            let failed_at = churning.join().map_err(|_| "the churn panicked")??;
            // The refused connection is reported when it has been seen.
            scene.watch().wait(scene.net.id(), "the connect() without a port", |events| {
                events.iter().find_map(|event| match event {
                    Event::Transition(end)
                        if end.ending() == Some(Ending::ConnectFailed(ConnectFailure::NoFreePort)) =>
                    {
                        Some(())
                    }
                    _ => None,
                })
            })?;
            let answer = why(&scene.net, &["--connect", "127.0.0.1:8080"])?.connect.ok_or("no answer")?;
            let left: Vec<_> = answer.from.iter().map(|from| (from.left, from.live, from.time_wait)).collect();
            assert_eq!(left, [(0, 0, PORTS.into())], "{answer:?}");
            Ok((halfway, failed_at))
        })
    })?;

    let half = towards(&halfway, &scene, listener.address)?;
    assert_eq!((half.usable, half.reusable), (PORTS.into(), 0), "{half:?}");
    assert!((u64::from(PORTS) / 2..u64::from(PORTS)).contains(&half.used), "{half:?}");
    let user = half.processes.first().ok_or("nobody uses them")?;
    assert!(is(user.process.as_ref(), &client) && user.time_wait + 2 >= half.used, "{half:?}");
    let rate = half.rate.ok_or("no rate")?;
    assert!(rate.lowest_per_s < rate.time_wait_per_s && rate.time_wait_per_s < rate.highest_per_s, "{rate:?}");
    let forecast = half.forecast.ok_or("no forecast")?;
    assert_eq!(forecast.outcome, PortOutcome::RunsOut, "{half:?}");
    let made_at: Timestamp = halfway.session.started_at.parse()?;
    let elapsed = (failed_at - made_at).total(jiff::Unit::Second)? - halfway.session.duration_s;
    let seconds = forecast.seconds.ok_or("no seconds")?;
    assert!((seconds - elapsed).abs() <= 0.2 * elapsed, "forecast {seconds} s, it took {elapsed} s: {half:?}");
    let warning = finding(&halfway, "ExhaustionForecast", client.who())?;
    assert_eq!(warning.severity, Severity::Critical);
    assert_says(&warning.remedy, "net.ipv4.tcp_tw_reuse=1 (0 now)");

    // Whose a TIME_WAIT is nobody knows that has not seen it begin.
    scene.watch().wait_for(scene.net.id(), "the end of each connection", Duration::from_secs(10), |events| {
        (events.iter().filter(|event| claims_time_wait(event)).count() == PORTS as usize).then_some(())
    })?;
    let end = towards(&seen.report, &scene, listener.address)?;
    assert_eq!((end.used, end.usable, end.live), (PORTS.into(), PORTS.into(), 0), "{end:?}");
    assert_eq!(end.second_choice, u64::from(PORTS) / 2);
    let user = end.processes.first().ok_or("nobody uses them")?;
    assert!(is(user.process.as_ref(), &client) && user.time_wait == end.used, "{end:?}");
    let critical = finding(&seen.report, "EphemeralPortExhaustion", client.who())?;
    assert!(critical.summary.contains("no ephemeral port is free towards it"), "{critical:#?}");
    assert_says(&critical.evidence, "240 of 240, 0 of them by live connections, 240 in TIME_WAIT");
    assert_says(&critical.evidence, &format!("ff-churn[{}] holds 240 of them in TIME_WAIT", client.pid()));
    assert!(finding(&seen.report, "ExhaustionForecast", client.who()).is_err(), "it has happened");
    assert!(finding(&seen.report, "PoisonedPorts", client.who()).is_err());
    Ok(())
}

/// Ten sockets that are bound and nothing else, at an address nobody connects from, and no connection at all.
fn bound_sockets_take_them_all() -> Outcome {
    let scene = Scene::new()?;
    let (mut hoarder, mut client, mut server) =
        (scene.actor("ff-hoarder")?, scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    range(&scene, 41_000, 41_009)?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for port in 41_000..=41_009 {
            let socket = hoarder.socket(Family::V4, PLAIN)?;
            hoarder.bind(socket, (Ipv4Addr::new(127, 0, 0, 9), port).into())?;
        }
        for _ in 0..3 {
            assert_eq!(errno_of(client.connect(listener.address))?, libc::EADDRNOTAVAIL);
        }
        let answer = why(&scene.net, &["--connect", "127.0.0.1:8080"])?.connect.ok_or("no answer")?;
        assert_eq!((answer.usable, answer.bound, answer.from), (Some(0), 10, Vec::new()));
        Ok(())
    })?;

    let failure = seen.report.connect_failures.iter().find(|failure| is(failure.process.as_ref(), &client));
    let failure = failure.ok_or_else(|| format!("{NO_EVENT}: the connect() without a port"))?;
    assert_eq!((failure.cause, failure.count), (ConnectFailure::NoFreePort, 3), "{failure:?}");
    let place = seen.report.ports.namespace(scene.net.id()).ok_or("the namespace is not there")?;
    let exhausted = finding(&seen.report, "EphemeralPortExhaustion", client.who())?;
    assert_eq!((place.poisoned, place.usable, place.taken), (Some(10), Some(0), Some(10)), "{place:?}");
    let [holder] = &place.poisoned_by[..] else { return Err(format!("one holder expected: {place:?}").into()) };
    assert!(is(holder.process.as_ref(), &hoarder), "{holder:?}");
    assert_eq!((holder.kind, holder.ports, &*holder.example), (HolderKind::Bound, 10, "127.0.0.9:41000"));
    assert!(seen.report.ports.towards(scene.net.id(), "127.0.0.1:8080").is_none(), "no connection uses a port");

    let hoarding = format!("ff-hoarder[{}]", hoarder.pid());
    assert!(exhausted.summary.contains("bound sockets have taken the ephemeral ports out"), "{exhausted:#?}");
    assert!(exhausted.summary.contains(&hoarding), "{exhausted:#?}");
    assert_says(&exhausted.evidence, "0 of them usable: 0 reserved, 10 bound");
    assert_says(&exhausted.evidence, &format!("{hoarding} has bound 10 of them"));
    assert_says(&exhausted.remedy, "IP_BIND_ADDRESS_NO_PORT");
    let poisoned = finding(&seen.report, "PoisonedPorts", hoarder.who())?;
    assert_eq!(poisoned.severity, Severity::Critical);
    assert!(poisoned.summary.contains("10 of 10 ephemeral ports"), "{poisoned:#?}");
    Ok(())
}

/// Connections take all four ports, and a fifth gets none. After `meanwhile` nothing of them is left.
fn without_a_port(
    client: &mut Actor,
    server: &mut Actor,
    listener: Listener,
    meanwhile: impl FnOnce() -> Outcome,
) -> Outcome {
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(establish(client, server, listener)?);
    }
    assert_eq!(errno_of(client.connect(listener.address))?, libc::EADDRNOTAVAIL);
    meanwhile()?;
    for (ours, theirs) in made {
        // Cut off: nothing stays in TIME_WAIT.
        client.set(ours.socket, SocketOption::LingerZero)?;
        client.close(ours.socket)?;
        server.close(theirs.socket)?;
    }
    Ok(())
}

/// At the end of the session nothing is left of what took the ports.
fn what_failed_is_looked_at_when_it_fails() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    range(&scene, 45_000, 45_003)?;
    let ((), seen) = watch::session_asked(&Wishes::of(&scene.net), |session| {
        // It waits for the look that the failure has begun.
        without_a_port(&mut client, &mut server, listener, || session.report().map(drop))
    })?;
    let used = towards(&seen.report, &scene, listener.address)?;
    assert_eq!((used.used, used.usable, used.peak_used), (0, 4, 4), "{used:?}");
    let exhausted = finding(&seen.report, "EphemeralPortExhaustion", client.who())?;
    assert_says(&exhausted.evidence, "0 of 4, 0 of them by live connections, 0 in TIME_WAIT; 4 were when");
    Ok(())
}

/// One look was a moment ago. The next one is not at once, and has not to wait for the turn of the regular one, either.
fn what_fails_soon_after_a_look_is_looked_at_later() -> Outcome {
    // More than the five seconds between two such looks, and less than the ten of the regular ones.
    const UNTIL_LOOKED_AT: Duration = Duration::from_secs(8);
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let (first, second) = (server.listen(local(8_080))?, server.listen(local(8_081))?);
    range(&scene, 45_000, 45_003)?;
    let ((), seen) = watch::session_asked(&Wishes::of(&scene.net), |session| {
        without_a_port(&mut client, &mut server, first, || session.report().map(drop))?;
        without_a_port(&mut client, &mut server, second, || {
            thread::sleep(UNTIL_LOOKED_AT);
            Ok(())
        })
    })?;
    for listener in [first, second] {
        let used = towards(&seen.report, &scene, listener.address)?;
        assert_eq!((used.used, used.usable, used.peak_used), (0, 4, 4), "{used:?}");
    }
    Ok(())
}

/// Of ten ports two are reserved, one has a listener, one somebody else's connection (which takes none from this
/// destination); and one is bound at another address.
fn usable_is_what_connect_gets() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let (listener, other) = (server.listen(local(8_080))?, server.listen(local(8_081))?);
    scene.net.sysctl("ipv4/ip_local_reserved_ports", "42003-42004,50000")?;
    range(&scene, 42_000, 42_009)?;
    server.listen((Ipv4Addr::new(127, 0, 0, 2), 42_000).into())?;
    let bound = server.socket(Family::V4, PLAIN)?;
    server.bind(bound, (Ipv4Addr::new(127, 0, 0, 3), 42_001).into())?;
    establish(&mut client, &mut server, other)?;
    let expected = 6;
    let (made, seen) = watch::session(&Wishes::of(&scene.net), || {
        let mut made = 0;
        loop {
            match establish(&mut client, &mut server, listener) {
                Ok(_) => made += 1,
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => return Ok(made),
                Err(error) => return Err(error.into()),
            }
        }
    })?;
    assert_eq!(made, expected, "what connect() gets");
    let used = towards(&seen.report, &scene, listener.address)?;
    assert_eq!((used.used, used.usable, used.live, used.time_wait), (expected, expected, expected, 0), "{used:?}");
    let place = seen.report.ports.namespace(scene.net.id()).ok_or("the namespace is not there")?;
    assert_eq!((place.reserved, place.poisoned), (Some(2), Some(8 - expected)), "{place:?}");
    let user = used.processes.first().ok_or("nobody uses them")?;
    assert!(is(user.process.as_ref(), &client) && user.live == expected, "found by its open files: {used:?}");
    let elsewhere = towards(&seen.report, &scene, other.address)?;
    assert_eq!((elsewhere.used, elsewhere.live), (1, 1), "{elsewhere:?}");
    let exhausted = finding(&seen.report, "EphemeralPortExhaustion", client.who())?;
    assert_says(&exhausted.remedy, "fewer connections at once");
    Ok(())
}

/// tcp_tw_reuse=2 on loopback: TIME_WAIT older than a second takes no port.
fn reusable_ones_are_not_used() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    // On a slow machine the last ones would take the first ones over.
    scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    range(&scene, 43_000, 43_009)?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        for _ in 0..5 {
            leave(&mut client, &mut server, listener)?;
        }
        scene.net.sysctl("ipv4/tcp_tw_reuse", "2")?;
        // What the test is about.
        thread::sleep(Duration::from_millis(1_500));
        Ok(())
    })?;
    let used = towards(&seen.report, &scene, listener.address)?;
    assert_eq!((used.used, used.time_wait, used.reusable), (0, 5, 5), "{used:?}");
    let mut made = 0;
    while establish(&mut client, &mut server, listener).is_ok() {
        made += 1;
    }
    assert_eq!(made, used.usable, "connect() takes them over");
    Ok(())
}

/// A range of two ports, both in use towards somebody.
fn all_taken(scene: &Scene<'_>) -> Result<(Actor, Actor), Failed> {
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(8_080))?;
    range(scene, 44_000, 44_001)?;
    for _ in 0..2 {
        establish(&mut client, &mut server, listener)?;
    }
    Ok((client, server))
}

/// bind() to port 0 wants a port that nobody has.
fn none_to_bind() -> Outcome {
    let scene = Scene::new()?;
    let _both = all_taken(&scene)?;
    let mut binder = scene.actor("ff-binder")?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        let socket = binder.socket(Family::V4, PLAIN)?;
        assert_eq!(errno_of(binder.bind(socket, local(0)))?, libc::EADDRINUSE);
        Ok(())
    })?;
    let exhausted = finding(&seen.report, "EphemeralPortExhaustion", binder.who())?;
    assert!(exhausted.summary.contains("cannot bind 127.0.0.1:0"), "{exhausted:#?}");
    assert_says(&exhausted.evidence, "ports of it that some socket has at the end of the session: 2");
    assert_says(&exhausted.remedy, "IP_BIND_ADDRESS_NO_PORT");
    let failure = seen.report.bind_failures.iter().find(|failure| failure.process.pid == binder.pid());
    assert_eq!(failure.map(|failure| failure.call), Some(Call::Bind));
    Ok(())
}

/// listen() without bind() wants the same.
fn none_to_listen() -> Outcome {
    let scene = Scene::new()?;
    let _both = all_taken(&scene)?;
    let mut lazy = scene.actor("ff-lazy")?;
    let ((), seen) = watch::session(&Wishes::of(&scene.net), || {
        let socket = lazy.socket(Family::V4, PLAIN)?;
        assert_eq!(errno_of(lazy.listen_on(socket, 1))?, libc::EADDRINUSE);
        Ok(())
    })?;
    let exhausted = finding(&seen.report, "EphemeralPortExhaustion", lazy.who())?;
    assert_eq!(exhausted.process.as_ref().map(|process| &process.comm), Some(&Name::from("ff-lazy")));
    assert!(exhausted.summary.contains("cannot listen without bind()"), "{exhausted:#?}");
    assert_says(&exhausted.remedy, "bind() to a port outside the ephemeral range");
    Ok(())
}
