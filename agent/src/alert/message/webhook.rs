//! The webhook of Alertmanager, version 4, so that whatever takes its messages takes these.

use serde::Serialize;

use super::{Context, Words, annotations, documentation, fingerprint, labels};
use crate::alert::{
    moment::Moment,
    queue::{Batch, StepKind},
    rules::Alert,
};

/// What Alertmanager writes for a time that is not there.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A message: the alerts of one group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: usize,
    status: Status,
    receiver: &'a str,
    group_labels: Words,
    common_labels: Words,
    common_annotations: Words,
    /// This has no page of its own
    #[serde(rename = "externalURL")]
    external: &'static str,
    alerts: Vec<GroupedAlert>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Firing,
    Resolved,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupedAlert {
    status: Status,
    labels: Words,
    annotations: Words,
    starts_at: Moment,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator: String,
    fingerprint: String,
}

/// Names the group an alert belongs to, in the way Alertmanager does: `{}:{alertname="BindConflict"}`.
#[must_use]
pub fn group_key(alert: &Alert, group_by: &[String], context: &Context) -> String {
    let grouped = group_labels(&labels(&alert.identity, alert.severity, context), group_by);
    let pairs: Vec<String> = grouped.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{}}:{{{}}}", pairs.join(", "))
}

fn group_labels(labels: &Words, group_by: &[String]) -> Words {
    let grouped = labels.iter().filter(|(name, _)| group_by.contains(name));
    grouped.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The message for a batch, all of one group. None: there is nothing in it.
#[must_use]
pub fn message<'a>(
    batch: &Batch,
    receiver: &'a str,
    group_by: &[String],
    now: Moment,
    context: &Context,
) -> Option<Message<'a>> {
    let first = batch.steps.first()?;
    let told = batch.steps.iter().map(|step| match step.kind {
        StepKind::Resolve => one(&step.alert, Status::Resolved, now, context),
        StepKind::Fire | StepKind::Renew => one(&step.alert, Status::Firing, now, context),
    });
    let others = batch.others.iter().map(|alert| one(alert, Status::Firing, now, context));
    let alerts: Vec<GroupedAlert> = told.chain(others).collect();
    let is_firing = alerts.iter().any(|alert| alert.status == Status::Firing);
    Some(Message {
        version: "4",
        group_key: group_key(&first.alert, group_by, context),
        truncated_alerts: batch.left_out,
        status: if is_firing { Status::Firing } else { Status::Resolved },
        receiver,
        group_labels: alerts.first().map(|alert| group_labels(&alert.labels, group_by)).unwrap_or_default(),
        common_labels: common(alerts.iter().map(|alert| &alert.labels)),
        common_annotations: common(alerts.iter().map(|alert| &alert.annotations)),
        external: "",
        alerts,
    })
}

fn one(alert: &Alert, status: Status, now: Moment, context: &Context) -> GroupedAlert {
    let ends_at = match status {
        Status::Firing => NO_TIME.to_owned(),
        Status::Resolved => alert.ended_at.unwrap_or(now).to_string(),
    };
    GroupedAlert {
        status,
        labels: labels(&alert.identity, alert.severity, context),
        annotations: annotations(alert, context),
        starts_at: alert.started_at,
        ends_at,
        generator: documentation(alert, context),
        fingerprint: fingerprint(&alert.identity, context),
    }
}

/// The words that all have.
fn common<'a>(mut all: impl Iterator<Item = &'a Words>) -> Words {
    let mut common = all.next().cloned().unwrap_or_default();
    for words in all {
        common.retain(|name, value| words.get(name) == Some(value));
    }
    common
}
