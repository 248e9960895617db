//! More than it was made for: whether firstfin stays small, counts what it could not keep, and still reports.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    measure::{Churn, Events},
    namespace::{Load, Purpose},
    process,
    subject::Subject,
};

/// The smallest ring there is: twenty records, where a processor makes tens of thousands a second.
const RING: &str = "4KiB";
const CHURN: Duration = Duration::from_secs(5);
/// Of each of the two halves of the scan.
pub(super) const DESTINATIONS: u64 = 500_000;

pub(super) struct Overload {
    /// A ring too small for the load
    pub(super) small_ring: Strain,
    /// A million destinations, all refused
    pub(super) scan: Strain,
}

/// What became of a session.
pub(super) struct Strain {
    /// Connections made, or tried
    pub(super) made: u64,
    /// Before the load, amid it, and after it, MiB
    pub(super) rss_mib: [f64; 3],
    pub(super) peak_mib: f64,
    pub(super) events: Events,
    /// The report has the finding `EventsLost`
    pub(super) says_so: bool,
    /// From Ctrl-C to the end of the report
    pub(super) report_took: Duration,
}

impl Overload {
    pub(super) fn measure(results: &Path) -> Result<Self> {
        let churn = || Churn::run(CHURN).map(|churn| churn.connections as u64);
        let scan = || {
            let destinations = DESTINATIONS.to_string();
            // Each half in a namespace of its own, so that the same addresses are other destinations.
            let mut scan = Load::start(Purpose::Churn, &["scan", "--destinations", &destinations, "--seconds", "60"])?;
            scan.made().map(|(tried, _)| tried)
        };
        Ok(Self {
            small_ring: Strain::measure("overload-ring", &["--ring-size", RING], results, churn)?,
            scan: Strain::measure("overload-scan", &[], results, scan)?,
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({"small_ring": self.small_ring.json(), "scan": self.scan.json()})
    }
}

impl Strain {
    /// Twice the same load, so that what grows with it is told apart from what is full.
    fn measure(name: &str, options: &[&str], results: &Path, load: impl Fn() -> Result<u64>) -> Result<Self> {
        let subject = Subject::report(name, options, results)?;
        let running = subject.begin()?;
        let pid = running.pid().context("firstfin has no process")?;
        let rss = || process::rss_mib(pid).context("firstfin has ended by itself");
        let before = rss()?;
        let first = load()?;
        let amid = rss()?;
        let second = load()?;
        let after = rss()?;
        let peak = process::peak_mib(pid).unwrap_or_default();
        let ended = running.end()?;
        let said = subject.said();
        let events = Events::of(&said).context("the report has no events")?;
        let strain = Self {
            made: first + second,
            rss_mib: [before, amid, after],
            peak_mib: peak.max(ended.peak_mib),
            events,
            says_so: has_finding(&said, "EventsLost"),
            report_took: ended.took,
        };
        eprintln!(
            "{name}: {} connections: RSS {before:.1} MiB before, {amid:.1} amid, {after:.1} after, {:.1} at most; {} records \
             received, {} lost, {} not kept; report after {} ms",
            strain.made,
            strain.peak_mib,
            events.received,
            events.lost,
            events.evicted,
            strain.report_took.as_millis()
        );
        Ok(strain)
    }

    /// MiB that the second half of the load added.
    pub(super) fn growth_mib(&self) -> f64 {
        let [_, amid, after] = self.rss_mib;
        after - amid
    }

    fn json(&self) -> Value {
        let [before, amid, after] = self.rss_mib;
        json!({
            "connections": self.made,
            "rss_before_mib": before,
            "rss_amid_mib": amid,
            "rss_after_mib": after,
            "peak_mib": self.peak_mib,
            "records_received": self.events.received,
            "records_lost": self.events.lost,
            "not_kept": self.events.evicted,
            "report_ms": self.report_took.as_secs_f64() * 1e3,
        })
    }
}

fn has_finding(said: &str, id: &str) -> bool {
    let Ok(report) = serde_json::from_str::<Value>(said) else { return false };
    let findings = report.pointer("/findings").and_then(Value::as_array);
    findings
        .is_some_and(|findings| findings.iter().any(|finding| finding.get("id").and_then(Value::as_str) == Some(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_known_by_their_id() {
        let said = r#"{"findings":[{"id":"PortReuse"},{"id":"EventsLost"}]}"#;
        assert!(has_finding(said, "EventsLost") && !has_finding(said, "HardClose"));
        assert!(!has_finding("", "EventsLost") && !has_finding("{}", "EventsLost"));
    }
}
