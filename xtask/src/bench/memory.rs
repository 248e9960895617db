//! What a session of `firstfin report` needs by how many timewait sockets there are.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    measure::Events,
    namespace::{Load, Purpose},
    process,
    subject::Subject,
};

/// Timewait sockets of a session, in multiples of this one. All of them are made and looked at before the first one ends.
/// The budget is for so many.
pub(super) const BUDGETED: u64 = 131_072;
const STEPS: u64 = 3;
/// A session looks at all sockets every ten seconds. From the start of one until that is over.
const FIRST_CENSUS: Duration = Duration::from_secs(12);

pub(super) struct Memory(Vec<Point>);

/// A session in which so many entered TIME_WAIT, and were there to its end.
struct Point {
    live: u64,
    /// After a census, MiB
    rss_mib: f64,
    /// From the beginning to the end of the last report, MiB
    peak_mib: f64,
}

impl Memory {
    /// A session of its own for each number: what one has left over is no memory of the next.
    pub(super) fn measure(results: &Path) -> Result<Self> {
        let points: Result<_> = (1..=STEPS).map(|step| Point::measure(step * BUDGETED, results)).collect();
        points.map(Self)
    }

    /// RSS and peak with [`BUDGETED`] sockets, MiB.
    pub(super) fn budgeted(&self) -> Option<(f64, f64)> {
        self.0.iter().find(|point| point.live == BUDGETED).map(|point| (point.rss_mib, point.peak_mib))
    }

    /// Bytes for one socket more: by how much the peaks differ of the two sessions with the most sockets. The first one's is
    /// that of the start as a rule, when the kernel's types are read.
    pub(super) fn bytes_per_socket(&self) -> Option<f64> {
        let [.., fewer, more] = self.0.as_slice() else { return None };
        Some((more.peak_mib - fewer.peak_mib) * 1_048_576.0 / more.live.saturating_sub(fewer.live) as f64)
    }

    pub(super) fn json(&self) -> Value {
        let point = |it: &Point| json!({"live": it.live, "rss_mib": it.rss_mib, "peak_mib": it.peak_mib});
        json!({
            "sessions": self.0.iter().map(point).collect::<Vec<_>>(),
            "bytes_per_socket": self.bytes_per_socket(),
        })
    }
}

impl Point {
    fn measure(live: u64, results: &Path) -> Result<Self> {
        let subject = Subject::report("memory", &[], results)?;
        let running = subject.begin()?;
        let begun = Instant::now();
        let pid = running.pid().context("firstfin has no process")?;
        let connections = live.to_string();
        let arguments =
            ["load", "--connections", &connections, "--destinations", "16", "--seconds", "40", "--stay", "60"];
        let mut load = Load::start(Purpose::Stock, &arguments)?;
        let (made, _) = load.made()?;
        thread::sleep(FIRST_CENSUS.saturating_sub(begun.elapsed()));
        let rss_mib = process::rss_mib(pid).context("firstfin has ended by itself")?;
        let before = process::peak_mib(pid).unwrap_or_default();
        let ended = running.end()?;
        drop(load);
        let said = subject.said();
        let report: Value = serde_json::from_str(&said).context("read the report of the session")?;
        let total = report.pointer("/time_wait/total").and_then(Value::as_u64).unwrap_or_default();
        let unattributed = report.pointer("/time_wait/unattributed").and_then(Value::as_u64).unwrap_or_default();
        let lost = Events::of(&said).context("the report has no events")?.lost;
        // There are kernels that withhold a transition now and then.
        if total.saturating_sub(unattributed) < live - live / 100 {
            bail!(
                "{made} sockets entered TIME_WAIT, and firstfin knows of {total}, {unattributed} of them without an owner, \
                 {lost} records lost: its memory says nothing"
            );
        }
        let peak_mib = before.max(ended.peak_mib);
        eprintln!("memory: {live} timewait sockets: RSS {rss_mib:.1} MiB, {peak_mib:.1} MiB at most");
        Ok(Self { live, rss_mib, peak_mib })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_two_largest_sessions() {
        let point = |live, peak_mib| Point { live, rss_mib: 0.0, peak_mib };
        assert_eq!(Memory(vec![point(1 << 20, 5.0)]).bytes_per_socket(), None);
        let memory = Memory(vec![point(1 << 20, 50.0), point(2 << 20, 60.0), point(3 << 20, 100.0)]);
        assert_eq!(memory.bytes_per_socket(), Some(40.0));
    }
}
