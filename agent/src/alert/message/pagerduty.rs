//! PagerDuty's Events API v2: one event at a time.

use serde::Serialize;

use super::{Context, documentation, fingerprint, labels, line, severity, shortened};
use crate::alert::{
    moment::Moment,
    queue::{Step, StepKind},
    rules::Alert,
    secret::Secret,
};

/// Longest summary PagerDuty takes, in characters.
const SUMMARY: usize = 1024;

/// An event.
#[derive(Serialize)]
pub struct Event<'a> {
    routing_key: &'a str,
    event_action: &'static str,
    /// At most 255 characters; the same for all events of an alert
    dedup_key: String,
    /// None for one that is over
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
    client: &'static str,
}

#[derive(Serialize)]
struct Payload<'a> {
    summary: String,
    source: &'a str,
    severity: &'static str,
    timestamp: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    class: &'a str,
    custom_details: Details,
}

#[derive(Serialize)]
struct Details {
    labels: super::Words,
    #[serde(skip_serializing_if = "String::is_empty")]
    cause: String,
    evidence: Vec<String>,
    remedy: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    avoid: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    documentation: String,
}

#[derive(Serialize)]
struct Link {
    href: String,
    text: &'static str,
}

/// The event for a step.
#[must_use]
pub fn event<'a>(step: &'a Step, key: &'a Secret, context: &'a Context) -> Event<'a> {
    let alert = &*step.alert;
    let resolves = step.kind == StepKind::Resolve;
    let documentation = documentation(alert, context);
    let links = match documentation.starts_with("http") && !resolves {
        true => vec![Link { href: documentation.clone(), text: "what this is, and what to do" }],
        false => Vec::new(),
    };
    Event {
        routing_key: key.expose(),
        event_action: if resolves { "resolve" } else { "trigger" },
        dedup_key: format!("firstfin-{}", fingerprint(&alert.identity, context)),
        payload: (!resolves).then(|| payload(alert, documentation, context)),
        links,
        client: "firstfin",
    }
}

fn payload<'a>(alert: &'a Alert, documentation: String, context: &'a Context) -> Payload<'a> {
    let finding = &alert.finding;
    let identity = &alert.identity;
    let lines = |lines: &[String]| lines.iter().take(super::LINES).map(|text| line(text)).collect();
    let place = identity.container.as_ref().or(identity.unit.as_ref());
    Payload {
        summary: shortened(&format!("{}: {}", context.host, line(&finding.summary)), SUMMARY),
        source: if context.host.is_empty() { "unknown host" } else { &context.host },
        // PagerDuty has these three words, too, and `error`.
        severity: severity(alert.severity),
        timestamp: alert.started_at,
        component: identity.process.as_ref().map(|name| name.as_str().to_owned()),
        group: place.map(|name| name.as_str().to_owned()),
        class: &identity.finding,
        custom_details: Details {
            labels: labels(identity, alert.severity, context),
            cause: line(&finding.cause),
            evidence: lines(&finding.evidence),
            remedy: lines(&finding.remedy),
            avoid: lines(&finding.avoid),
            also: super::also(alert),
            pid: finding.process.as_ref().map(|process| process.pid),
            documentation,
        },
    }
}
