//! Alerts through a real Alertmanager on loopback, to a webhook behind it: what on-call gets in the end.
//!
//! `cargo xtask test` brings Debian's Alertmanager and names it by `FIRSTFIN_ALERTMANAGER`. Without it these tests are
//! skipped, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed: clippy.toml allows it in tests, but does not know this harness"
)]

mod daemon;
#[path = "../needing/mod.rs"]
mod needing;
#[path = "../receiver/mod.rs"]
mod receiver;

use std::{
    env, fs,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use firstfin::{
    alert::{Alerts, Config},
    report::{Finding, Severity},
};
use libtest_mimic::Arguments;
use needing::trial;
use receiver::{Receiver, exhausted, folder, free_address, report, wait_until};
use serde_json::{Value, json};

const PROGRAM: &str = "FIRSTFIN_ALERTMANAGER";

type Body = fn(&Path);

fn main() -> ExitCode {
    let tests: [(&'static str, Body); 5] = [
        ("fires_in_a_group_and_is_resolved", fires_in_a_group_and_is_resolved),
        ("one_group_arrives_after_an_outage_with_a_restart", one_group_arrives_after_an_outage_with_a_restart),
        ("what_came_and_went_during_an_outage_is_told", what_came_and_went_during_an_outage_is_told),
        ("a_dead_agent_leaves_no_alert_behind", a_dead_agent_leaves_no_alert_behind),
        ("what_gets_worse_replaces_what_it_was", what_gets_worse_replaces_what_it_was),
    ];
    let mut trials: Vec<_> = tests.map(|(name, body)| trial(name, alertmanager, body)).into_iter().collect();
    trials.push(trial("a_certificate_that_nobody_trusts_is_tried_seldom", openssl, bad_certificate));
    trials.push(trial("the_daemon_wakes_on_call", daemon::servers, daemon::wakes_on_call));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn alertmanager() -> Result<PathBuf, String> {
    env::var_os(PROGRAM).map(PathBuf::from).ok_or_else(|| {
        let why = env::var("FIRSTFIN_NO_SERVERS").unwrap_or_else(|_| "cargo xtask test sets it".to_owned());
        format!("{PROGRAM} names no Alertmanager: {why}")
    })
}

fn openssl() -> Result<PathBuf, String> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join("openssl")).find(|file| file.is_file());
    found.ok_or_else(|| "openssl, for a server with a certificate of its own, is not on PATH".to_owned())
}

/// A running Alertmanager, until it is dropped.
struct Alertmanager {
    child: Child,
    address: SocketAddr,
}

impl Alertmanager {
    /// Starts one that tells a webhook, in groups of one alertname, a second after the first alert of a group.
    fn start(program: &Path, folder: &Path, address: SocketAddr, webhook: SocketAddr) -> Self {
        fs::create_dir_all(folder).unwrap();
        let config = folder.join("alertmanager.yml");
        let text = format!(
            "route:\n  receiver: oncall\n  group_by: [alertname]\n  group_wait: 1s\n  group_interval: 1s\n  \
             repeat_interval: 1h\nreceivers:\n- name: oncall\n  webhook_configs:\n  - url: http://{webhook}/oncall\n"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("alertmanager.log")).unwrap())
            .spawn()
            .unwrap();
        let mut this = Self { child, address };
        wait_until("Alertmanager, see alertmanager.log", || {
            assert!(
                this.child.try_wait().unwrap().is_none(),
                "it ended: {}",
                folder.join("alertmanager.log").display()
            );
            get(this.address, "/-/ready").is_some()
        });
        this
    }

    /// The alerts that fire, as its API has them.
    fn active(&self) -> Vec<Value> {
        let text = get(self.address, "/api/v2/alerts?active=true").unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let agent =
        ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(5))).build().new_agent();
    agent.get(format!("http://{address}{path}")).call().ok()?.body_mut().read_to_string().ok()
}

fn config(alertmanager: SocketAddr) -> Config {
    toml::from_str(&format!(
        "for = \"2s\"\nresolve_after = \"1s\"\nresend = \"3s\"\nretry_min = \"100ms\"\nretry_max = \"300ms\"\n\
         journal.enabled = false\ndocumentation_url = \"https://wiki.example/firstfin\"\n[[alertmanager]]\nurl = \
         \"http://{alertmanager}\"\n"
    ))
    .unwrap()
}

/// The daemon's part: a round every now and then, for so long or until something is so.
fn rounds(alerts: &Alerts, findings: &[Finding], what: &str, mut until: impl FnMut() -> bool) {
    wait_until(what, || {
        alerts.take_in(&report(findings), jiff::Timestamp::now());
        thread::sleep(Duration::from_millis(100));
        until()
    });
}

/// The same, for so long.
fn rounds_for(alerts: &Alerts, findings: &[Finding], time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        alerts.take_in(&report(findings), jiff::Timestamp::now());
        thread::sleep(Duration::from_millis(100));
    }
}

fn start(config: &Config, state: &Path) -> Alerts {
    Alerts::start(config, Some(state), "web-1").unwrap()
}

fn stop(alerts: Alerts) {
    alerts.stop(Instant::now() + Duration::from_secs(2));
}

fn labels(alerts: &[Value], name: &str) -> Vec<String> {
    let mut values: Vec<_> =
        alerts.iter().map(|alert| alert["labels"][name].as_str().unwrap_or_default().to_owned()).collect();
    values.sort();
    values
}

fn places(test: &str) -> (PathBuf, PathBuf) {
    let folder = folder(test);
    (folder.join("server"), folder.join("state"))
}

fn fires_in_a_group_and_is_resolved(program: &Path) {
    let (server, state) = places("real-group");
    let webhook = Receiver::start();
    let alertmanager = Alertmanager::start(program, &server, free_address(), webhook.address);
    let alerts = start(&config(alertmanager.address), &state);
    let findings = [exhausted("crawler", 7, "10.0.0.5:6379"), exhausted("checkout", 8, "10.0.0.5:5432")];
    rounds(&alerts, &findings, "two alerts", || alertmanager.active().len() == 2);
    let active = alertmanager.active();
    // docs/alerts.md shows one of them.
    fs::write(server.join("active.json"), serde_json::to_string_pretty(&active).unwrap()).unwrap();
    assert_eq!(labels(&active, "process"), ["checkout", "crawler"]);
    assert_eq!(labels(&active, "remote"), ["10.0.0.5:5432", "10.0.0.5:6379"]);
    assert_eq!(labels(&active, "instance"), ["web-1", "web-1"]);
    let crawler = active.iter().find(|alert| alert["labels"]["process"] == "crawler").unwrap();
    assert_eq!(crawler["labels"]["unit"], "crawler.service");
    assert_eq!(crawler["annotations"]["remedy"], findings[0].remedy[0]);
    assert_eq!(crawler["annotations"]["pid"], "7");
    let runbook = "https://wiki.example/firstfin/docs/findings.md#ephemeralportexhaustion";
    assert_eq!((&crawler["annotations"]["runbook_url"], &crawler["generatorURL"]), (&json!(runbook), &json!(runbook)));

    rounds(&alerts, &findings, "the group", || !webhook.requests().is_empty());
    assert_eq!(webhook.told(), [("firing".to_owned(), 2)]);
    // Renewed twice, and nobody is told again; the numbers are those of now.
    let mut later = findings;
    later[0].evidence = vec!["connect() failed 9000 times".to_owned()];
    rounds_for(&alerts, &later, Duration::from_secs(7));
    assert_eq!(webhook.told().len(), 1);
    assert!(alertmanager.active().iter().any(|alert| alert.to_string().contains("failed 9000 times")));

    rounds(&alerts, &later[1..], "the end of one", || alertmanager.active().len() == 1);
    let is_over = || webhook.told().last().is_some_and(|(status, _)| status == "resolved");
    rounds(&alerts, &[], "the end of both", is_over);
    // One of them while the other one still fired, or both in one message.
    let messages = webhook.requests();
    let all = messages.iter().flat_map(|request| request.body["alerts"].as_array().unwrap());
    let ended: Vec<Value> = all.filter(|alert| alert["status"] == "resolved").cloned().collect();
    assert_eq!(labels(&ended, "process"), ["checkout", "crawler"]);
    assert_eq!(alertmanager.active(), Vec::<Value>::new());
    stop(alerts);
}

/// Seconds of outage to wait through; without it two.
const OUTAGE: &str = "FIRSTFIN_OUTAGE_SECONDS";

fn one_group_arrives_after_an_outage_with_a_restart(program: &Path) {
    let seconds = env::var(OUTAGE).map_or(2, |value| value.parse().unwrap());
    let outage = Duration::from_secs(seconds);
    let (server, state) = places("real-outage");
    let (webhook, address) = (Receiver::start(), free_address());
    let config = config(address);
    let findings = [exhausted("crawler", 7, "10.0.0.5:6379"), exhausted("checkout", 8, "10.0.0.5:5432")];
    // Nobody listens yet, and the agent is started anew meanwhile.
    let alerts = start(&config, &state);
    let failed = || alerts.stats().receivers.values().map(|receiver| receiver.failed).sum::<u64>();
    rounds_for(&alerts, &findings, outage / 2);
    rounds(&alerts, &findings, "failures", || failed() >= 3);
    assert_eq!(alerts.stats().firing, 2);
    stop(alerts);
    let alerts = start(&config, &state);
    rounds_for(&alerts, &findings, outage / 2);

    let alertmanager = Alertmanager::start(program, &server, address, webhook.address);
    rounds(&alerts, &findings, "the group", || !webhook.requests().is_empty());
    stop(alerts);
    // Once more, while it fires: silence.
    let alerts = start(&config, &state);
    rounds_for(&alerts, &findings, Duration::from_secs(4));
    assert_eq!(webhook.told(), [("firing".to_owned(), 2)]);
    assert_eq!(labels(&alertmanager.active(), "process"), ["checkout", "crawler"]);

    rounds(&alerts, &[], "its end", || webhook.told().len() >= 2);
    rounds_for(&alerts, &[], Duration::from_secs(2));
    stop(alerts);
    assert_eq!(webhook.told(), [("firing".to_owned(), 2), ("resolved".to_owned(), 2)]);
}

fn what_came_and_went_during_an_outage_is_told(program: &Path) {
    let (server, state) = places("real-missed");
    let (webhook, address) = (Receiver::start(), free_address());
    let alerts = start(&config(address), &state);
    rounds(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")], "it fires", || alerts.stats().firing == 1);
    rounds(&alerts, &[], "its end", || alerts.stats().firing == 0);
    let _alertmanager = Alertmanager::start(program, &server, address, webhook.address);
    rounds(&alerts, &[], "both", || webhook.told().len() >= 2);
    stop(alerts);
    assert_eq!(webhook.told(), [("firing".to_owned(), 1), ("resolved".to_owned(), 1)]);
    let alert = &webhook.requests()[0].body["alerts"][0];
    assert_eq!((&alert["labels"]["process"], &alert["labels"]["remote"]), (&json!("crawler"), &json!("10.0.0.5:6379")));
}

fn a_dead_agent_leaves_no_alert_behind(program: &Path) {
    let (server, state) = places("real-dead");
    let webhook = Receiver::start();
    let alertmanager = Alertmanager::start(program, &server, free_address(), webhook.address);
    let mut config = config(alertmanager.address);
    config.resend = firstfin::alert::moment::Period::seconds(1);
    let alerts = start(&config, &state);
    rounds(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")], "the group", || !webhook.requests().is_empty());
    drop(alerts);
    wait_until("the end of its lease", || alertmanager.active().is_empty());
    wait_until("that it is told", || webhook.told().len() >= 2);
    assert_eq!(webhook.told(), [("firing".to_owned(), 1), ("resolved".to_owned(), 1)]);
}

fn what_gets_worse_replaces_what_it_was(program: &Path) {
    let (server, state) = places("real-worse");
    let webhook = Receiver::start();
    let alertmanager = Alertmanager::start(program, &server, free_address(), webhook.address);
    let alerts = start(&config(alertmanager.address), &state);
    let mut finding = exhausted("crawler", 7, "10.0.0.5:6379");
    finding.severity = Severity::Warning;
    let severities = || labels(&alertmanager.active(), "severity");
    rounds(&alerts, &[finding.clone()], "a warning", || severities() == ["warning"]);
    finding.severity = Severity::Critical;
    rounds(&alerts, &[finding], "that it is critical", || severities() == ["critical"]);
    stop(alerts);
}

/// A certificate that is not trusted stays so until somebody changes it: the alert is kept, and not sent every second.
fn bad_certificate(openssl: &Path) {
    let (server, state) = places("bad-certificate");
    fs::create_dir_all(&server).unwrap();
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| server.join(name));
    let mut make = Command::new(openssl);
    make.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"]);
    make.arg(&key).arg("-out").arg(&certificate).args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    assert!(make.output().unwrap().status.success());
    let address = free_address();
    let mut serve = Command::new(openssl);
    serve.args(["s_server", "-quiet", "-www", "-accept", &address.to_string(), "-key"]).arg(&key);
    serve.arg("-cert").arg(&certificate).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = serve.spawn().unwrap();
    let _server = Alertmanager { child, address };
    wait_until("the server", || std::net::TcpStream::connect(address).is_ok());
    let mut config = config(address);
    config.alertmanager.clear();
    config.webhook = toml::from_str::<Config>(&format!("[[webhook]]\nname = \"tls\"\nurl = \"https://{address}/\"\n"))
        .unwrap()
        .webhook;
    config.group_wait = firstfin::alert::moment::Period::seconds(0);
    config.retry_max = firstfin::alert::moment::Period::seconds(60);
    let alerts = start(&config, &state);
    let failed = || alerts.stats().receivers["webhook/tls"].failed;
    rounds(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")], "a failure", || failed() > 0);
    rounds_for(&alerts, &[], Duration::from_secs(3));
    let stats = alerts.stats().receivers["webhook/tls"];
    assert_eq!(
        (stats.failed, stats.sent, stats.queued),
        (1, 0, 1),
        "by a connection that fails: a second attempt by now"
    );
    stop(alerts);
}
