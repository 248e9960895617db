//! Alertmanager's API v2: an array of alerts, those that fire with a lease.
//!
//! An alert that fires ends in the future, four resend intervals on: a host that dies leaves no alert behind for ever. One
//! that is over ends in the past.

use std::time::Duration;

use serde::Serialize;

use super::{Context, Words, annotations, documentation, labels};
use crate::alert::{
    moment::Moment,
    queue::{Batch, Step, StepKind},
    rules::Alert,
};

/// Where alerts are posted, below the address of an Alertmanager.
pub const PATH: &str = "api/v2/alerts";

/// An alert as Alertmanager takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PostedAlert {
    labels: Words,
    annotations: Words,
    starts_at: Moment,
    ends_at: Moment,
    /// Alertmanager takes nothing but addresses here
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator: Option<String>,
}

/// The body of a post.
#[must_use]
pub fn body(batch: &Batch, now: Moment, lease: Duration, context: &Context) -> Vec<PostedAlert> {
    batch.steps.iter().flat_map(|step| posted(step, now, lease, context)).collect()
}

fn posted(step: &Step, now: Moment, lease: Duration, context: &Context) -> Vec<PostedAlert> {
    let alert = &step.alert;
    let first_told = step.first_told.unwrap_or(now);
    // With another severity it is another alert to Alertmanager, and the one it knows has to end.
    let before =
        step.replaces.map(|told| one(alert, labels(&alert.identity, told, context), (first_told, now), context));
    let times = match step.kind {
        StepKind::Fire if step.replaces.is_some() => (now, now.plus(lease)),
        StepKind::Fire | StepKind::Renew => (first_told, now.plus(lease)),
        StepKind::Resolve => (first_told, alert.ended_at.map_or(now, |ended_at| ended_at.max(first_told).min(now))),
    };
    let this = one(alert, labels(&alert.identity, alert.severity, context), times, context);
    before.into_iter().chain([this]).collect()
}

fn one(alert: &Alert, labels: Words, (starts_at, ends_at): (Moment, Moment), context: &Context) -> PostedAlert {
    let link = documentation(alert, context);
    PostedAlert {
        labels,
        annotations: annotations(alert, context),
        // Clocks are set back now and then, and one that starts after its end is refused.
        starts_at: starts_at.min(ends_at),
        ends_at,
        generator: link.starts_with("http").then_some(link),
    }
}
