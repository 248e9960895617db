//! Alerts from a finding to what a receiver gets, over real connections on loopback: receivers that refuse, are slow, are
//! away, or ask to be left alone, and an agent that is started anew meanwhile.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic as the tests do")]
#![allow(clippy::panic, reason = "as above; not every helper does")]

mod receiver;

use std::{
    fs,
    path::Path,
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use firstfin::{
    alert::{Alerts, AlertsError, Config, ReceiverStats},
    report::Finding,
};
use log::{LevelFilter, Log, Metadata, Record};
use receiver::{Answer, Receiver, Request, answer, exhausted, folder, free_address, report, wait_until};
use serde_json::{Value, json};

const HOST: &str = "web-1";

/// Everything at once, so that a test need not wait for time to pass.
fn config(receivers: &str) -> Config {
    let text = format!(
        "for = \"0s\"\nresolve_after = \"1s\"\ngroup_wait = \"0s\"\nresend = \"1s\"\ntimeout = \"2s\"\nretry_min = \
         \"100ms\"\nretry_max = \"200ms\"\njournal.enabled = false\n{receivers}"
    );
    toml::from_str(&text).unwrap()
}

fn webhook(receiver: &Receiver) -> String {
    format!("[[webhook]]\nname = \"chat\"\nurl = \"http://{}/hook\"\n", receiver.address)
}

fn start(config: &Config, state: Option<&Path>) -> Alerts {
    Alerts::start(config, state, HOST).unwrap()
}

/// One round.
fn round(alerts: &Alerts, findings: &[Finding]) {
    alerts.take_in(&report(findings), jiff::Timestamp::now());
}

/// Rounds without a finding until every alert is resolved.
fn end_all(alerts: &Alerts) {
    wait_until("the end of every alert", || {
        round(alerts, &[]);
        thread::sleep(Duration::from_millis(50));
        alerts.stats().firing == 0
    });
}

fn stop(alerts: Alerts, within: Duration) {
    alerts.stop(Instant::now() + within);
}

fn stats(alerts: &Alerts, receiver: &str) -> ReceiverStats {
    alerts.stats().receivers[receiver]
}

#[test]
fn a_receiver_that_fails_gets_it_later_and_one_that_asks_for_time_has_it() {
    let receiver = Receiver::answering(free_address(), |number, _| match number {
        0 => answer(503),
        1 => Answer { head: "Retry-After: 2\r\n".to_owned(), ..answer(429) },
        _ => answer(204),
    });
    let alerts = start(&config(&webhook(&receiver)), None);
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    let requests = receiver.wait_for(3);
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(100), "it waits before it tries again");
    assert!(requests[2].at - requests[1].at >= Duration::from_secs(2), "and as long as it is asked to");
    wait_until("the answer", || stats(&alerts, "webhook/chat").queued == 0);
    let expected = ReceiverStats { sent: 1, failed: 2, retried: 2, dropped: 0, queued: 0 };
    assert_eq!(stats(&alerts, "webhook/chat"), expected);
    let alert = &requests[2].body["alerts"][0];
    assert_eq!(requests[2].path, "/hook");
    assert_eq!(alert["labels"]["alertname"], "EphemeralPortExhaustion");
    assert_eq!((&alert["labels"]["process"], &alert["labels"]["remote"]), (&json!("crawler"), &json!("10.0.0.5:6379")));
    assert_eq!(alert["labels"]["instance"], HOST);
    assert!(alert["annotations"]["description"].as_str().unwrap().contains("failed 16 times with EADDRNOTAVAIL"));
    end_all(&alerts);
    receiver.wait_for(4);
    stop(alerts, Duration::from_secs(2));
    assert_eq!(receiver.told()[2..], [("firing".to_owned(), 1), ("resolved".to_owned(), 1)]);
}

#[test]
fn a_receiver_that_is_slow_or_dead_costs_the_others_nothing() {
    let slow = Receiver::answering(free_address(), |number, _| match number {
        0 => Answer { delay: Duration::from_secs(4), ..answer(200) },
        _ => answer(200),
    });
    let quick = Receiver::start();
    let dead = free_address();
    let text = format!(
        "{}[[webhook]]\nname = \"slow\"\nurl = \"http://{}\"\n[[alertmanager]]\nurl = \"http://{dead}\"\n",
        webhook(&quick),
        slow.address
    );
    let mut config = config(&text);
    config.timeout = firstfin::alert::moment::Period(Duration::from_millis(500));
    let alerts = start(&config, None);
    let started = Instant::now();
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    assert!(started.elapsed() < Duration::from_millis(200), "a round waits for nobody");
    quick.wait_for(1);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // No answer in time is none: it is sent again, as the receiver may not have understood.
    assert_eq!(slow.wait_for(2).len(), 2);
    wait_until("failures", || stats(&alerts, &format!("alertmanager/{dead}")).failed >= 3);
    let owed = stats(&alerts, &format!("alertmanager/{dead}"));
    assert_eq!((owed.sent, owed.queued), (0, 1));
    stop(alerts, Duration::from_secs(2));
}

#[test]
fn one_group_arrives_after_an_outage_with_restarts_and_then_its_end() {
    let (address, state) = (free_address(), folder("outage"));
    let findings = [exhausted("crawler", 7, "10.0.0.5:6379"), exhausted("checkout", 8, "10.0.0.5:6379")];
    let text = format!("[[webhook]]\nname = \"chat\"\nurl = \"http://{address}\"\n");
    let config = config(&text);
    // Three agents, one after the other, none of which reaches the receiver.
    for agent in 0..3 {
        let alerts = start(&config, Some(&state));
        round(&alerts, &findings);
        if agent == 0 {
            wait_until("failures", || stats(&alerts, "webhook/chat").failed >= 2);
        }
        assert_eq!((alerts.stats().firing, stats(&alerts, "webhook/chat").queued), (2, 2));
        stop(alerts, Duration::from_millis(500));
    }
    let receiver = Receiver::answering(address, |_, _| answer(200));
    let alerts = start(&config, Some(&state));
    round(&alerts, &findings);
    receiver.wait_for(1);
    stop(alerts, Duration::from_secs(2));
    assert_eq!(receiver.told(), [("firing".to_owned(), 2)]);
    // Another restart is silent; and so is a process that is another one by now.
    let alerts = start(&config, Some(&state));
    round(&alerts, &[exhausted("crawler", 4711, "10.0.0.5:6379"), findings[1].clone()]);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(receiver.told().len(), 1);
    end_all(&alerts);
    receiver.wait_for(2);
    stop(alerts, Duration::from_secs(2));
    assert_eq!(receiver.told(), [("firing".to_owned(), 2), ("resolved".to_owned(), 2)]);
    // The end, too, is told once.
    let alerts = start(&config, Some(&state));
    round(&alerts, &[]);
    stop(alerts, Duration::from_secs(1));
    assert_eq!(receiver.told().len(), 2);
}

#[test]
fn what_came_and_went_while_nobody_listened_is_told_in_order() {
    let (address, state) = (free_address(), folder("missed"));
    let text = format!(
        "[[webhook]]\nname = \"chat\"\nurl = \"http://{address}/hook\"\n[[pagerduty]]\nname = \"ops\"\nurl = \
         \"http://{address}/events\"\nrouting_key_file = \"{}\"\n",
        key_file("missed")
    );
    let config = config(&text);
    let alerts = start(&config, Some(&state));
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    end_all(&alerts);
    stop(alerts, Duration::from_millis(300));
    let receiver = Receiver::answering(address, |_, _| answer(202));
    let alerts = start(&config, Some(&state));
    let requests = receiver.wait_for(4);
    stop(alerts, Duration::from_secs(1));
    let at =
        |path: &str| requests.iter().filter(|it| it.path == path).map(|it| it.body.clone()).collect::<Vec<Value>>();
    let hooks: Vec<_> = at("/hook").iter().map(|body| body["status"].clone()).collect();
    assert_eq!(hooks, [json!("firing"), json!("resolved")]);
    let events = at("/events");
    assert_eq!((&events[0]["event_action"], &events[1]["event_action"]), (&json!("trigger"), &json!("resolve")));
    assert_eq!(events[0]["dedup_key"], events[1]["dedup_key"]);
    assert_eq!(events[0]["routing_key"], "R0UT1NGKEY");
    assert_eq!(events[0]["payload"]["component"], "crawler");
}

#[test]
fn an_agent_that_was_killed_tells_nothing_twice() {
    let (receiver, state, copy) = (Receiver::start(), folder("killed"), folder("killed-copy"));
    let config = config(&webhook(&receiver));
    let alerts = start(&config, Some(&state));
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    receiver.wait_for(1);
    // What is on disk while it runs is what a killed one leaves.
    let is_told = |text: &str| text.contains("\"told\":{") && text.contains("\"firing\"");
    wait_until("the state file", || fs::read_to_string(state.join("alerts.json")).is_ok_and(|text| is_told(&text)));
    fs::copy(state.join("alerts.json"), copy.join("alerts.json")).unwrap();
    drop(alerts);
    let alerts = start(&config, Some(&copy));
    round(&alerts, &[exhausted("crawler", 9, "10.0.0.5:6379")]);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(receiver.told(), [("firing".to_owned(), 1)]);
    end_all(&alerts);
    receiver.wait_for(2);
    stop(alerts, Duration::from_secs(1));
    assert_eq!(receiver.told(), [("firing".to_owned(), 1), ("resolved".to_owned(), 1)]);
}

#[test]
fn only_the_alert_that_a_receiver_cannot_take_is_dropped() {
    let is_bad = |request: &Request| request.body.to_string().contains("10.0.0.2:80");
    let receiver = Receiver::answering(free_address(), move |_, request| {
        let body = "label \"remote\" is not to my liking".to_owned();
        if is_bad(request) { Answer { body, ..answer(400) } } else { answer(200) }
    });
    let alerts =
        start(&config(&format!("[[alertmanager]]\nname = \"am\"\nurl = \"http://{}\"\n", receiver.address)), None);
    let findings: Vec<_> = (1..=3).map(|host| exhausted("scanner", 7, &format!("10.0.0.{host}:80"))).collect();
    round(&alerts, &findings);
    wait_until("an empty queue", || stats(&alerts, "alertmanager/am").queued == 0);
    assert_eq!(stats(&alerts, "alertmanager/am").dropped, 1);
    let requests = receiver.requests();
    assert!(requests.iter().all(|it| it.path == "/api/v2/alerts"));
    let taken = |host: &str| {
        let has = |it: &&Request| it.body.as_array().unwrap().iter().any(|alert| alert["labels"]["remote"] == *host);
        requests.iter().filter(|it| !is_bad(it)).filter(has).count()
    };
    assert!(taken("10.0.0.1:80") >= 1 && taken("10.0.0.3:80") >= 1, "{requests:?}");
    // It goes on renewing the others, and only them.
    let before = receiver.requests().len();
    let later = receiver.wait_for(before + 2);
    assert!(later[before..].iter().all(|it| !is_bad(it) && it.body.as_array().unwrap().len() == 2), "{later:?}");
    stop(alerts, Duration::from_secs(1));
}

#[test]
fn a_message_that_waits_for_others_is_sent_when_the_agent_ends() {
    let receiver = Receiver::start();
    let mut config = config(&webhook(&receiver));
    config.group_wait = firstfin::alert::moment::Period::seconds(3600);
    let alerts = start(&config, None);
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379"), exhausted("checkout", 7, "10.0.0.5:6379")]);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(receiver.told(), []);
    let started = Instant::now();
    stop(alerts, Duration::from_secs(5));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(receiver.told(), [("firing".to_owned(), 2)]);
}

#[test]
fn the_deadline_of_the_end_is_kept_with_a_receiver_that_hangs() {
    let receiver = Receiver::answering(free_address(), |_, _| Answer { delay: Duration::from_secs(6), ..answer(200) });
    let mut config = config(&webhook(&receiver));
    config.timeout = firstfin::alert::moment::Period::seconds(30);
    let state = folder("hangs");
    let alerts = start(&config, Some(&state));
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    receiver.wait_for(1);
    let started = Instant::now();
    stop(alerts, Duration::from_millis(700));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let saved = fs::read_to_string(state.join("alerts.json")).unwrap();
    assert!(saved.contains("\"owed\":\"fire\""), "what was not answered is owed: {saved}");
}

#[test]
fn a_reload_keeps_what_fires_tells_new_receivers_and_refuses_what_is_wrong() {
    let (first, second) = (Receiver::start(), Receiver::start());
    let alerts = start(&config(&webhook(&first)), None);
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    first.wait_for(1);

    let bad = config("[[pagerduty]]\nname = \"ops\"\nrouting_key_file = \"/nonexistent/key\"\n");
    let error = alerts.reload(&bad).unwrap_err();
    assert!(matches!(error, AlertsError::Secret { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "alerts: receiver pagerduty/ops: read /nonexistent/key: No such file or directory (os \
                                   error 2)"
    );
    let mut invalid = config(&webhook(&first));
    invalid.max_active = 0;
    assert!(alerts.reload(&invalid).unwrap_err().to_string().contains("max_active: lower than 1"));
    assert_eq!(alerts.stats().receivers.keys().collect::<Vec<_>>(), ["webhook/chat"]);

    let other = format!("{}[[webhook]]\nname = \"second\"\nurl = \"http://{}\"\n", webhook(&first), second.address);
    alerts.reload(&config(&other)).unwrap();
    second.wait_for(1);
    alerts.reload(&config(&format!("[[webhook]]\nname = \"second\"\nurl = \"http://{}\"\n", second.address))).unwrap();
    end_all(&alerts);
    second.wait_for(2);
    stop(alerts, Duration::from_secs(2));
    assert_eq!(first.told(), [("firing".to_owned(), 1)], "it is told nothing any more");
    assert_eq!(second.told(), [("firing".to_owned(), 1), ("resolved".to_owned(), 1)]);
}

#[test]
fn a_reload_with_the_right_key_delivers_what_was_refused_for_the_wrong_one() {
    let receiver = Receiver::answering(free_address(), |_, request| {
        if request.head.contains("Bearer right") { answer(200) } else { answer(403) }
    });
    let token = folder("token").join("token");
    fs::write(&token, "Bearer wrong\n").unwrap();
    let text = format!("{}authorization_file = \"{}\"\n", webhook(&receiver), token.display());
    let alerts = start(&config(&text), None);
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    receiver.wait_for(1);
    wait_until("the answer", || stats(&alerts, "webhook/chat").failed == 1);
    assert_eq!(stats(&alerts, "webhook/chat").queued, 1, "a wrong key is no reason to drop an alert");
    fs::write(&token, "Bearer right\n").unwrap();
    alerts.reload(&config(&text)).unwrap();
    wait_until("delivery", || stats(&alerts, "webhook/chat").sent == 1);
    stop(alerts, Duration::from_secs(1));
}

#[test]
fn no_secret_is_logged_shown_or_saved() {
    let log = logged();
    let receiver = Receiver::answering(free_address(), |_, request| {
        // It says everything back, as receivers do that want to be helpful.
        let body = format!("not with {} {}", request.head, request.body);
        Answer { body, ..answer(if request.path.contains("events") { 400 } else { 401 }) }
    });
    let state = folder("secrets");
    let [url, token] = ["url", "token"].map(|name| state.join(name));
    fs::write(&url, format!("http://{}/services/SW0RDF1SH-URL\n", receiver.address)).unwrap();
    fs::write(&token, "Bearer SW0RDF1SH-TOKEN").unwrap();
    let text = format!(
        "[[webhook]]\nname = \"secret-chat\"\nurl_file = \"{}\"\nauthorization_file = \"{token}\"\n[[webhook]]\nname = \
         \"plain\"\nurl = \"http://{address}/services/SW0RDF1SH-PATH?token=SW0RDF1SH-QUERY\"\n[[pagerduty]]\nname = \
         \"secret-ops\"\nurl = \"http://{address}/events\"\nrouting_key_file = \"{}\"\n[[alertmanager]]\nname = \
         \"secret-am\"\nurl = \"http://{address}\"\nauthorization_file = \"{token}\"\n",
        url.display(),
        key_file("secrets"),
        token = token.display(),
        address = receiver.address,
    );
    let config = config(&text);
    let alerts = start(&config, Some(&state));
    round(&alerts, &[exhausted("crawler", 7, "10.0.0.5:6379")]);
    let names = ["webhook/secret-chat", "webhook/plain", "pagerduty/secret-ops", "alertmanager/secret-am"];
    wait_until("failures", || names.iter().all(|name| stats(&alerts, name).failed > 0));
    stop(alerts, Duration::from_secs(1));
    let sent = format!("{:?}", receiver.requests());
    for secret in ["SW0RDF1SH-URL", "SW0RDF1SH-TOKEN", "SW0RDF1SH-PATH", "SW0RDF1SH-QUERY", "R0UT1NGKEY"] {
        assert!(sent.contains(secret), "{secret} was not even sent");
    }
    let logged = log.lock().unwrap().join("\n");
    for name in names {
        assert!(logged.contains(&format!("alerts: {name}")), "nothing is said about {name}:\n{logged}");
    }
    let saved = fs::read_to_string(state.join("alerts.json")).unwrap();
    let shown = format!("{config:?}");
    for (what, text) in [("log", logged), ("state", saved), ("configuration", shown)] {
        assert!(!text.contains("SW0RDF1SH") && !text.contains("R0UT1NGKEY"), "a secret is in the {what}:\n{text}");
    }
}

/// A file with a routing key.
fn key_file(test: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("alerts-key-{test}"));
    fs::write(&path, "R0UT1NGKEY\n").unwrap();
    path.display().to_string()
}

struct Kept;

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Log for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LOG.lock().unwrap().push(format!("{} {}: {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

/// Everything that is logged from now on, at the most that `firstfin -vv` shows.
fn logged() -> &'static Mutex<Vec<String>> {
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| {
        log::set_logger(&Kept).unwrap();
        log::set_max_level(LevelFilter::Debug);
    });
    &LOG
}
