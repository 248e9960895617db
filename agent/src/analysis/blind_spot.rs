//! BlindSpot: something a session could not look at, so that "nothing found" may mean "not seen".

use super::counted;
use crate::report::{Finding, Report, Severity};

pub(super) const ID: &str = "BlindSpot";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let spots = &report.session.blind_spots;
    if spots.is_empty() {
        return Vec::new();
    }
    let things = counted(spots.len() as u64, "thing", "things");
    vec![Finding {
        id: ID.to_owned(),
        severity: Severity::Info,
        summary: format!(
            "{things} could not be looked at: that nothing was found there does not mean that all is well"
        ),
        cause: "a capability, a kernel option or the time for it was missing, or a namespace or process went away"
            .to_owned(),
        evidence: spots.clone(),
        remedy: vec!["firstfin doctor says what this host allows and what would allow more".to_owned()],
        ..Finding::default()
    }]
}
