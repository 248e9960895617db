//! `firstfin serve` as it is run: what it exposes is what happened, it gives up its privileges, and it does what signals
//! ask for.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use firstfin::{kernel::privileges::needed_later, report::Report};
use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    actor::Family,
    case::{Outcome, trials},
    netns::Net,
    rung,
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("daemon":
        metrics_name_the_process_and_its_number,
        privileges_are_given_up,
        a_bad_configuration_is_refused_and_the_old_one_stays,
        it_stops_within_five_seconds,
    )
}

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that runs, and goes with this value.
struct Daemon {
    child: Child,
    at: SocketAddr,
    folder: PathBuf,
    manager: UnixDatagram,
    said: Arc<Mutex<String>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Daemon {
    /// Starts one with this file, and a service manager that listens.
    fn start(test: &str, config: &str) -> Result<Self, Failed> {
        let folder = std::env::temp_dir().join(format!("firstfin-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("firstfin.toml"), config)?;
        let socket = folder.join("notify");
        let manager = UnixDatagram::bind(&socket)?;
        manager.set_read_timeout(Some(PATIENCE))?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_firstfin"))
            .args(rung::arguments())
            .args(["serve", "--listen", "127.0.0.1:0", "--interval", "1s", "--config"])
            .arg(folder.join("firstfin.toml"))
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "60000000")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let mut daemon = Self { child, at: ([127, 0, 0, 1], 0).into(), folder, manager, said: Arc::clone(&said) };
        let mut at = None;
        for line in lines.by_ref() {
            let line = line?;
            daemon.note(&line);
            at = line.split_once("listens at http://").and_then(|(_, at)| at.parse().ok());
            if at.is_some() {
                break;
            }
        }
        daemon.at = at.ok_or_else(|| format!("it does not say where it listens:\n{}", daemon.said()))?;
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(&line);
                said.push('\n');
            }
        });
        daemon.wait("READY=1")?;
        Ok(daemon)
    }

    fn note(&self, line: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(line);
        said.push('\n');
    }

    /// What it wrote to its log so far.
    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the service manager is told this.
    fn wait(&self, wanted: &str) -> Result<String, Failed> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 4_096];
        while Instant::now() < deadline {
            let length =
                self.manager.recv(&mut buffer).map_err(|error| format!("{wanted}: {error}\n{}", self.said()))?;
            let told = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if told.contains(wanted) {
                return Ok(told);
            }
        }
        Err(format!("the service manager was not told {wanted}\n{}", self.said()).into())
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Status and body of an answer.
    fn get(&self, path: &str) -> Result<(u16, String), Failed> {
        let mut connection = TcpStream::connect(self.at)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: firstfin\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        Ok((status.ok_or("no status")?, body.to_owned()))
    }

    /// Series that are exposed: name and labels -> value.
    fn metrics(&self) -> Result<BTreeMap<String, f64>, Failed> {
        let (status, body) = self.get("/metrics")?;
        assert_eq!(status, 200, "{body}");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.filter_map(|line| line.rsplit_once(' '));
        Ok(pairs.filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?))).collect())
    }

    /// Waits until this is so of what is exposed.
    fn await_metrics(&self, is_so: impl Fn(&BTreeMap<String, f64>) -> bool) -> Result<BTreeMap<String, f64>, Failed> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics()?;
            if is_so(&metrics) {
                return Ok(metrics);
            }
            if Instant::now() > deadline {
                return Err(format!("{metrics:#?}\n{}", self.said()).into());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Its exit status, and how long it took to end.
    fn end(&mut self) -> Result<(Option<i32>, Duration), Failed> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status.code(), begun.elapsed()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("it does not end\n{}", self.said()).into())
    }
}

/// Series of a metric of the process of this name.
fn of(metrics: &BTreeMap<String, f64>, name: &str, process: &str) -> Vec<f64> {
    let begin = format!("{name}{{process=\"{process}\",");
    metrics.iter().filter(|(series, _)| series.starts_with(&begin)).map(|(_, value)| *value).collect()
}

fn metrics_name_the_process_and_its_number() -> Outcome {
    const CONNECTIONS: usize = 23;
    let net = Net::new()?;
    // By default a port in TIME_WAIT on loopback can be had again after a second, and does not count as used.
    net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    let daemon = Daemon::start("metrics", "")?;
    let (mut client, mut server) = (net.actor("ff-spender")?, net.actor("ff-frugal")?);
    let listener = server.listen_anywhere(Family::V4)?;
    server.begin_serve(listener, CONNECTIONS, false)?;
    client.begin_churn(listener.address, CONNECTIONS, true, None)?;
    client.ports()?;
    server.finish()?;
    net.await_time_wait(CONNECTIONS as u64)?;

    let all = [CONNECTIONS as f64];
    let metrics = daemon.await_metrics(|metrics| of(metrics, "firstfin_time_wait_sockets", "ff-spender") == all)?;
    assert_eq!(of(&metrics, "firstfin_time_wait_entered_total", "ff-spender"), all);
    assert_eq!(of(&metrics, "firstfin_closed_first_total", "ff-spender"), all);
    assert_eq!(of(&metrics, "firstfin_ephemeral_ports_used", "ff-spender"), all);
    assert!(of(&metrics, "firstfin_time_wait_sockets", "ff-frugal").iter().all(|&count| count == 0.0), "{metrics:#?}");

    // What was counted in one window is counted once.
    let rounds = metrics["firstfin_rounds_total"];
    let later = daemon.await_metrics(|metrics| metrics["firstfin_rounds_total"] >= rounds + 3.0)?;
    assert_eq!(of(&later, "firstfin_time_wait_entered_total", "ff-spender"), all);
    assert_eq!(of(&later, "firstfin_time_wait_sockets", "ff-spender"), all);
    assert!(later["process_resident_memory_bytes"] > 1e6 && later["firstfin_round_duration_seconds"] > 0.0);

    assert_eq!(daemon.get("/healthz")?, (200, "ok\n".to_owned()));
    let (status, ready) = daemon.get("/readyz")?;
    assert!(status == 200 && ready.starts_with("ready: "), "{status} {ready}");
    let report: Report = serde_json::from_str(&daemon.get("/report")?.1)?;
    assert!(report.session.duration_s < 10.0, "not a window: {:?}", report.session);
    let spender = report.time_wait.by_process.iter().find(|of| of.process.comm.as_str() == "ff-spender");
    assert_eq!(spender.map(|of| (of.sockets, of.process.pid)), Some((CONNECTIONS as u64, client.pid())));
    assert!(daemon.get("/")?.1.contains("href=\"/metrics\""));
    assert_eq!(daemon.get("/no-such-page")?.0, 404);
    // The watchdog hears of rounds.
    daemon.wait("WATCHDOG=1")?;
    promtool(&daemon.get("/metrics")?.1)
}

/// The linter of Prometheus, where `FIRSTFIN_PROMTOOL` names it.
fn promtool(metrics: &str) -> Outcome {
    let Some(promtool) = std::env::var_os("FIRSTFIN_PROMTOOL") else { return Ok(()) };
    let mut check = Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).spawn()?;
    check.stdin.take().ok_or("no standard input")?.write_all(metrics.as_bytes())?;
    assert!(check.wait()?.success());
    Ok(())
}

/// A field of `status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn privileges_are_given_up() -> Outcome {
    let daemon = Daemon::start("privileges", "")?;
    daemon.await_metrics(|metrics| metrics["firstfin_rounds_total"] >= 1.0)?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mine = fs::read_to_string("/proc/self/status")?;
    let mine = u64::from_str_radix(field(&mine, "CapPrm").ok_or("no CapPrm")?, 16)?;
    let expected = format!("{:016x}", needed_later(&kernel).bits() & mine);
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.child.id()))? {
        // One of those that look at the host may end meanwhile.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        threads += 1;
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(field(&status, set), Some(expected.as_str()), "{set}\n{status}");
        }
        assert_eq!(
            field(&status, "CapBnd"),
            Some(format!("{:016x}", needed_later(&kernel).bits()).as_str()),
            "{status}"
        );
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(&status, set), Some("0000000000000000"), "{set}\n{status}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), Some("1"), "{status}");
    }
    assert!(threads >= 2, "the endpoint has a thread: {threads}");
    Ok(())
}

fn a_bad_configuration_is_refused_and_the_old_one_stays() -> Outcome {
    let daemon = Daemon::start("reload", "[metrics]\ntop = 3\n")?;
    let file = daemon.folder.join("firstfin.toml");
    fs::write(&file, "[metrics]\ntop = 5\ntops = 1\n")?;
    daemon.signal(Signal::HUP)?;
    assert!(daemon.wait("RELOADING=1")?.contains("MONOTONIC_USEC="));
    let place = format!("{}:3:1: metrics.tops: unknown field `tops`", file.display());
    let told = daemon.wait("READY=1")?;
    assert!(told.contains("the old one is in force") && told.contains(&place), "{told}");
    let reload = "firstfin_config_last_reload_successful";
    let metrics = daemon.await_metrics(|metrics| metrics[reload] == 0.0 && metrics["firstfin_rounds_total"] >= 1.0)?;
    let said = daemon.said();
    assert!(said.contains(&place) && said.contains("the old one stays in force"), "{said}");
    let taken_over = metrics["firstfin_config_last_reload_success_timestamp_seconds"];
    assert!(daemon.get("/readyz")?.1.contains("could not be used"));

    fs::write(&file, "[observe]\nring_size = \"1MiB\"\n[metrics]\ntop = 5\n")?;
    daemon.signal(Signal::HUP)?;
    let told = daemon.wait("READY=1")?;
    assert!(told.contains("but for what takes a restart: observe.ring_size"), "{told}");
    let metrics = daemon.await_metrics(|metrics| metrics[reload] == 1.0)?;
    assert!(metrics["firstfin_config_last_reload_success_timestamp_seconds"] > taken_over);
    Ok(())
}

fn it_stops_within_five_seconds() -> Outcome {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&format!("stop-{}", signal.as_raw()), "")?;
        // A connection on which nothing is asked, and one on which half a request is.
        let idle = TcpStream::connect(daemon.at)?;
        let mut half = TcpStream::connect(daemon.at)?;
        half.write_all(b"GET /metrics HT")?;
        daemon.signal(signal)?;
        let (code, took) = daemon.end()?;
        // It gives itself 4.8 s from when it notices, which an emulator takes a while for.
        assert!(code == Some(0) && took < Duration::from_secs(6), "{code:?} {took:?}\n{}", daemon.said());
        daemon.wait("STOPPING=1")?;
        assert!(!Path::new(&format!("/proc/{}", daemon.child.id())).exists() && idle.peer_addr().is_ok());
    }
    Ok(())
}
