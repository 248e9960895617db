//! A port that cannot be had: who holds it, by which rule it is refused, and what helps.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
};

use firstfin::{
    report::{BindFailure, Finding, Holder, HolderKind, Report, Severity},
    rules::{Remedy, Rule},
    why::{AttemptOutcome, BindAnswer},
};
use libtest_mimic::{Failed, Trial};

use super::why_bind;
use crate::{
    actor::{Actor, Family, Fork, Listener, REUSE, SocketOption, establish},
    case::{Outcome, lesser, trials},
    readers::kernel_is_at_least,
    scene::{NOBODY, Scene, errno_of},
    watch::{self, Wishes},
};

pub(super) fn tests() -> Vec<Trial> {
    trials!("stories":
        client_with_a_fixed_port_comes_back,
        server_is_restarted,
        service_port_was_given_to_a_client,
        workers_inherit_the_listener,
        wildcard_next_to_another_users_address,
        two_share_a_port_until_one_listens,
        two_share_a_port_by_setting_it_late,
        programs_share_a_port,
    )
}

const PLAIN: &[SocketOption] = &[];

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What the kernel would say to a plain bind(), and to one with SO_REUSEADDR, by `why`.
fn forecast(answer: &BindAnswer) -> Result<[AttemptOutcome; 2], Failed> {
    let own = answer.namespaces.first().filter(|namespace| namespace.is_own).ok_or("not its own namespace")?;
    let plain = own.attempts.first().ok_or("no attempt")?;
    let reuse = own.attempts.iter().find(|it| it.options.reuse_address && !it.options.reuse_port).unwrap_or(plain);
    Ok([plain.outcome, reuse.outcome])
}

fn bind(actor: &mut Actor, options: &[SocketOption], address: SocketAddr) -> std::io::Result<Listener> {
    let socket = actor.socket(Family::of(address), options)?;
    actor.bind(socket, address)?;
    actor.listen_on(socket, 8)
}

/// The one refusal of a process, and its finding.
fn refusal<'a>(report: &'a Report, who: &Fork) -> Result<(&'a BindFailure, &'a Finding), Failed> {
    let failure = report.bind_failures.iter().find(|failure| failure.process.pid == who.key.tgid);
    let failure = failure.ok_or_else(|| format!("no refusal of {who:?}: {:#?}", report.bind_failures))?;
    let is_its = |finding: &&Finding| {
        ["BindConflict", "PortStolen"].contains(&finding.id.as_str())
            && finding.process.as_ref().is_some_and(|process| process.pid == who.key.tgid)
    };
    let finding = report.findings.iter().find(is_its);
    Ok((failure, finding.ok_or_else(|| format!("no finding of {who:?}: {:#?}", report.findings))?))
}

/// The holder in the way, and the rule.
fn assert_held(failure: &BindFailure, kind: HolderKind, who: &Fork, rule: Rule) -> Result<Holder, Failed> {
    let holder = failure.holders.first().ok_or_else(|| format!("no holder: {failure:#?}"))?;
    let process = holder.process.as_ref().map(|process| (process.pid, process.comm.clone()));
    assert_eq!((holder.kind, process), (kind, Some((who.key.tgid, who.comm.clone()))), "{failure:#?}");
    assert_eq!(failure.refusal.as_ref().and_then(|refusal| refusal.rule), Some(rule), "{failure:#?}");
    Ok(holder.clone())
}

/// Twice: towards the same server, and towards another one. The tuple would differ, but bind() knows no destination.
fn client_with_a_fixed_port_comes_back() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-sync")?, scene.actor("ff-server")?);
    let listener = server.listen(local(9_000))?;
    let (before, seen) = watch::session(&Wishes::of(&scene.net), || {
        let ours = client.connect_from(local(5_555), PLAIN, listener.address)?;
        let theirs = server.accept(listener)?;
        scene.leave_time_wait((&mut client, ours), (&mut server, theirs))?;
        let refused = client.connect_from(local(5_555), PLAIN, local(9_001));
        assert_eq!(errno_of(refused)?, libc::EADDRINUSE);
        let answer = why_bind(&scene.net, "127.0.0.1:5555")?;
        Ok(answer)
    })?;
    let (failure, finding) = refusal(&seen.report, client.who())?;
    let holder = assert_held(failure, HolderKind::TimeWait, client.who(), Rule::RequestLacksReuseAddress)?;
    assert!(holder.seconds_left.is_some_and(|left| (50..=60).contains(&left)), "{holder:?}");
    assert_eq!(holder.remote.as_deref(), Some("127.0.0.1:9000"));
    assert_eq!(holder.options.reuse_address, Some(false), "{holder:?}");
    assert!(failure.remedies.contains(&Remedy::TimeWaitEnds), "{failure:#?}");
    assert!(finding.summary.contains("left it in TIME_WAIT"), "{finding:#?}");

    // Without the events nobody knows who left it, nor whether it had SO_REUSEADDR.
    assert_eq!(forecast(&before)?, [AttemptOutcome::Refused, AttemptOutcome::Undecided], "{before:#?}");
    let attempt = before.namespaces[0].attempts.first().ok_or("no attempt")?;
    assert!(attempt.free_in_s.is_some_and(|left| (50..=60).contains(&left)), "{attempt:?}");
    Ok(())
}

/// A server with a live client is killed and started again: without SO_REUSEADDR on either, with it on the new one only,
/// with it on both.
fn server_is_restarted() -> Outcome {
    let scene = Scene::new()?;
    let cases = [
        (8_001, PLAIN, PLAIN, Some(Rule::RequestLacksReuseAddress)),
        (8_002, PLAIN, REUSE, Some(Rule::TimeWaitLacksReuseAddress)),
        (8_003, REUSE, REUSE, None),
    ];
    let mut client = scene.actor("ff-client")?;
    let mut servers = Vec::new();
    for (port, old, new, rule) in cases {
        servers.push((scene.actor("ff-old")?, scene.actor("ff-new")?, local(port), old, new, rule));
    }
    let (played, seen) = watch::session(&Wishes::of(&scene.net), || {
        let mut played = Vec::new();
        for (mut old, mut new, address, before, after, rule) in servers {
            let listener = bind(&mut old, before, address)?;
            let (ours, theirs) = establish(&mut client, &mut old, listener)?;
            let dead = old.kill()?;
            client.receive_end(ours.socket)?;
            client.close(ours.socket)?;
            scene.watch().end(ours.connection(&scene.net))?;
            scene.watch().end(theirs.connection(&scene.net))?;
            let during = why_bind(&scene.net, &address.to_string())?;
            let restarted = bind(&mut new, after, address);
            match rule {
                Some(_) => assert_eq!(errno_of(restarted)?, libc::EADDRINUSE, "{address}"),
                None => drop(restarted?),
            }
            played.push((dead, new, rule, during));
        }
        Ok(played)
    })?;
    for (dead, new, rule, during) in &played {
        // Whether the dead one had set SO_REUSEADDR only the session knows.
        assert_eq!(forecast(during)?, [AttemptOutcome::Refused, AttemptOutcome::Undecided], "{during:#?}");
        let holder = &during.namespaces[0].holders[0];
        assert!(holder.kind == HolderKind::TimeWait && holder.seconds_left.is_some(), "{during:#?}");
        let Some(rule) = rule else {
            assert!(refusal(&seen.report, new.who()).is_err(), "{:#?}", seen.report.bind_failures);
            continue;
        };
        let (failure, finding) = refusal(&seen.report, new.who())?;
        let holder = assert_held(failure, HolderKind::TimeWait, dead, *rule)?;
        assert!(holder.process.as_ref().is_some_and(|process| process.exited), "{holder:#?}");
        assert_eq!(holder.options.reuse_address, Some(false), "{holder:#?}");
        // Either way both ends of the restart need it; on the new one alone it has no effect.
        assert!(failure.remedies.contains(&Remedy::ReuseAddressOnBoth), "{failure:#?}");
        assert!(finding.remedy.iter().any(|step| step.contains("from the next restart on")), "{finding:#?}");
        let says_so = finding.cause.contains("setting it on the new socket alone is not enough");
        assert_eq!(says_so, *rule == Rule::TimeWaitLacksReuseAddress, "{finding:#?}");
    }
    Ok(())
}

/// The port of a service that was not running was the kernel's choice for somebody's connect().
fn service_port_was_given_to_a_client() -> Outcome {
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/ip_local_port_range", "36000 36000")?;
    let (mut thief, mut server) = (scene.actor("ff-thief")?, scene.actor("ff-server")?);
    let mut service = scene.actor("ff-service")?;
    let listener = server.listen(local(9_000))?;
    let (answer, seen) = watch::session(&Wishes::of(&scene.net), || {
        let (ours, _) = establish(&mut thief, &mut server, listener)?;
        assert_eq!(ours.local, local(36_000));
        assert_eq!(errno_of(bind(&mut service, REUSE, local(36_000)))?, libc::EADDRINUSE);
        why_bind(&scene.net, "36000")
    })?;
    let (failure, finding) = refusal(&seen.report, service.who())?;
    let holder = assert_held(failure, HolderKind::Connection, thief.who(), Rule::HolderLacksReuseAddress)?;
    assert_eq!(holder.remote.as_deref(), Some("127.0.0.1:9000"));
    assert_eq!(finding.id, "PortStolen");
    assert!(finding.remedy[0].contains("ip_local_reserved_ports=36000"), "{finding:#?}");

    let own = &answer.namespaces[0];
    assert_eq!(own.is_ephemeral, Some(true));
    let held_by = own.holders.first().and_then(|holder| holder.process.as_ref()).map(|process| process.pid);
    assert_eq!(held_by, Some(thief.pid()), "{own:#?}");
    assert_eq!(forecast(&answer)?, [AttemptOutcome::Refused, AttemptOutcome::Refused]);
    Ok(())
}

/// The master is gone, its worker has the listener still: `lsof` of the master's pid would be empty.
fn workers_inherit_the_listener() -> Outcome {
    let scene = Scene::new()?;
    let (mut master, mut new) = (scene.actor("ff-master")?, scene.actor("ff-new")?);
    bind(&mut master, REUSE, local(8_080))?;
    let worker = master.fork(b"ff-worker")?;
    let (answer, seen) = watch::session(&Wishes::of(&scene.net), || {
        assert_eq!(errno_of(bind(&mut new, REUSE, local(8_080)))?, libc::EADDRINUSE);
        why_bind(&scene.net, "8080")
    })?;
    let (failure, finding) = refusal(&seen.report, new.who())?;
    let holder = assert_held(failure, HolderKind::Listener, master.who(), Rule::HolderListens)?;
    let others: Vec<_> = holder.also_open_in.iter().map(|process| (process.pid, process.comm.clone())).collect();
    assert_eq!(others, [(worker.key.tgid, worker.comm.clone())], "{holder:#?}");
    assert!(finding.evidence.iter().any(|line| line.contains("also open in ff-worker")), "{finding:#?}");
    let others = &answer.namespaces[0].holders[0].also_open_in;
    assert_eq!(others.iter().map(|process| process.pid).collect::<Vec<_>>(), [worker.key.tgid]);
    Ok(())
}

/// Both have SO_REUSEPORT; it does not do for another user.
fn wildcard_next_to_another_users_address() -> Outcome {
    const SHARED: &[SocketOption] = &[SocketOption::ReusePort(true)];
    let scene = Scene::new()?;
    let (mut wide, mut other) = (scene.actor("ff-wide")?, scene.actor("ff-other")?);
    other.become_user(NOBODY)?;
    bind(&mut wide, SHARED, (Ipv4Addr::UNSPECIFIED, 8_080).into())?;
    let (answer, seen) = watch::session(&Wishes::of(&scene.net), || {
        assert_eq!(errno_of(bind(&mut other, SHARED, local(8_080)))?, libc::EADDRINUSE);
        why_bind(&scene.net, "127.0.0.1:8080")
    })?;
    let (failure, finding) = refusal(&seen.report, other.who())?;
    let holder = assert_held(failure, HolderKind::Listener, wide.who(), Rule::ReusePortOfAnotherUser)?;
    assert_eq!((holder.local.as_str(), holder.options.reuse_port), ("0.0.0.0:8080", Some(true)));
    assert_eq!(failure.asker.uid, Some(NOBODY), "{failure:#?}");
    assert!(finding.cause.contains("different users"), "{finding:#?}");
    // As root, who asks here, it would be granted.
    let shared = answer.namespaces[0].attempts.iter().find(|it| it.options.reuse_port && !it.options.reuse_address);
    assert_eq!(shared.map(|it| it.outcome), Some(AttemptOutcome::Granted), "{answer:#?}");
    Ok(())
}

/// SO_REUSEADDR lets both be bound, also when it is set after bind() to any port; only one can listen.
fn two_share_a_port_until_one_listens() -> Outcome {
    let scene = Scene::new()?;
    let (mut first, mut second) = (scene.actor("ff-first")?, scene.actor("ff-second")?);
    let (address, seen) = watch::session(&Wishes::of(&scene.net), || {
        let one = first.socket(Family::V4, REUSE)?;
        first.bind(one, local(8_080))?;
        let two = second.socket(Family::V4, REUSE)?;
        second.bind(two, local(8_080))?;
        let listener = first.listen_on(one, 8)?;
        assert_eq!(errno_of(second.listen_on(two, 8))?, libc::EADDRINUSE);
        let held_by: HashSet<_> = why_bind(&scene.net, "8080")?.namespaces[0].holders.iter().map(holder_pid).collect();
        assert_eq!(held_by, [Some(first.pid()), Some(second.pid())].into());
        Ok(listener.address)
    })?;
    let (failure, _) = refusal(&seen.report, second.who())?;
    assert_eq!(failure.local, Some(address.to_string()));
    assert_held(failure, HolderKind::Listener, first.who(), Rule::AnotherListens)?;
    Ok(())
}

/// The kernel's choice of a port is no obstacle: SO_REUSEADDR counts from when it is set.
fn two_share_a_port_by_setting_it_late() -> Outcome {
    let scene = Scene::new()?;
    let (mut first, mut second) = (scene.actor("ff-first")?, scene.actor("ff-second")?);
    let ((answer, address), seen) = watch::session(&Wishes::of(&scene.net), || {
        let one = first.socket(Family::V4, PLAIN)?;
        first.bind(one, local(0))?;
        let address = first.local_address(one)?;
        let two = second.socket(Family::V4, REUSE)?;
        first.set(one, SocketOption::ReuseAddress(true))?;
        second.bind(two, address)?;
        Ok((why_bind(&scene.net, &address.to_string())?, address))
    })?;
    assert!(refusal(&seen.report, second.who()).is_err(), "{:#?}", seen.report.bind_failures);
    let held_by: HashSet<_> = answer.namespaces[0].holders.iter().map(holder_pid).collect();
    assert_eq!(held_by, [Some(first.pid()), Some(second.pid())].into(), "{answer:#?}");
    if !kernel_is_at_least(6, 8)? {
        lesser(
            "sockets that are only bound are not listed before Linux 6.8: that two share a port is not seen by itself",
        );
        return Ok(());
    }
    let shared = shared(&seen.report, "SharedPort", address)?;
    assert_eq!(shared.severity, Severity::Info);
    assert!(shared.summary.contains("ff-first") && shared.summary.contains("ff-second"), "{shared:#?}");
    Ok(())
}

/// Which of them a connection reaches is not what either expects.
fn programs_share_a_port() -> Outcome {
    const SHARED: &[SocketOption] = &[SocketOption::ReusePort(true)];
    let scene = Scene::new()?;
    let mut actors = [scene.actor("ff-one")?, scene.actor("ff-two")?, scene.actor("ff-wide")?];
    let (answer, seen) = watch::session(&Wishes::of(&scene.net), || {
        let addresses = [local(8_080), local(8_080), (Ipv4Addr::UNSPECIFIED, 8_080).into()];
        for (actor, address) in actors.iter_mut().zip(addresses) {
            bind(actor, SHARED, address)?;
        }
        why_bind(&scene.net, "8080")
    })?;
    let found = shared(&seen.report, "SharedPort", local(8_080))?;
    assert_eq!(found.severity, Severity::Warning);
    assert!(found.summary.contains("ff-one") && found.summary.contains("ff-two"), "{found:#?}");
    let found = shared(&seen.report, "WildcardShadowed", local(8_080))?;
    assert!(found.summary.contains(&format!("not ff-wide[{}]", actors[2].pid())), "{found:#?}");
    assert!(found.summary.contains("reach ff-one") || found.summary.contains("reach ff-two"), "{found:#?}");
    let held_by: HashSet<_> = answer.namespaces[0].holders.iter().map(holder_pid).collect();
    assert_eq!(held_by, actors.iter().map(|actor| Some(actor.pid())).collect(), "{answer:#?}");
    Ok(())
}

fn holder_pid(holder: &Holder) -> Option<u32> {
    holder.process.as_ref().map(|process| process.pid)
}

/// The finding of this kind about an address.
fn shared<'a>(report: &'a Report, id: &str, address: SocketAddr) -> Result<&'a Finding, Failed> {
    let mut findings = report.findings.iter();
    let found = findings.find(|finding| finding.id == id && finding.summary.contains(&address.to_string()));
    found.ok_or_else(|| format!("no {id} at {address}: {:#?}\n{:#?}", report.findings, report.shared_ports).into())
}
