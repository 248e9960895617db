//! The report for people: the verdict and the findings first, then what they rest on, last how far it can be trusted.
//!
//! Whoever reads it may have been woken for it. So it names the process in the first lines, says what to do next to
//! what is wrong, and does not spend a line on what is not there. The verdict stands once more at the very end, which
//! is what a terminal shows after a long report. The text is for people and may change; scripts use the JSON form.

pub(super) mod failures;
mod history;
mod layout;
pub(super) mod ports;
pub(super) mod session;
#[cfg(test)]
mod tests;
pub(super) mod time_wait;
mod what_if;
mod why;

use std::collections::BTreeSet;

use owo_colors::Style;

use self::layout::{Marks, Page};
pub use self::{history::history, what_if::what_if, why::why};
use super::words;
use crate::report::{Finding, Holder, Report, Severity};

/// How the report is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Columns of the terminal; none: nothing is wrapped, because a program may read it
    pub width: Option<u16>,
    /// Escape sequences for colours may be used
    pub colour: bool,
    /// How many entries of each list to show
    pub top: usize,
}

/// The report as text, ended by a newline.
#[must_use]
pub fn render(report: &Report, options: &Options) -> String {
    let mut page = Page::new(options.width, options.colour);
    let context = Context { top: options.top, with_netns: has_many_namespaces(report) };
    headline(&mut page, report);
    for finding in &report.findings {
        self::finding(&mut page, finding);
    }
    time_wait::render(&mut page, report, context);
    ports::render(&mut page, report, context);
    failures::render(&mut page, report, context);
    session::render(&mut page, report, context);
    if !report.findings.is_empty() {
        page.gap();
        verdict(&mut page, report);
    }
    page.into_text()
}

/// What has a port, as the report says it: `listener 0.0.0.0:80, nginx[812] (unit nginx.service)`.
#[must_use]
pub fn holder(holder: &Holder) -> String {
    failures::holder(holder, Context { top: 1, with_netns: false })
}

/// What every part needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// How many entries of each list to show
    pub(super) top: usize,
    /// There is more than one network namespace: it has to be said which one is meant
    pub(super) with_netns: bool,
}

impl Context {
    /// What is said after the shown part of a list, of which `omitted` were left out before.
    fn more(self, listed: usize, omitted: u64) -> Option<String> {
        let hidden = u64::try_from(listed.saturating_sub(self.top)).unwrap_or(u64::MAX).saturating_add(omitted);
        (hidden > 0).then(|| format!("and {hidden} more"))
    }
}

pub(super) fn has_many_namespaces(report: &Report) -> bool {
    let time_wait = report.time_wait.namespaces.iter().map(|it| it.netns);
    let binds = report.bind_failures.iter().map(|it| it.netns);
    let connects = report.connect_failures.iter().map(|it| it.netns);
    let resets = report.resets.iter().map(|it| it.netns);
    let all: BTreeSet<_> = time_wait.chain(binds).chain(connects).chain(resets).collect();
    all.len() > 1
}

fn headline(page: &mut Page, report: &Report) {
    let host = &report.host;
    let session = &report.session;
    let title = format!("firstfin {}", host.version);
    let rest = format!(
        " on {}, Linux {}: {:.1} s from {}{}",
        host.name,
        host.kernel,
        session.duration_s,
        session.started_at,
        if session.interrupted { ", ended early" } else { "" },
    );
    page.styled(&title, Style::new().bold(), &rest);
    verdict(page, report);
}

fn verdict(page: &mut Page, report: &Report) {
    let Some(worst) = report.findings.iter().map(|finding| finding.severity).max() else {
        let limits = if session::is_complete(report) { "" } else { ", but not everything could be seen: see Session" };
        page.styled("Verdict: no findings", Style::new().bold().green(), &format!("{limits}."));
        return;
    };
    page.styled("Verdict:", style(worst), &format!(" {}.", found(report)));
}

/// `1 critical (BindConflict), 2 warning (HardClose)`; empty if nothing was found.
pub(super) fn found(report: &Report) -> String {
    let parts: Vec<_> = [Severity::Critical, Severity::Warning, Severity::Info]
        .into_iter()
        .filter_map(|severity| {
            let ids: Vec<_> =
                report.findings.iter().filter(|it| it.severity == severity).map(|it| it.id.as_str()).collect();
            let names: BTreeSet<_> = ids.iter().copied().collect();
            let names: Vec<_> = names.into_iter().collect();
            (!ids.is_empty()).then(|| format!("{} {} ({})", ids.len(), words::severity(severity), names.join(", ")))
        })
        .collect();
    parts.join(", ")
}

fn finding(page: &mut Page, finding: &Finding) {
    page.gap();
    page.styled(
        &words::severity(finding.severity).to_uppercase(),
        style(finding.severity),
        &format!("  {}", finding.id),
    );
    page.paragraph(&finding.summary);
    if !finding.cause.is_empty() {
        page.labelled("why", LABEL, &finding.cause);
    }
    page.list("evidence", LABEL, &finding.evidence, Marks::Dashes);
    page.list("remedy", LABEL, &finding.remedy, Marks::Numbers);
    page.list("not", LABEL, &finding.avoid, Marks::Dashes);
}

/// Width of `evidence`, the longest label.
const LABEL: u16 = 8;

const fn style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => Style::new().bold().red(),
        Severity::Warning => Style::new().bold().yellow(),
        Severity::Info => Style::new().bold().cyan(),
    }
}
