//! Network namespaces that come and go, a hundred a second, each with a connection and its TIME_WAIT: the session that
//! watches has as many open files and threads afterwards as before, and hardly more memory.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};

use crate::{
    case::{Outcome, alone, trials},
    netns::Net,
    rung,
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("containers": namespaces_come_and_go)
}

const NAMESPACES: u32 = 1000;
const A_SECOND: u32 = 100;
/// The agent keeps what it has counted of each (some hundred bytes a namespace and destination), and the allocator
/// what it once had.
const MAY_GROW_KIB: u64 = 16 * 1024;

/// What a process has.
#[derive(Clone, Copy, Debug)]
struct Usage {
    files: usize,
    threads: usize,
    resident_kib: u64,
}

fn namespaces_come_and_go() -> Outcome {
    let _alone = alone();
    let mut agent = Agent::start()?;
    // What it needs for any census it has had by then.
    agent.report()?;
    churn(A_SECOND)?;
    agent.report()?;
    let before = agent.usage()?;
    let (took, seen) = {
        let started = Instant::now();
        let seen = churn(NAMESPACES)?;
        (started.elapsed(), seen)
    };
    // A census after the last one is gone, then a moment without one.
    agent.report()?;
    let report = agent.report()?;
    let after = agent.settled(before)?;
    let said = format!("{NAMESPACES} namespaces in {took:?}: {before:?}, then {after:?}");
    eprintln!("{said}");
    assert!(after.files <= before.files, "open files: {said}");
    assert!(after.threads <= before.threads, "threads: {said}");
    assert!(after.resident_kib <= before.resident_kib + MAY_GROW_KIB, "memory: {said}");
    // It did watch them: all connections that were left in TIME_WAIT were entered in its books.
    let own = std::process::id();
    let mine = report["time_wait"]["by_process"].as_array().into_iter().flatten();
    let entered: u64 =
        mine.filter(|process| process["process"]["pid"] == own).filter_map(|process| process["entered"].as_u64()).sum();
    assert!(entered >= u64::from(seen), "{entered} of {seen} were seen: {:#}", report["session"]);
    let there = report["time_wait"]["namespaces"].as_array().map_or(0, Vec::len);
    assert!(there < 200, "{there} namespaces in the last census");
    Ok(())
}

/// Makes that many, with one connection each that is left in TIME_WAIT; returns how many were.
fn churn(count: u32) -> Result<u32, Failed> {
    let begun = Instant::now();
    for number in 0..count {
        let due = begun + Duration::from_secs(1) * number / A_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let net = Net::passing()?;
        net.inside(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut ours = TcpStream::connect(listener.local_addr()?)?;
            let (mut theirs, _) = listener.accept()?;
            ours.shutdown(std::net::Shutdown::Write)?;
            theirs.read_to_end(&mut Vec::new())?;
            theirs.write_all(b"x")?;
            drop(theirs);
            ours.read_to_end(&mut Vec::new())?;
            Ok(())
        })?;
    }
    Ok(count)
}

/// `firstfin report` as a process of its own, with a report a second.
struct Agent {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Agent {
    fn start() -> Result<Self, Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstfin"));
        command.args(rung::arguments()).args(["report", "--duration", "10min", "--interval", "1s", "--format", "json"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        Ok(Self { process, lines })
    }

    /// The next report that is made from now on.
    fn report(&mut self) -> Result<serde_json::Value, Failed> {
        let since = jiff_now();
        loop {
            let line = self.lines.next().ok_or("it ended")??;
            let report: serde_json::Value = serde_json::from_str(&line)?;
            if is_after(&report, since) {
                return Ok(report);
            }
        }
    }

    fn usage(&self) -> Result<Usage, Failed> {
        let folder = format!("/proc/{}", self.process.id());
        let count = |name: &str| Ok::<_, Failed>(fs::read_dir(format!("{folder}/{name}"))?.count());
        let status = fs::read_to_string(format!("{folder}/status"))?;
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        Ok(Usage { files: count("fd")?, threads: count("task")?, resident_kib: resident.ok_or("no VmRSS")? })
    }

    /// What it has when it does nothing: a census has a thread and some descriptors while it lasts.
    fn settled(&self, before: Usage) -> Result<Usage, Failed> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let usage = self.usage()?;
            let is_settled = usage.files <= before.files && usage.threads <= before.threads;
            if is_settled || Instant::now() > deadline {
                return Ok(usage);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Seconds since 1970.
fn jiff_now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Whether the session had gone on until then when it made this report.
fn is_after(report: &serde_json::Value, since: f64) -> bool {
    let started: Option<jiff::Timestamp> = report["session"]["started_at"].as_str().and_then(|text| text.parse().ok());
    let duration = report["session"]["duration_s"].as_f64().unwrap_or_default();
    started.is_some_and(|started| started.duration_since(jiff::Timestamp::UNIX_EPOCH).as_secs_f64() + duration > since)
}
