//! An alert -> labels, annotations, and the body that each kind of receiver takes.
//!
//! Labels say which problem it is and never change while it lasts (but for the severity); everything that changes, all
//! numbers among it, is an annotation.

pub mod alertmanager;
pub mod journal;
pub mod pagerduty;
pub mod webhook;

use std::collections::BTreeMap;

use super::{
    identity::{Identity, StableHash},
    rules::Alert,
};
use crate::{model::Name, report::Severity};

/// The labels alerts have by themselves.
pub const LABELS: [&str; 11] =
    ["alertname", "severity", "job", "instance", "process", "unit", "container", "pod_uid", "netns", "local", "remote"];

/// Value of the label `job`, the one that the rules of Prometheus have, too.
const JOB: &str = "firstfin";
/// Lines of evidence, causes and remedies that are sent; a finding has fewer.
const LINES: usize = 40;
/// Longest line that is sent, in characters.
const LINE: usize = 600;

/// What all messages of this process have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Host name
    pub host: String,
    /// Labels for every alert
    pub labels: BTreeMap<String, String>,
    /// Address before the path of the documentation
    pub documentation_url: Option<String>,
}

/// Text by name, sorted: labels or annotations.
pub type Words = BTreeMap<String, String>;

/// The word for a severity in every message.
#[must_use]
pub const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// Labels of an alert, as it is or was told with that severity. Labels without a value are left out.
#[must_use]
pub fn labels(identity: &Identity, told: Severity, context: &Context) -> Words {
    let name = |name: &Option<Name>| name.as_ref().map(|name| name.as_str().to_owned());
    let own = [
        ("alertname", Some(identity.finding.clone())),
        ("severity", Some(severity(told).to_owned())),
        ("job", Some(JOB.to_owned())),
        ("instance", Some(context.host.clone())),
        ("process", name(&identity.process)),
        ("unit", name(&identity.unit)),
        ("container", name(&identity.container)),
        ("pod_uid", name(&identity.pod_uid)),
        ("netns", identity.netns.map(|netns| netns.to_string())),
        ("local", identity.local.clone()),
        ("remote", identity.remote.clone()),
    ];
    debug_assert!(own.iter().map(|(name, _)| *name).eq(LABELS), "LABELS names them all");
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let given = context.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
    given.chain(own).filter(|(_, value)| !value.is_empty()).collect()
}

/// What is wrong in words, and what to do.
#[must_use]
pub fn annotations(alert: &Alert, context: &Context) -> Words {
    let finding = &alert.finding;
    let documentation = documentation(alert, context);
    let process = finding.process.as_ref();
    let exe = process.and_then(|process| process.exe.as_ref());
    let container = process.and_then(|process| process.container.as_ref());
    let name = |name: Option<&Name>| name.map(|name| line(name.as_str())).unwrap_or_default();
    let words = [
        ("summary", line(&finding.summary)),
        ("started_at", alert.started_at.to_string()),
        ("description", description(alert)),
        ("remedy", finding.remedy.first().map(|first| line(first)).unwrap_or_default()),
        ("avoid", joined(&finding.avoid, "; ")),
        ("runbook_url", context.documentation_url.as_ref().map(|_| documentation.clone()).unwrap_or_default()),
        ("documentation", documentation),
        ("pid", process.map(|process| process.pid.to_string()).unwrap_or_default()),
        ("exe", name(exe)),
        ("pod", name(container.and_then(|container| container.pod.as_ref()))),
        ("namespace", name(container.and_then(|container| container.namespace.as_ref()))),
    ];
    words.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), text)).collect()
}

/// Where this kind of finding is explained.
#[must_use]
pub fn documentation(alert: &Alert, context: &Context) -> String {
    let path = &alert.finding.documentation;
    match &context.documentation_url {
        Some(base) => format!("{}/{path}", base.trim_end_matches('/')),
        None => path.clone(),
    }
}

/// Names the alert of this host among those of all hosts: 32 hexadecimal digits.
#[must_use]
pub fn fingerprint(identity: &Identity, context: &Context) -> String {
    let mut hash = StableHash::default();
    hash.word(Some(&context.host));
    hash.word(Some(identity.id().as_str()));
    hash.digits()
}

/// The cause, the evidence line by line, and the others of the same problem.
fn description(alert: &Alert) -> String {
    let finding = &alert.finding;
    let mut lines: Vec<String> = Vec::new();
    if !finding.cause.is_empty() {
        lines.push(format!("why: {}", line(&finding.cause)));
    }
    lines.extend(finding.evidence.iter().take(LINES).map(|evidence| format!("- {}", line(evidence))));
    lines.extend(also(alert));
    lines.join("\n")
}

/// One line for each of the others that is known, and one for the rest.
fn also(alert: &Alert) -> Vec<String> {
    let mut lines: Vec<String> = alert.also.iter().map(|summary| format!("also: {}", line(summary))).collect();
    match alert.others.saturating_sub(alert.also.len()) {
        0 => {}
        more => lines.push(format!("and {more} more of the same process name")),
    }
    lines
}

fn joined(lines: &[String], between: &str) -> String {
    lines.iter().take(LINES).map(|text| line(text)).collect::<Vec<_>>().join(between)
}

/// On one line, and not too long.
fn line(text: &str) -> String {
    shortened(&text.replace(|c: char| c.is_control(), " "), LINE)
}

/// At most so many characters, the last of which say that there were more.
fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(longest.saturating_sub(3)).collect();
    short.push_str("...");
    short
}

#[cfg(test)]
pub(super) mod tests;
