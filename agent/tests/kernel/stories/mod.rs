//! What people are woken for. Each story runs the real thing, and the report has to name the process, the cause and what
//! helps; where a port cannot be had, `firstfin why` says the same while it goes on.

mod binds;
mod connections;

use firstfin::{
    model::Name,
    report::{Finding, Report},
};
use libtest_mimic::{Failed, Trial};

use crate::actor::Fork;

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = binds::tests();
    tests.extend(connections::tests());
    tests
}

/// The finding of this kind about a process.
fn finding<'a>(report: &'a Report, id: &str, who: &Fork) -> Result<&'a Finding, Failed> {
    let is_its = |finding: &&Finding| {
        let process = finding.process.as_ref().map(|process| (process.pid, &process.comm));
        finding.id == id && process == Some((who.key.tgid, &who.comm as &Name))
    };
    let found = report.findings.iter().find(is_its);
    found.ok_or_else(|| format!("no {id} of {who:?}: {:#?}", report.findings).into())
}
