//! The findings of one round, one for each problem.

use std::collections::BTreeMap;

use super::{AlertId, Identity, OVERFLOW_ID};
use crate::report::{Finding, Severity};

/// Others of the same problem whose summary is kept.
const ALSO: usize = 3;

/// A problem as one round has it.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) identity: Identity,
    /// The worst finding of it
    pub(super) finding: Finding,
    pub(super) also: Vec<String>,
    pub(super) others: usize,
    /// Place in the report: what comes first is worse
    pub(super) rank: usize,
}

/// Puts findings of one problem together. `known_as`: the identity of one that is followed and is the same problem.
pub(super) fn merge(
    findings: &[Finding],
    minimum: Severity,
    known_as: impl Fn(&Identity) -> Option<Identity>,
) -> BTreeMap<AlertId, Sighting> {
    let mut seen = BTreeMap::<AlertId, Sighting>::new();
    let mut wanted: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity >= minimum)
        .enumerate()
        .map(|(rank, finding)| (rank, finding, Identity::of(finding)))
        .collect();
    // Those that know their place first: one that does not joins one that does, and never two of them.
    wanted.sort_by_key(|(rank, _, identity)| (!identity.knows_place(), *rank));
    for (rank, finding, identity) in wanted {
        let identity = known_as(&identity).unwrap_or(identity);
        let id = identity.id();
        let same = match seen.contains_key(&id) {
            true => seen.get_mut(&id),
            false => seen.values_mut().find(|it| it.identity.is_same_but_for_place(&identity)),
        };
        match same {
            Some(same) => same.add(finding),
            None => {
                let finding = finding.clone();
                seen.insert(id, Sighting { identity, finding, also: Vec::new(), others: 0, rank });
            }
        }
    }
    seen
}

impl Sighting {
    fn add(&mut self, finding: &Finding) {
        self.others += 1;
        let lesser = if finding.severity > self.finding.severity {
            std::mem::replace(&mut self.finding, finding.clone()).summary
        } else {
            finding.summary.clone()
        };
        if self.also.len() < ALSO {
            self.also.push(lesser);
        }
    }
}

/// That there are more problems than are followed, as a finding.
pub(super) fn overflow(identity: Identity, count: usize, left_out: &BTreeMap<String, usize>, limit: usize) -> Sighting {
    let by_kind: Vec<String> = left_out.iter().map(|(id, count)| format!("{count} {id}")).collect();
    let finding = Finding {
        id: OVERFLOW_ID.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "{count} more {} than the {limit} alerts that are allowed at a time: nobody is told of them",
            if count == 1 { "problem" } else { "problems" }
        ),
        evidence: vec![format!("left out in the last round: {}", by_kind.join(", "))],
        remedy: vec![
            "look at the report (firstfin report) for what they have in common".to_owned(),
            "or allow more (max_active), or fewer kinds (minimum_severity)".to_owned(),
        ],
        documentation: "docs/alerts.md#alertoverflow".to_owned(),
        ..Finding::default()
    };
    Sighting { identity, finding, also: Vec::new(), others: 0, rank: usize::MAX }
}
