//! The daemon as it is deployed: `firstfin serve`, a real Prometheus that scrapes it, a real Alertmanager that it tells, and
//! a process that runs out of ports in a network namespace.

use std::{
    env, fs,
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Alertmanager, alertmanager, get};
use crate::receiver::{Receiver, folder, free_address, wait_until};

const FIRSTFIN: &str = env!("CARGO_BIN_EXE_firstfin");
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus");
const FINDING: &str = "EphemeralPortExhaustion";
/// Where the crawler of the demo connects to.
const CACHE: &str = "127.0.0.1:6379";

/// Alertmanager; an error, in words, where there is no Prometheus or no root.
pub(super) fn servers() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the daemon loads eBPF programs: run it as root".to_owned());
    }
    env::var_os("FIRSTFIN_PROMETHEUS").ok_or("FIRSTFIN_PROMETHEUS names no Prometheus")?;
    alertmanager()
}

/// A process that goes with this value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Ends it as a service manager does.
    fn terminate(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A role of the demo: ready when this returns, and there until its standard input is closed.
fn role(role: &str, arguments: &[String]) -> Running {
    let mut command = Command::new(FIRSTFIN);
    command.arg("demo-role").arg(role).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(&mut command);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{role}");
    running
}

fn serve(folder: &Path, at: SocketAddr, alertmanager: SocketAddr) -> Running {
    let config = folder.join("firstfin.toml");
    let text = format!(
        "[observe]\ninterval = \"1s\"\n[http]\nlisten = \"{at}\"\n[alerts]\nfor = \"0s\"\nresolve_after = \"4s\"\nresend = \
         \"2s\"\nstate_folder = \"{0}\"\nalertmanager = [{{ url = \"http://{alertmanager}\" }}]\n[history]\npath = \
         \"{0}/history.db\"\n",
        folder.display()
    );
    fs::write(&config, text).unwrap();
    let log = File::create(folder.join("serve.log")).unwrap();
    let mut command = Command::new(FIRSTFIN);
    command.args(["serve", "--config"]).arg(config).env_remove("RUST_LOG").stdin(Stdio::null()).stderr(log);
    let running = Running::start(&mut command);
    wait_until("the daemon, see serve.log", || get(at, "/readyz").is_some());
    running
}

fn prometheus(folder: &Path, at: SocketAddr, target: SocketAddr) -> Running {
    let config = folder.join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files:\n- {RULES}/*.rules.yml\nscrape_configs:\n- \
         job_name: firstfin\n  static_configs:\n  - targets: ['{target}']\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env::var_os("FIRSTFIN_PROMETHEUS").unwrap());
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address={at}"))
        .stdin(Stdio::null())
        .stderr(File::create(folder.join("prometheus.log")).unwrap());
    let running = Running::start(&mut command);
    wait_until("Prometheus, see prometheus.log", || get(at, "/-/ready").is_some());
    running
}

/// The alerts that Prometheus itself has firing by a rule of this name.
fn firing_by_rule(prometheus: SocketAddr, rule: &str) -> Vec<Value> {
    let answer: Value =
        serde_json::from_str(&get(prometheus, "/api/v1/alerts").unwrap_or_default()).unwrap_or_default();
    let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
    alerts.into_iter().filter(|it| it["labels"]["alertname"] == rule && it["state"] == "firing").collect()
}

/// Whether on-call was told this of the crawler.
fn was_told(webhook: &Receiver, status: &str) -> bool {
    webhook.requests().iter().any(|request| {
        let alerts = request.body["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().any(|it| {
            it["status"] == status && it["labels"]["alertname"] == FINDING && it["labels"]["process"] == "crawler"
        })
    })
}

pub(super) fn wakes_on_call(program: &Path) {
    let folder = folder("real-daemon");
    let webhook = Receiver::start();
    let alertmanager = Alertmanager::start(program, &folder.join("alertmanager"), free_address(), webhook.address);
    let (metrics, queries) = (free_address(), free_address());
    let daemon = serve(&folder, metrics, alertmanager.address);
    let _prometheus = prometheus(&folder, queries, metrics);

    let stage = role("stage", &["40000".to_owned(), "40063".to_owned()]);
    let keeper = [stage.0.id().to_string()];
    let cache = role("session-cache", &keeper);
    let crawl = || {
        let mut crawler = Command::new(FIRSTFIN);
        crawler.args(["demo-role", "crawler"]).args(&keeper).stdin(Stdio::null());
        assert!(crawler.status().unwrap().success());
        std::thread::sleep(Duration::from_millis(300));
    };
    let of_crawler = || {
        let mut active = alertmanager.active();
        active.retain(|it| it["labels"]["alertname"] == FINDING && it["labels"]["process"] == "crawler");
        active
    };
    let is_firing = || {
        crawl();
        !of_crawler().is_empty()
            && was_told(&webhook, "firing")
            && !firing_by_rule(queries, "FirstfinPortExhaustion").is_empty()
    };
    wait_until("Alertmanager, on-call and the rule of Prometheus", is_firing);

    let alerts = of_crawler();
    let [alert] = alerts.as_slice() else { panic!("one alert, and not {alerts:#?}") };
    assert_eq!((&alert["labels"]["remote"], &alert["labels"]["severity"]), (&CACHE.into(), &"critical".into()));
    let said = |name: &str| alert["annotations"][name].as_str().unwrap_or_default().to_owned();
    assert!(said("summary").contains("crawler[") && said("summary").contains(CACHE), "{}", said("summary"));
    assert!(said("description").contains("EADDRNOTAVAIL"), "{}", said("description"));
    assert!(said("remedy").contains("keep connections open"), "{}", said("remedy"));
    let by_rule = firing_by_rule(queries, "FirstfinPortExhaustion");
    assert!(by_rule.iter().all(|it| it["labels"]["severity"] == "critical"), "{by_rule:#?}");

    drop((cache, stage));
    wait_until("the end of the alert", || of_crawler().is_empty() && was_told(&webhook, "resolved"));

    daemon.terminate();
    let history = Command::new(FIRSTFIN)
        .args(["history", "--since", "10m", "--format", "json", "--finding", FINDING, "--database"])
        .arg(folder.join("history.db"))
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&history.stdout).unwrap();
    let text = answer.to_string();
    assert!(text.contains("crawler") && text.contains(CACHE), "{text}");
}
