use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    alert::{
        moment::Moment,
        queue::{Batch, Next, Queue, Step, Style},
        rules::{
            Change, Transition,
            tests::{at, exhausted},
        },
        secret::SecretSource,
    },
    model::{Container, Name},
};

pub(in crate::alert) fn alert() -> Alert {
    let finding = exhausted("crawler", 19_688, "10.0.0.5:6379");
    Alert {
        identity: Identity::of(&finding),
        severity: finding.severity,
        finding,
        also: vec!["crawler[5] cannot connect".to_owned()],
        others: 4,
        started_at: at(0),
        last_seen: at(90),
        ended_at: None,
    }
}

fn context() -> Context {
    Context {
        host: "web-1".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "payments".to_owned())]),
        documentation_url: Some("https://wiki.example/firstfin/".to_owned()),
    }
}

/// The message that a queue makes of something to tell.
fn batch(style: Style, told: &[(Change, Alert)]) -> Batch {
    let mut queue = Queue::default();
    let mut batch = Batch::default();
    for (change, alert) in told {
        queue.tell(&Transition { change: *change, alert: Arc::new(alert.clone()) }, at(90), 10);
        let Next::Send(next) = queue.next(at(90), style, &|_| String::new(), true) else { panic!("nothing to send") };
        queue.delivered(&next, at(90), style);
        batch = next;
    }
    batch
}

fn step(told: &[(Change, Alert)]) -> Step {
    batch(Style::Single, told).steps.remove(0)
}

fn over() -> Alert {
    Alert { ended_at: Some(at(100)), ..alert() }
}

#[test]
fn labels_say_which_problem_it_is_and_annotations_what_there_is_to_know() {
    let (mut alert, context) = (alert(), context());
    let labels = labels(&alert.identity, alert.severity, &context);
    let expected = json!({
        "alertname": "EphemeralPortExhaustion", "severity": "critical", "job": "firstfin", "instance": "web-1",
        "process": "crawler", "unit": "crawler.service", "netns": "4026531840", "remote": "10.0.0.5:6379",
        "team": "payments",
    });
    assert_eq!(serde_json::to_value(&labels).unwrap(), expected);
    let annotations = annotations(&alert, &context);
    let expected = json!({
        "summary": "crawler[19688] cannot connect to 10.0.0.5:6379: no ephemeral port is free towards it",
        "description": "why: connect() wants a port that no connection has\n\
                        - connect() to 10.0.0.5:6379 failed 16 times with EADDRNOTAVAIL\n\
                        - in use: 64 of 64\n\
                        also: crawler[5] cannot connect\n\
                        and 3 more of the same process name",
        "remedy": "keep connections open and use them again",
        "avoid": "tcp_fin_timeout: it does not change TIME_WAIT",
        "documentation": "https://wiki.example/firstfin/docs/findings.md#ephemeralportexhaustion",
        "runbook_url": "https://wiki.example/firstfin/docs/findings.md#ephemeralportexhaustion",
        "started_at": "2026-05-09T03:00:00.000Z", "pid": "19688", "exe": "/usr/bin/crawler",
    });
    assert_eq!(serde_json::to_value(&annotations).unwrap(), expected);

    alert.finding.process.as_mut().unwrap().container = Some(Container {
        runtime: Name::from("containerd"),
        id: Name::from("4f3b2a1c9d8e7766554433221100ffeeddccbbaa99887766554433221100ffee"),
        pod_uid: Some(Name::from("0e2d1c8f-7a56-4b1e-9a43-55c1d2e3f405")),
        ..Container::default()
    });
    let labels = super::labels(&Identity::of(&alert.finding), alert.severity, &Context::default());
    assert_eq!(labels.get("container").map(String::as_str), Some("4f3b2a1c9d8e"));
    assert_eq!(labels.get("pod_uid").map(String::as_str), Some("0e2d1c8f-7a56-4b1e-9a43-55c1d2e3f405"));
    assert!(!labels.contains_key("instance"), "a label without a value is left out");
}

#[test]
fn alertmanager_gets_a_lease_and_then_the_end() {
    let style = Style::Lease { resend: Duration::from_secs(60) };
    let lease = Duration::from_secs(240);
    let body = |batch: &Batch| serde_json::to_value(alertmanager::body(batch, at(120), lease, &context())).unwrap();
    let firing = body(&batch(style, &[(Change::Fired, alert())]));
    assert_eq!(
        firing[0]["startsAt"], "2026-05-09T03:02:00.000Z",
        "when it is told, or its group would not be waited for"
    );
    assert_eq!(firing[0]["annotations"]["started_at"], "2026-05-09T03:00:00.000Z");
    assert_eq!(firing[0]["endsAt"], "2026-05-09T03:06:00.000Z");
    assert_eq!(firing[0]["labels"]["alertname"], "EphemeralPortExhaustion");
    assert!(firing[0]["generatorURL"].as_str().unwrap().starts_with("https://wiki.example/"));
    let resolved = body(&batch(style, &[(Change::Fired, alert()), (Change::Resolved, over())]));
    assert_eq!(resolved[0]["startsAt"], "2026-05-09T03:01:30.000Z");
    assert_eq!(resolved[0]["endsAt"], "2026-05-09T03:01:40.000Z");
    assert_eq!(resolved[0]["labels"], firing[0]["labels"], "or Alertmanager would not know it");
    // Worse: what it knows ends, and another one begins.
    let mut before = alert();
    before.severity = Severity::Warning;
    let worse = body(&batch(style, &[(Change::Fired, before), (Change::Worsened, alert())]));
    let said: Vec<_> = worse.as_array().unwrap().iter().map(|it| (&it["labels"]["severity"], &it["endsAt"])).collect();
    assert_eq!(
        said,
        [
            (&json!("warning"), &json!("2026-05-09T03:02:00.000Z")),
            (&json!("critical"), &json!("2026-05-09T03:06:00.000Z"))
        ]
    );
    let without = alertmanager::body(&batch(style, &[(Change::Fired, alert())]), at(120), lease, &Context::default());
    assert_eq!(serde_json::to_value(without).unwrap()[0]["generatorURL"], Value::Null, "a path is no address");
}

#[test]
fn pagerduty_gets_what_its_events_api_asks_for() {
    let path = std::env::temp_dir().join(format!("firstfin-key-{}", std::process::id()));
    std::fs::write(&path, "R0UT1NG").unwrap();
    let (key, context) = (SecretSource::File(path).read().unwrap(), context());
    let told = step(&[(Change::Fired, alert())]);
    let event = serde_json::to_value(pagerduty::event(&told, &key, &context)).unwrap();
    assert_eq!((&event["routing_key"], &event["event_action"]), (&json!("R0UT1NG"), &json!("trigger")));
    let payload = &event["payload"];
    assert_eq!(payload["summary"].as_str().unwrap(), format!("web-1: {}", alert().finding.summary));
    assert_eq!((&payload["source"], &payload["severity"]), (&json!("web-1"), &json!("critical")));
    assert_eq!((&payload["component"], &payload["group"]), (&json!("crawler"), &json!("crawler.service")));
    assert_eq!(payload["timestamp"], "2026-05-09T03:00:00.000Z");
    assert_eq!(payload["custom_details"]["remedy"][0], "keep connections open and use them again");
    assert_eq!(payload["custom_details"]["labels"]["remote"], "10.0.0.5:6379");
    assert_eq!(event["links"][0]["href"], payload["custom_details"]["documentation"]);

    let ended = step(&[(Change::Fired, alert()), (Change::Resolved, over())]);
    let resolve = serde_json::to_value(pagerduty::event(&ended, &key, &context)).unwrap();
    assert_eq!((&resolve["event_action"], &resolve["payload"]), (&json!("resolve"), &Value::Null));
    assert_eq!(resolve["dedup_key"], event["dedup_key"]);
    let elsewhere = Context { host: "web-2".to_owned(), ..context };
    assert_ne!(
        serde_json::to_value(pagerduty::event(&told, &key, &elsewhere)).unwrap()["dedup_key"],
        event["dedup_key"]
    );
}

#[test]
fn no_message_outgrows_what_a_receiver_takes() {
    let path = std::env::temp_dir().join(format!("firstfin-long-key-{}", std::process::id()));
    std::fs::write(&path, "R0UT1NG").unwrap();
    let key = SecretSource::File(path).read().unwrap();
    let mut alert = alert();
    alert.finding.summary = "ü".repeat(10_000);
    alert.finding.evidence = vec!["x".repeat(10_000); 1000];
    alert.finding.remedy = alert.finding.evidence.clone();
    let context = Context { host: "h".repeat(800), ..context() };
    let told = step(&[(Change::Fired, alert)]);
    let event = serde_json::to_value(pagerduty::event(&told, &key, &context)).unwrap();
    let length = |value: &Value| value.as_str().unwrap().chars().count();
    assert_eq!(length(&event["payload"]["summary"]), 1024);
    assert!(length(&event["dedup_key"]) <= 255);
    assert!(event.to_string().len() < 512 << 10, "{} bytes", event.to_string().len());
    let text = journal::text(&told, false, &context);
    assert!(text.len() < 4000 && text.lines().count() == 1, "{} bytes", text.len());
}

#[test]
fn a_webhook_gets_the_shape_of_alertmanager() {
    let context = context();
    let group_by = ["alertname".to_owned(), "process".to_owned()];
    let told = batch(Style::Grouped { wait: Duration::ZERO }, &[(Change::Fired, alert())]);
    let message = webhook::message(&told, "webhook/chat", &group_by, at(90), &context).unwrap();
    let message = serde_json::to_value(message).unwrap();
    for key in [
        "version",
        "groupKey",
        "truncatedAlerts",
        "status",
        "receiver",
        "groupLabels",
        "commonLabels",
        "commonAnnotations",
        "externalURL",
        "alerts",
    ] {
        assert!(!message[key].is_null(), "{key} is missing");
    }
    assert_eq!(message["groupKey"], r#"{}:{alertname="EphemeralPortExhaustion", process="crawler"}"#);
    assert_eq!((&message["version"], &message["status"]), (&json!("4"), &json!("firing")));
    assert_eq!(message["groupLabels"], json!({ "alertname": "EphemeralPortExhaustion", "process": "crawler" }));
    let one = &message["alerts"][0];
    assert_eq!((&one["status"], &one["endsAt"]), (&json!("firing"), &json!("0001-01-01T00:00:00Z")));
    assert_eq!(one["labels"], message["commonLabels"], "there is one alert, so all of them have its labels");
    let told = batch(Style::Grouped { wait: Duration::ZERO }, &[(Change::Fired, alert()), (Change::Resolved, over())]);
    let message = webhook::message(&told, "webhook/chat", &group_by, at(200), &context).unwrap();
    let message = serde_json::to_value(message).unwrap();
    assert_eq!(
        (&message["status"], &message["alerts"][0]["endsAt"]),
        (&json!("resolved"), &json!(at(100).to_string()))
    );
    assert!(webhook::message(&Batch::default(), "x", &group_by, at(0), &context).is_none());
}

#[test]
fn the_journal_gets_one_line_with_a_priority_where_that_is_understood() {
    let context = context();
    let told = step(&[(Change::Fired, alert())]);
    assert_eq!(
        journal::text(&told, true, &context),
        "<2>alert firing: critical EphemeralPortExhaustion: crawler[19688] cannot connect to 10.0.0.5:6379: no ephemeral \
         port is free towards it; connect() to 10.0.0.5:6379 failed 16 times with EADDRNOTAVAIL; remedy: keep connections \
         open and use them again; see https://wiki.example/firstfin/docs/findings.md#ephemeralportexhaustion\n"
    );
    let mut ended = over();
    ended.finding.summary = "line\nfeed\u{1b}[2J".to_owned();
    let ended = step(&[(Change::Fired, alert()), (Change::Resolved, ended)]);
    assert_eq!(
        journal::text(&ended, true, &context),
        "<5>alert resolved since 2026-05-09T03:01:40.000Z: EphemeralPortExhaustion: line feed [2J\n"
    );
    assert!(journal::text(&ended, false, &context).starts_with("alert resolved"));
}

#[test]
fn moments_are_in_the_order_that_alertmanager_asks_for() {
    let mut alert = over();
    alert.started_at = at(500);
    let style = Style::Lease { resend: Duration::from_secs(60) };
    let told = batch(style, &[(Change::Fired, alert.clone()), (Change::Resolved, alert)]);
    let body = alertmanager::body(&told, at(120), Duration::from_secs(240), &context());
    let body = serde_json::to_value(body).unwrap();
    let moment = |key: &str| serde_json::from_value::<Moment>(body[0][key].clone()).unwrap();
    assert!(moment("startsAt") <= moment("endsAt"));
}
