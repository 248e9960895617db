//! `firstfin history` as text: findings first, then who, where to, and what failed; last what was not recorded.

mod lists;

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use owo_colors::Style;

use self::lists::{destinations, failures, minutes, processes, routes};
use super::{
    Context, LABEL, Options,
    layout::{Marks, Page},
    style,
};
use crate::{
    history::{Answer, At, EpisodeState, PastFinding, Period},
    output::words,
};

/// The answer, for people, in their own time zone.
#[must_use]
pub fn history(answer: &Answer, destinations_first: bool, zone: &TimeZone, options: &Options) -> String {
    let mut page = Page::new(options.width, options.colour);
    let times = Times::of(&answer.period, zone);
    let context = Context { top: options.top, with_netns: has_many_namespaces(answer) };
    headline(&mut page, answer, &times);
    for finding in &answer.findings {
        self::finding(&mut page, finding, &times);
    }
    if answer.findings_omitted > 0 {
        page.paragraph(&format!("and {} more findings", answer.findings_omitted));
    }
    minutes(&mut page, answer, &times);
    if destinations_first {
        destinations(&mut page, answer, &times);
        processes(&mut page, answer, &times);
    } else {
        processes(&mut page, answer, &times);
        destinations(&mut page, answer, &times);
    }
    routes(&mut page, answer, &times, context);
    failures(&mut page, answer, &times, context);
    recording(&mut page, answer, &times);
    page.into_text()
}

/// Times of day, with the date where the period is of more than one day.
struct Times<'zone> {
    zone: &'zone TimeZone,
    with_date: bool,
}

impl<'zone> Times<'zone> {
    fn of(period: &Period, zone: &'zone TimeZone) -> Self {
        let date = |at: At| at.0.to_zoned(zone.clone()).date();
        Self { zone, with_date: date(period.since) != date(period.until) }
    }

    fn format(&self, at: At, format: &str) -> String {
        at.0.to_zoned(self.zone.clone()).strftime(format).to_string()
    }

    fn minute(&self, at: At) -> String {
        self.format(at, if self.with_date { "%Y-%m-%d %H:%M" } else { "%H:%M" })
    }

    fn second(&self, at: At) -> String {
        self.format(at, if self.with_date { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S" })
    }

    /// From one time to another, without the date of the second one where it is the same.
    fn range(&self, since: At, until: At) -> String {
        let day = |at| self.format(at, "%Y-%m-%d");
        let until = if day(since) == day(until) { self.format(until, "%H:%M:%S") } else { self.second(until) };
        format!("{} to {until}", self.second(since))
    }
}

fn headline(page: &mut Page, answer: &Answer, times: &Times<'_>) {
    let period = &answer.period;
    let hosts: BTreeSet<_> = answer.hosts.iter().map(|it| it.host.as_str()).filter(|host| !host.is_empty()).collect();
    let hosts: Vec<_> = hosts.into_iter().collect();
    let of = if hosts.is_empty() { String::new() } else { format!(" of {}", hosts.join(", ")) };
    let (since, until) = (times.format(period.since, "%Y-%m-%d %H:%M:%S"), times.format(period.until, "%H:%M:%S %Z"));
    let until = if times.with_date { times.format(period.until, "%Y-%m-%d %H:%M:%S %Z") } else { until };
    let recorded = match period.recorded {
        0 => "nothing recorded".to_owned(),
        1 => "1 minute recorded".to_owned(),
        many => format!("{many} minutes recorded"),
    };
    page.styled("firstfin history", Style::new().bold(), &format!("{of}: {since} to {until}, {recorded}"));
    let Some(sum) = &answer.time_wait else {
        nothing(page, answer, times);
        return;
    };
    page.styled(
        "TIME_WAIT:",
        Style::new().bold(),
        &format!(
            " at most {} timewait sockets, at {}; {} connections entered",
            sum.peak,
            times.minute(sum.peak_at),
            sum.entered
        ),
    );
    if sum.overflowed > 0 {
        page.paragraph(&format!(
            "{} connections got no timewait socket: tcp_max_tw_buckets was reached",
            sum.overflowed
        ));
    }
    let Some(worst) = answer.findings.first() else {
        let gaps = if period.gaps.is_empty() { "" } else { ", but not all of the time was recorded: see Recording" };
        page.styled("Verdict: no findings", Style::new().bold().green(), &format!("{gaps}."));
        return;
    };
    let ids: BTreeSet<_> = answer.findings.iter().map(|it| it.finding.id.as_str()).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let count = u64::try_from(answer.findings.len()).unwrap_or(u64::MAX).saturating_add(answer.findings_omitted);
    page.styled(
        "Verdict:",
        style(worst.finding.severity),
        &format!(
            " {}, the worst {} ({}).",
            words::count(count, "finding"),
            words::severity(worst.finding.severity),
            ids.join(", ")
        ),
    );
}

/// Nothing was recorded: what there is instead.
fn nothing(page: &mut Page, answer: &Answer, times: &Times<'_>) {
    let full = |at| times.format(at, "%Y-%m-%d %H:%M %Z");
    page.paragraph(&match (answer.period.oldest, answer.period.newest) {
        (Some(oldest), Some(newest)) => {
            format!(
                "Nothing is known of this period. What the history has is from {} to {}.",
                full(oldest),
                full(newest)
            )
        }
        _ => "The history is empty: nothing was written yet. The first minute is, when the next one begins.".to_owned(),
    });
}

fn finding(page: &mut Page, past: &PastFinding, times: &Times<'_>) {
    let finding = &past.finding;
    page.gap();
    let state = match past.state {
        EpisodeState::Open => ", and still there",
        EpisodeState::Over => "",
        EpisodeState::CutOff => ", when the recording ended",
    };
    page.styled(
        &words::severity(finding.severity).to_uppercase(),
        style(finding.severity),
        &format!("  {}  {}{state}", finding.id, times.range(past.opened, past.last_seen)),
    );
    page.paragraph(&finding.summary);
    page.labelled("worst at", LABEL, &times.second(past.worst_at));
    if !finding.cause.is_empty() {
        page.labelled("why", LABEL, &finding.cause);
    }
    page.list("evidence", LABEL, &finding.evidence, Marks::Dashes);
    page.list("remedy", LABEL, &finding.remedy, Marks::Numbers);
    page.list("not", LABEL, &finding.avoid, Marks::Dashes);
}
/// What was not recorded, and what is not known of what was.
fn recording(page: &mut Page, answer: &Answer, times: &Times<'_>) {
    let period = &answer.period;
    let mut lines = Vec::new();
    if let Some(sum) = &answer.time_wait {
        let gaps: Vec<_> = period.gaps.iter().map(|gap| times.range(gap.since, gap.until)).collect();
        if !gaps.is_empty() {
            let more = match period.gaps_omitted {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            lines.push(format!("nothing was recorded {}{more}", gaps.join(", ")));
        }
        if sum.unattributed > 0 {
            lines.push(format!(
                "up to {} timewait sockets had no owner, at {}",
                sum.unattributed,
                times.minute(sum.unattributed_at)
            ));
        }
        if sum.events_lost + sum.not_followed > 0 {
            lines.push(format!(
                "{} events were lost, {} were not understood or found no room",
                sum.events_lost, sum.not_followed
            ));
        }
    }
    for jump in &period.clock_jumps {
        let way = if jump.seconds < 0 { "back" } else { "forth" };
        lines.push(format!("the clock was set {way} by {} s, at {}", jump.seconds.abs(), times.second(jump.to)));
    }
    for later in answer.hosts.iter().skip(1) {
        lines.push(format!(
            "from {} on: another boot or version ({}, Linux {}, firstfin {})",
            times.minute(later.first),
            later.host,
            later.kernel,
            later.version
        ));
    }
    if !lines.is_empty() {
        page.section("Recording", "");
        lines.iter().for_each(|line| page.paragraph(line));
    }
}

fn has_many_namespaces(answer: &Answer) -> bool {
    let routes = answer.routes.iter().map(|it| it.netns);
    let all: BTreeSet<_> = routes.chain(answer.failures.iter().map(|it| it.netns)).collect();
    all.len() > 1
}
