//! A line in the journal.

use super::{Context, documentation, line, severity};
use crate::{
    alert::queue::{Step, StepKind},
    report::Severity,
};

/// The line for a step, with its end. `has_priority`: what reads it understands the `<N>` of sd-daemon(3).
#[must_use]
pub fn text(step: &Step, has_priority: bool, context: &Context) -> String {
    let alert = &step.alert;
    let resolves = step.kind == StepKind::Resolve;
    // LOG_CRIT, LOG_WARNING, LOG_INFO; LOG_NOTICE for what is over.
    let priority = match alert.severity {
        _ if resolves => 5,
        Severity::Critical => 2,
        Severity::Warning => 4,
        Severity::Info => 6,
    };
    let mut text = if has_priority { format!("<{priority}>") } else { String::new() };
    let (kind, finding) = (&alert.identity.finding, &alert.finding);
    if resolves {
        let ended_at = alert.ended_at.map_or_else(String::new, |at| format!(" since {at}"));
        text.push_str(&format!("alert resolved{ended_at}: {kind}: {}\n", line(&finding.summary)));
        return text;
    }
    text.push_str(&format!("alert firing: {} {kind}: {}", severity(alert.severity), line(&finding.summary)));
    if let Some(evidence) = finding.evidence.first() {
        text.push_str(&format!("; {}", line(evidence)));
    }
    if let Some(remedy) = finding.remedy.first() {
        text.push_str(&format!("; remedy: {}", line(remedy)));
    }
    text.push_str(&format!("; see {}\n", documentation(alert, context)));
    text
}
