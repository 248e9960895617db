//! The commands as they are typed: the demo finds every mistake of its workload, a signal ends a session with its report.

use std::{
    collections::HashSet,
    env, fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use firstfin::{
    kernel::plan::Observed,
    report::{Direction, HolderKind, Report, Severity},
};
use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    actor::REUSE,
    case::{Outcome, alone, lesser, trials},
    rung,
    scene::Scene,
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("commands":
        demo_finds_every_mistake,
        signal_ends_a_report_early,
        trace_prints_a_refused_bind,
        trace_says_whose_a_time_wait_was,
        replay_gives_the_report_of_the_session,
        a_killed_recording_can_be_replayed,
    )
}

fn firstfin(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstfin"));
    command.args(rung::arguments()).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn demo_finds_every_mistake() -> Outcome {
    // Not while others have thousands of ports refused: their holders are looked for as well.
    let _alone = alone();
    let output = firstfin(&["demo", "--format", "json", "--fail-on", "critical"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Report =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}; {}: {said}", output.status))?;
    assert_eq!(output.status.code(), Some(1), "{:#?}", report.findings);

    let time_wait =
        |comm: &str| report.time_wait.by_process.iter().find(|process| process.process.comm.as_str() == comm);
    let checkout = time_wait("checkout").ok_or("checkout is not there")?;
    let seen = (checkout.entered, checkout.closed_first, checkout.process.exited);
    assert_eq!(seen, (400, 400, true), "{checkout:#?}\n{:#?}\n{:#?}", report.session, report.resets);
    // On a busy host a late ACK gets a few of them killed by a RST (RFC 1337): what is there now may be less.
    let now = checkout.sockets + checkout.fin_wait2;
    assert!((300..=400).contains(&now), "{now}");
    assert_eq!((checkout.outbound, checkout.inbound), (now, 0));
    assert_eq!(checkout.destinations[0].remote, "127.0.0.1:5432");
    let legacy_api = time_wait("legacy-api").ok_or("legacy-api is not there")?;
    assert_eq!((legacy_api.entered, legacy_api.closed_first), (150, 150));
    let now = legacy_api.sockets + legacy_api.fin_wait2;
    assert!((100..=150).contains(&now), "{now}");
    assert_eq!(legacy_api.inbound, now);
    assert_eq!(legacy_api.destinations[0].direction, Some(Direction::Inbound));
    assert_eq!(legacy_api.destinations[0].local.as_deref(), Some("127.0.0.1:8081"));
    assert!(time_wait("storefront").is_none(), "the side that closes second has no TIME_WAIT");

    // In the demo's namespaces nothing else goes on, so the counts agree to the socket.
    let theirs: HashSet<_> = [checkout, legacy_api].iter().filter_map(|process| process.process.netns).collect();
    for place in report.time_wait.namespaces.iter().filter(|place| theirs.contains(&place.netns)) {
        assert_eq!(place.total, place.kernel_total);
    }

    let finding = |id: &str, comm: &str| {
        report.findings.iter().find(|finding| {
            finding.id == id && finding.process.as_ref().is_some_and(|process| process.comm.as_str() == comm)
        })
    };
    for (id, comm) in [
        ("EphemeralPortExhaustion", "crawler"),
        ("TimeWaitBuildup", "crawler"),
        ("BindConflict", "shop-web-new"),
        ("BindConflict", "billing-sync"),
    ] {
        let finding = finding(id, comm).ok_or(format!("no {id} of {comm}"))?;
        assert_eq!(finding.severity, Severity::Critical);
        assert!(!finding.evidence.is_empty() && !finding.remedy.is_empty());
    }
    let refused = |comm: &str| report.bind_failures.iter().find(|failure| failure.process.comm.as_str() == comm);
    let shop = refused("shop-web-new").ok_or("shop-web-new was not refused")?;
    assert_eq!((shop.local.as_deref(), shop.count, shop.error.as_str()), (Some("127.0.0.1:8080"), 5, "EADDRINUSE"));
    let holder = shop.holders.first().ok_or_else(|| format!("nobody holds the port: {shop:#?}"))?;
    assert_eq!(holder.kind, HolderKind::Listener);
    assert_eq!(holder.process.as_ref().map(|process| process.comm.as_str()), Some("shop-web"));
    let billing = refused("billing-sync").ok_or("billing-sync was not refused")?;
    assert_eq!((billing.local.as_deref(), billing.count), (Some("127.0.0.1:25000"), 3));
    let holder = billing.holders.first().ok_or_else(|| format!("nobody holds the port: {billing:#?}"))?;
    assert_eq!(holder.kind, HolderKind::TimeWait);
    assert_eq!(holder.process.as_ref().map(|process| process.pid), Some(billing.process.pid));
    let cut_off = report
        .resets
        .iter()
        .find(|reset| reset.process.as_ref().is_some_and(|process| process.comm.as_str() == "metrics-push"));
    assert_eq!(cut_off.map(|reset| (reset.kind, reset.count)), Some((firstfin::model::Reset::LingerZero, 20)));
    Ok(())
}

/// Ctrl-C, as the terminal sends it: the report comes, and says that it was cut short.
fn signal_ends_a_report_early() -> Outcome {
    // Refused at once, so that something tells when the session observes.
    let mut trace = firstfin(&["report", "--duration", "10min", "--interval", "200ms", "--format", "json"]).spawn()?;
    let mut lines = BufReader::new(trace.stdout.take().ok_or("no output")?).lines();
    let first: Report = serde_json::from_str(&lines.next().ok_or("no first report")??)?;
    assert!(!first.session.interrupted);
    kill_process(Pid::from_child(&trace), Signal::INT)?;
    let last = lines.last().ok_or("no last report")??;
    let last: Report = serde_json::from_str(&last)?;
    assert!(last.session.interrupted && last.session.duration_s < 300.0, "{:?}", last.session);
    assert_eq!(trace.wait()?.code(), Some(0));
    Ok(())
}

/// A path for a recording of this test; the file goes with it.
struct Recording(PathBuf);

impl Recording {
    fn new(of: &str) -> Self {
        Self(env::temp_dir().join(format!("firstfin-{of}-{}.ffrec", std::process::id())))
    }

    fn path(&self) -> Result<&str, Failed> {
        Ok(self.0.to_str().ok_or("the temporary folder's name is not UTF-8")?)
    }

    fn replay(&self) -> Result<Report, Failed> {
        let output = firstfin(&["replay", "--format", "json", self.path()?]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}; {}: {said}", output.status))?)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // It may not have come to that.
        let _ = fs::remove_file(&self.0);
    }
}

/// Every mistake of the demo, from its recording: the same report to the last number, and the same page to the last byte.
fn replay_gives_the_report_of_the_session() -> Outcome {
    let _alone = alone();
    let recording = Recording::new("demo");
    let (live_page, page) = (Recording::new("demo-live-page"), Recording::new("demo-page"));
    let output =
        firstfin(&["demo", "--format", "json", "--record", recording.path()?, "--html", live_page.path()?]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let live: Report =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}; {}: {said}", output.status))?;
    assert!(live.findings.iter().any(|finding| finding.id == "BindConflict"), "{:#?}", live.findings);
    assert_eq!(recording.replay()?, live);
    let output = firstfin(&["replay", recording.path()?, "--html", page.path()?]).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (live_page, page) = (fs::read_to_string(&live_page.0)?, fs::read_to_string(&page.0)?);
    assert!(live_page.contains("cannot connect to 127.0.0.1:6379"), "{live_page}");
    let timed = live.connect_latency.ok_or("connect() was not timed")?;
    assert!(timed.quantile_us(0.5).is_some_and(|half| half < 1_000_000), "{timed:#?}");
    assert!(live_page.contains("from connect() to the end of the handshake"), "{live_page}");
    assert!(live_page == page, "the page of the recording is another one");
    Ok(())
}

/// kill -9 amid a recording: who was refused what before that is in it.
fn a_killed_recording_can_be_replayed() -> Outcome {
    let recording = Recording::new("killed");
    let mut session = firstfin(&["record", "--output", recording.path()?]).spawn()?;
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = held.local_addr()?.to_string();
    let refused = |report: &Report| {
        let theirs = report
            .bind_failures
            .iter()
            .find(|failure| failure.local.as_deref() == Some(&address) && failure.process.pid == std::process::id());
        theirs.map(|failure| (failure.error.clone(), failure.count))
    };
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(TcpListener::bind(held.local_addr()?).is_err(), "the port was given twice");
        std::thread::sleep(Duration::from_millis(100));
        // What is written so far, amid a block as a rule; at first there is not even a header.
        if recording.replay().is_ok_and(|report| refused(&report).is_some()) {
            break;
        }
        assert!(
            Instant::now() < end,
            "nothing in the recording: {:?}",
            recording.replay().map(|report| report.session)
        );
    }
    session.kill()?;
    session.wait()?;
    let report = recording.replay()?;
    let (error, count) = refused(&report).ok_or("it was there before")?;
    assert!(error == "EADDRINUSE" && count > 0, "{count} times {error}");
    assert!(report.session.interrupted);
    let cut_off = report.session.blind_spots.iter().any(|spot| spot.starts_with("the recording is cut off"));
    assert!(cut_off, "{:?}", report.session.blind_spots);
    Ok(())
}

fn trace_prints_a_refused_bind() -> Outcome {
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = held.local_addr()?;
    // By port as well as by process: other tests listen in this process.
    let (pid, port) = (std::process::id().to_string(), address.port().to_string());
    let filter = ["--pid", &pid, "--port", &port];
    let mut trace =
        firstfin(&["trace", "--format", "json", "--count", "1", "--duration", "20s"]).args(filter).spawn()?;
    let (sender, stop) = std::sync::mpsc::channel::<()>();
    // Until it is seen: when the trace has attached is not announced. The listeners of std set SO_REUSEADDR.
    let trying = std::thread::spawn(move || {
        while stop.recv_timeout(Duration::from_millis(50)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            assert!(TcpListener::bind(address).is_err(), "the port was given twice");
        }
    });
    let mut line = String::new();
    BufReader::new(trace.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    drop(sender);
    trying.join().map_err(|_| "the port was given twice")?;
    let event: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!(event["schema"], "firstfin.event/1");
    assert_eq!(event["type"], "refused", "{line}");
    assert_eq!((&event["error"], &event["local"]), (&"EADDRINUSE".into(), &address.to_string().into()), "{line}");
    assert_eq!(event["process"]["pid"], std::process::id());
    assert_eq!(trace.wait()?.code(), Some(0));
    Ok(())
}

/// Its state is asked for that alone. The server's TIME_WAITs are taken over, one after the other, by SYNs from their ports.
fn trace_says_whose_a_time_wait_was() -> Outcome {
    let scene = Scene::new()?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen((Ipv4Addr::LOCALHOST, 8_080).into())?;
    let netns = scene.net.id().to_string();
    let mut trace = firstfin(&["trace", "--format", "json", "--netns", &netns, "--duration", "30s"]).spawn()?;
    let lines = BufReader::new(trace.stdout.take().ok_or("no output")?).lines();
    let is_upper = rung::is_upper(Observed::TimeWaitLeft)?;
    let reader = std::thread::spawn(move || {
        let mut unknown = 0;
        for line in lines {
            let event: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
            let has_closed = event["closed_first"] == true && event["local"] == "127.0.0.1:8080";
            let is_wanted = if is_upper { event["left"] == "new_syn" } else { has_closed };
            match (is_wanted, event["process"].is_null()) {
                (true, false) => return Some((event, unknown)),
                (true, true) => unknown += 1,
                (false, _) => {}
            }
        }
        None
    });
    for port in 42_000..43_000 {
        if reader.is_finished() {
            break;
        }
        let from = (Ipv4Addr::LOCALHOST, port).into();
        let (ours, theirs) = (client.connect_from(from, REUSE, listener.address)?, server.accept(listener)?);
        scene.leave_time_wait((&mut server, theirs), (&mut client, ours))?;
        let (ours, theirs) = (client.connect_from(from, REUSE, listener.address)?, server.accept(listener)?);
        client.close(ours.socket)?;
        server.close(theirs.socket)?;
        // When the trace has attached is not announced.
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&trace), Signal::INT)?;
    trace.wait()?;
    let (event, unknown) = reader.join().map_err(|_| "the reader panicked")?.ok_or("it is not told")?;
    let who = (event["process"]["pid"].as_u64(), event["process"]["comm"].as_str());
    assert_eq!(who, (Some(server.who().key.tgid.into()), Some("ff-server")), "{event}");
    assert_eq!((&event["local"], event.get("opener")), (&"127.0.0.1:8080".into(), None), "{event}");
    // One at most began before the trace.
    assert!(unknown <= 1, "{unknown} of nobody");
    if !is_upper {
        lesser("a trace does not see that a timewait socket leaves");
    }
    Ok(())
}
