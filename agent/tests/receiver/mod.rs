//! A receiver of alerts on loopback that answers as a test wants, and reports as the daemon makes them.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use firstfin::{
    model::{Name, Netns},
    report::{Events, Finding, Host, Ports, ProcessInfo, Report, SCHEMA, Session, Severity, TimeWait},
};
use serde_json::Value;

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What was sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Path and query
    pub(crate) path: String,
    /// Head, as it came
    pub(crate) head: String,
    /// Body
    pub(crate) body: Value,
    /// When it was complete
    pub(crate) at: Instant,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// HTTP status
    pub(crate) status: u16,
    /// Further lines of the head, each with its end
    pub(crate) head: String,
    /// Body
    pub(crate) body: String,
    /// After this long
    pub(crate) delay: Duration,
}

/// An answer without anything but a status.
pub(crate) fn answer(status: u16) -> Answer {
    Answer { status, head: String::new(), body: String::new(), delay: Duration::ZERO }
}

type Answers = dyn Fn(usize, &Request) -> Answer + Send + Sync;

/// A receiver, until it is dropped.
pub(crate) struct Receiver {
    /// Where it listens
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// An address of loopback that nobody listens at.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Receiver {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::answering(free_address(), |_, _| answer(200))
    }

    /// One whose answers are chosen by the number of the request, from 0 on, and the request.
    pub(crate) fn answering(
        address: SocketAddr,
        answers: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (requests, ends) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(AtomicBool::new(false)));
        let answers: Arc<Answers> = Arc::new(answers);
        let thread = thread::spawn({
            let (requests, ends) = (Arc::clone(&requests), Arc::clone(&ends));
            move || {
                while !ends.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let (requests, answers) = (Arc::clone(&requests), Arc::clone(&answers));
                            thread::spawn(move || serve(&stream, &requests, &*answers));
                        }
                        Err(_) => thread::sleep(Duration::from_millis(5)),
                    }
                }
            }
        });
        Self { address, requests, ends, thread: Some(thread) }
    }

    /// All it got.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until it got so many, and says what they were.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Request> {
        wait_until(&format!("{count} requests"), || self.requests().len() >= count);
        self.requests()
    }

    /// `firing` or `resolved` of each webhook message it got, with how many alerts are so.
    pub(crate) fn told(&self) -> Vec<(String, usize)> {
        self.requests().iter().map(|request| status_of(&request.body)).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn status_of(body: &Value) -> (String, usize) {
    let status = body["status"].as_str().unwrap_or_default().to_owned();
    let alerts = body["alerts"]
        .as_array()
        .map_or(0, |alerts| alerts.iter().filter(|alert| alert["status"].as_str() == Some(status.as_str())).count());
    (status, alerts)
}

fn serve(stream: &TcpStream, requests: &Mutex<Vec<Request>>, answers: &Answers) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or_default() == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let request = Request { path, head, body, at: Instant::now() };
    let number = {
        let mut requests = requests.lock().unwrap();
        requests.push(request.clone());
        requests.len() - 1
    };
    let answer = answers(number, &request);
    thread::sleep(answer.delay);
    let text = format!(
        "HTTP/1.1 {} Whatever\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}",
        answer.status,
        answer.body.len(),
        answer.head,
        answer.body
    );
    let mut stream = stream;
    let _ = stream.write_all(text.as_bytes());
}

/// Waits for something, which has to come before the deadline.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A folder of one test alone, empty.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("alerts-{test}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Somebody is out of ports towards an address.
pub(crate) fn exhausted(process: &str, pid: u32, remote: &str) -> Finding {
    Finding {
        id: "EphemeralPortExhaustion".to_owned(),
        severity: Severity::Critical,
        summary: format!("{process}[{pid}] cannot connect to {remote}: no ephemeral port is free towards it"),
        process: Some(ProcessInfo {
            pid,
            comm: Name::from(process),
            exe: Some(Name::from(format!("/usr/bin/{process}").as_str())),
            unit: Some(Name::from(format!("{process}.service").as_str())),
            netns: Some(Netns(4_026_531_840)),
            ..ProcessInfo::default()
        }),
        netns: Some(Netns(4_026_531_840)),
        remote: Some(remote.to_owned()),
        cause: "connect() wants a port that no connection from the same address to the same address and port has"
            .to_owned(),
        evidence: vec![
            format!("connect() to {remote} failed 16 times with EADDRNOTAVAIL"),
            "in use towards it: 64 of 64, 0 of them by live connections, 64 in TIME_WAIT".to_owned(),
        ],
        remedy: vec!["keep connections open and use them again (keep-alive, a connection pool)".to_owned()],
        avoid: vec!["tcp_fin_timeout: it does not change TIME_WAIT".to_owned()],
        documentation: "docs/findings.md#ephemeralportexhaustion".to_owned(),
        ..Finding::default()
    }
}

/// A report with nothing but findings.
pub(crate) fn report(findings: &[Finding]) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        host: Host::default(),
        session: Session {
            started_at: "2026-05-09T07:29:33Z".to_owned(),
            duration_s: 10.0,
            interrupted: false,
            hooks: Vec::new(),
            events: Events::default(),
            blind_spots: Vec::new(),
        },
        time_wait: TimeWait::default(),
        ports: Ports::default(),
        bind_failures: Vec::new(),
        connect_failures: Vec::new(),
        connect_latency: None,
        resets: Vec::new(),
        rejected_syns: Vec::new(),
        close_wait: Vec::new(),
        shared_ports: Vec::new(),
        findings: findings.to_vec(),
    }
}
