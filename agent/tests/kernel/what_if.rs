//! What would have happened, against what happens: a workload is recorded, played without a change and compared with the
//! recording and the kernel, played with a change, and run again with that change made.

use std::{
    env, fs,
    fs::File,
    io::BufReader,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use firstfin::what_if::{Answer, Changes, Figures, Pair, answer, workload};
use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    actor::{Actor, Listener, SocketOption},
    case::{Outcome, alone, trials},
    netns::Net,
    rung,
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("what_if":
        a_wider_port_range,
        the_client_closes_first,
        tw_reuse,
        another_local_address,
        the_command_says_the_same,
    )
}

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8_080);

/// `firstfin record`, and the file it writes, which goes with it.
struct Recorder {
    process: Child,
    path: PathBuf,
}

impl Recorder {
    /// Begins; returns when everything that happens from now on is recorded.
    fn begin(of: &str) -> Result<Self, Failed> {
        let path = env::temp_dir().join(format!("firstfin-what-if-{of}-{}.ffrec", std::process::id()));
        let process = Command::new(env!("CARGO_BIN_EXE_firstfin"))
            .args(rung::arguments())
            .args(["record", "--output"])
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let recorder = Self { process, path };
        // Its first look at the host is written down at once.
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&recorder.path).map_or(0, |file| file.len()) == 0 {
            if Instant::now() > deadline {
                return Err("the recording did not begin in time".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(recorder)
    }

    fn end(&mut self) -> Outcome {
        kill_process(Pid::from_child(&self.process), Signal::INT)?;
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("firstfin record: {status}").into()) }
    }

    /// What was recorded of a namespace: other tests run at the same time.
    fn workload(&self, net: &Net) -> Result<workload::Workload, Failed> {
        let mut load = workload::read(BufReader::new(File::open(&self.path)?))?;
        load.looks.retain(|look| look.netns == net.id());
        load.samples.retain(|sample| sample.netns == net.id());
        load.older.retain(|older| older.connection.netns == net.id());
        load.exchanges.retain(|exchange| {
            exchange.client.iter().chain(&exchange.server).any(|end| end.connection.netns == net.id())
        });
        Ok(load)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // As a rule it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.path);
    }
}

/// Who closes first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Client,
    Server,
}

/// A client that makes one connection after the other, and what the namespace is like.
#[derive(Clone, Copy)]
struct Plan {
    ports: (u16, u16),
    tw_reuse: u8,
    attempts: usize,
    pause: Duration,
    first: First,
    /// 127.0.0.1 and so many more, in turn
    addresses: u8,
}

const PLAN: Plan = Plan {
    ports: (40_000, 40_199),
    tw_reuse: 0,
    attempts: 300,
    pause: Duration::ZERO,
    first: First::Client,
    addresses: 1,
};

/// What came of it, by the client's and the kernel's own count.
struct Came {
    failures: u64,
    time_wait: u64,
    net: Net,
    /// A namespace without a process is not found when the recording looks for the last time
    _actors: (Actor, Actor),
}

impl Plan {
    /// Carries it out in a namespace of its own.
    fn run(&self) -> Result<Came, Failed> {
        let net = Net::new()?;
        net.sysctl("ipv4/tcp_tw_reuse", &self.tw_reuse.to_string())?;
        net.sysctl("ipv4/ip_local_port_range", &format!("{} {}", self.ports.0, self.ports.1))?;
        let (mut client, mut server) = (net.actor("ff-client")?, net.actor("ff-server")?);
        let listener = server.listen(SERVER.into())?;
        let mut failures = 0;
        let begun = Instant::now();
        for number in 0..self.attempts {
            let due = begun + self.pause * u32::try_from(number)?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.exchange(&mut client, &mut server, listener, number) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => failures += 1,
                Err(error) => return Err(format!("connection {number}: {error}").into()),
            }
        }
        Ok(Came { failures, time_wait: net.kernel_time_wait()?, net, _actors: (client, server) })
    }

    fn exchange(
        &self,
        client: &mut Actor,
        server: &mut Actor,
        listener: Listener,
        number: usize,
    ) -> std::io::Result<()> {
        let ours = if self.addresses > 1 {
            let last = u8::try_from(number % usize::from(self.addresses)).unwrap_or_default() + 1;
            let from: SocketAddr = (Ipv4Addr::new(127, 0, 0, last), 0).into();
            client.connect_from(from, &[SocketOption::BindAddressNoPort], listener.address)?
        } else {
            client.connect(listener.address)?
        };
        let theirs = server.accept(listener)?;
        let (one, first, other, second) = match self.first {
            First::Client => (client, ours, server, theirs),
            First::Server => (server, theirs, client, ours),
        };
        one.close(first.socket)?;
        other.receive_end(second.socket)?;
        other.close(second.socket)
    }
}

/// Within so many percent, and one.
fn assert_near(what: &str, predicted: u64, real: u64, percent: u64) {
    let off = predicted.abs_diff(real);
    assert!(off * 100 <= real * percent + 100, "{what}: {predicted} in the model, {real} in fact");
}

fn assert_pair(what: &str, pair: Pair) {
    assert!(
        pair.recorded.abs_diff(pair.modelled) * 100 <= pair.recorded * 2,
        "{what}: the model without a change is off by more than 2 %: {pair:?}"
    );
}

/// Records a plan; what it came to, and the answers for changes. The model without a change is compared with both.
fn record(of: &str, plan: Plan, changes: &[Changes]) -> Result<(Came, Vec<Answer>), Failed> {
    let mut recorder = Recorder::begin(of)?;
    let came = plan.run()?;
    recorder.end()?;
    let load = recorder.workload(&came.net)?;
    let answers: Vec<_> = changes.iter().map(|changes| answer(&load, changes, false)).collect();
    let first = answers.first().ok_or("nothing was asked")?;
    let check = first.check;
    assert!(check.looks > 0 && check.peak_time_wait.recorded > 0, "{check:?}");
    assert_pair("peak TIME_WAIT", check.peak_time_wait);
    assert_pair("ports in use", check.peak_used);
    assert_pair("connect() calls without a port", check.connect_failures);
    let kernel = Pair { recorded: came.time_wait, modelled: first.today.peak_time_wait };
    assert_pair("TIME_WAIT, by the kernel's count", kernel);
    assert_pair(
        "failures, as the client had them",
        Pair { recorded: came.failures, modelled: first.today.connect_failures },
    );
    assert_eq!(first.recording.connect_failures, came.failures);
    Ok((came, answers))
}

fn what_if(answer: &Answer) -> Result<&Figures, Failed> {
    answer.what_if.as_ref().ok_or_else(|| "no answer".into())
}

/// Makes the change, and compares.
fn assert_comes_true(answer: &Answer, changed: Plan) -> Outcome {
    let predicted = what_if(answer)?;
    let came = changed.run()?;
    assert_near("peak TIME_WAIT", predicted.peak_time_wait, came.time_wait, 10);
    assert_near("connect() calls without a port", predicted.connect_failures, came.failures, 10);
    Ok(())
}

/// 300 connections from 200 ports: a hundred find none. With 280 ports twenty would.
fn a_wider_port_range() -> Outcome {
    let _alone = alone();
    let ports = (40_000, 40_279);
    let wider = Changes { port_range: Some(ports), ..Changes::default() };
    let (came, answers) = record("range", PLAN, &[wider])?;
    assert_eq!((came.failures, came.time_wait), (100, 200));
    let [answer] = &answers[..] else { return Err("one answer".into()) };
    assert_eq!((what_if(answer)?.connect_failures, what_if(answer)?.peak_time_wait), (20, 280));
    let destination = answer.destinations.first().ok_or("no destination")?;
    let ports_of = |it: &firstfin::what_if::PortFigures| (it.peak_used, it.usable);
    assert_eq!(destination.remote, "127.0.0.1:8080");
    assert_eq!(
        (ports_of(&destination.today), destination.what_if.as_ref().map(ports_of)),
        ((200, 200), Some((280, 280)))
    );
    assert!(destination.today.exhaustion.is_past, "{destination:?}");
    assert_comes_true(answer, Plan { ports, ..PLAN })
}

/// A server that closes first keeps the TIME_WAITs, and the client's ports are free. Were it the client, it would run out.
fn the_client_closes_first() -> Outcome {
    let _alone = alone();
    let plan = Plan { attempts: 240, first: First::Server, ..PLAN };
    let changes = Changes { client_closes_first: true, ..Changes::default() };
    let (came, answers) = record("closer", plan, &[changes])?;
    assert_eq!(came.failures, 0);
    let [answer] = &answers[..] else { return Err("one answer".into()) };
    assert_eq!((what_if(answer)?.connect_failures, what_if(answer)?.peak_time_wait), (40, 200));
    assert_comes_true(answer, Plan { first: First::Client, ..plan })
}

/// 25 a second from 100 ports: they last four seconds. With tcp_tw_reuse the ports of the first half are enough.
fn tw_reuse() -> Outcome {
    let _alone = alone();
    let plan = Plan { ports: (40_000, 40_099), attempts: 200, pause: Duration::from_millis(40), ..PLAN };
    let changes = Changes { tw_reuse: Some(1), ..Changes::default() };
    let (came, answers) = record("reuse", plan, &[changes])?;
    assert_eq!((came.failures, came.time_wait), (100, 100));
    let [answer] = &answers[..] else { return Err("one answer".into()) };
    assert_eq!(what_if(answer)?.connect_failures, 0);
    assert!(what_if(answer)?.time_wait_taken_over > 100, "{answer:#?}");
    assert_comes_true(answer, Plan { tw_reuse: 1, ..plan })
}

/// The ports are counted for each address.
fn another_local_address() -> Outcome {
    let _alone = alone();
    let changes = Changes { local_addresses: Some(2), ..Changes::default() };
    let plan = Plan { attempts: 420, ..PLAN };
    let (_, answers) = record("addresses", plan, &[changes])?;
    let [answer] = &answers[..] else { return Err("one answer".into()) };
    assert_eq!((what_if(answer)?.connect_failures, what_if(answer)?.peak_time_wait), (20, 400));
    assert_comes_true(answer, Plan { addresses: 2, ..plan })
}

/// As it is typed, with every remedy: the workload's process is known by its name, and what is no process is refused.
fn the_command_says_the_same() -> Outcome {
    let _alone = alone();
    let mut recorder = Recorder::begin("command")?;
    let came = Plan { ports: (40_000, 40_049), attempts: 60, ..PLAN }.run()?;
    recorder.end()?;
    let said = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstfin"));
        command.arg("what-if").arg(&recorder.path).args(arguments).stdin(Stdio::null()).output()
    };
    let output = said(&["--all", "--format", "json", "--process", "ff-client"])?;
    let error = String::from_utf8_lossy(&output.stderr);
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|wrong| format!("{wrong}: {error}"))?;
    let destination = answer.destinations.iter().find(|it| it.netns == came.net.id()).ok_or("no destination")?;
    assert_eq!(
        (destination.today.connect_failures, destination.today.peak_used),
        (came.failures, 50),
        "{destination:?}"
    );
    assert_eq!((answer.remedies.len(), came.failures), (8, 10), "{answer:#?}");
    assert!(answer.remedies.iter().any(|remedy| remedy.failures_avoided >= 10), "{:#?}", answer.remedies);
    let nobody = said(&["--pool", "1", "--process", "ff-nobody"])?;
    let error = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(2), "{error}");
    assert!(error.contains("ff-nobody has no connection in the recording"), "{error}");
    Ok(())
}
