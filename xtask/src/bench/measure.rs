//! One run of the load, alone and with something attached; and what comes out of many.

use std::{fmt, fs, thread, time::Duration};

use anyhow::Result;

use super::{
    namespace::{Load, Purpose},
    process::{cpu_ms, field, peak_mib, programs_of},
    statistics::Statistics,
    subject::{Running, Subject},
};

/// What a run of the load came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Churn {
    pub(super) connections: f64,
    pub(super) seconds: f64,
}

impl Churn {
    pub(super) fn rate(self) -> f64 {
        self.connections / self.seconds
    }

    pub(super) fn run(duration: Duration) -> Result<Self> {
        Self::run_with(duration, &[])
    }

    /// `options`: of the load.
    pub(super) fn run_with(duration: Duration, options: &[&str]) -> Result<Self> {
        let seconds = duration.as_secs().to_string();
        let mut load = Load::start(Purpose::Churn, &[&["load", "--seconds", &seconds], options].concat())?;
        let (connections, seconds) = load.made()?;
        Ok(Self { connections: connections as f64, seconds })
    }
}

/// What firstfin says of a run itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Events {
    pub(super) received: u64,
    pub(super) lost: u64,
    /// What found no room in the agent's own tables
    pub(super) evicted: u64,
    pub(super) bytes: u64,
}

impl Events {
    /// The numbers of a report's `session.events`; none of what is no report.
    pub(super) fn of(said: &str) -> Option<Self> {
        let report: serde_json::Value = serde_json::from_str(said).ok()?;
        let number = |name: &str| report.pointer(&format!("/session/events/{name}"))?.as_u64();
        Some(Self {
            received: number("received")?,
            lost: number("lost")?,
            evicted: number("evicted")?,
            bytes: number("bytes")?,
        })
    }
}

/// A run with something attached, and one without right after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) with: Churn,
    pub(super) without: Churn,
    /// CPU time of the process while the load ran, in milliseconds; none for what has no process
    cpu_ms: Option<f64>,
    /// The most memory it had, in MiB
    rss_mib: Option<f64>,
    events: Option<Events>,
}

impl Pair {
    pub(super) fn run(subject: &Subject, duration: Duration) -> Result<Self> {
        let running = subject.begin()?;
        let pid = running.pid();
        let before = pid.and_then(cpu_ms);
        let with = Churn::run_with(duration, subject.load);
        let cpu_ms = pid.and_then(cpu_ms).zip(before).map(|(after, before)| after - before);
        let rss_mib = pid.and_then(peak_mib);
        running.end()?;
        let events = if subject.is_ours { Events::of(&subject.said()) } else { None };
        let without = Churn::run_with(duration, subject.load)?;
        Ok(Self { with: with?, without, cpu_ms, rss_mib, events })
    }

    pub(super) fn ratio(&self) -> f64 {
        self.with.rate() / self.without.rate()
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.0} of {:.0} connections a second)", self.ratio(), self.with.rate(), self.without.rate())
    }
}

/// The median of some numbers, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// None of none.
    pub(super) fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        let (low, high) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let upper = *numbers.get(middle)?;
        let lower = if numbers.len().is_multiple_of(2) { *numbers.get(middle - 1)? } else { upper };
        Some(Self { median: f64::midpoint(lower, upper), low, high })
    }
}

/// What many pairs say of a subject.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) is_ours: bool,
    pub(super) ratio: Spread,
    /// Connections a second with it attached
    pub(super) rate: Spread,
    /// CPU time of its process for 10,000 connections, milliseconds
    pub(super) cpu_ms: Option<Spread>,
    pub(super) rss_mib: Option<Spread>,
    /// Time in its eBPF programs for one connection, nanoseconds, by the kernel's own statistics
    pub(super) in_kernel_ns: Option<f64>,
    /// Of all runs together
    pub(super) lost: Option<u64>,
    pub(super) bytes: Option<Spread>,
}

impl Measured {
    pub(super) fn of(subject: &Subject, pairs: &[Pair], in_kernel_ns: Option<f64>) -> Option<Self> {
        let per_connection = |pair: &Pair, number: f64| number / pair.with.connections;
        let events: Vec<(&Pair, Events)> = pairs.iter().filter_map(|pair| Some((pair, pair.events?))).collect();
        Some(Self {
            name: subject.name.clone(),
            is_ours: subject.is_ours,
            ratio: Spread::of(pairs.iter().map(Pair::ratio))?,
            rate: Spread::of(pairs.iter().map(|pair| pair.with.rate()))?,
            cpu_ms: Spread::of(pairs.iter().filter_map(|pair| Some(per_connection(pair, pair.cpu_ms?) * 10_000.0))),
            rss_mib: Spread::of(pairs.iter().filter_map(|pair| pair.rss_mib)),
            in_kernel_ns,
            lost: (!events.is_empty()).then(|| events.iter().map(|(_, events)| events.lost).sum()),
            bytes: Spread::of(events.iter().map(|(pair, events)| per_connection(pair, events.bytes as f64))),
        })
    }
}

/// Time in the eBPF programs of a subject for one connection. The kernel's own clock costs as well, so it runs in a round of
/// its own, which is in no ratio.
pub(super) fn in_kernel(subject: &Subject, duration: Duration) -> Result<Option<f64>> {
    let _statistics = Statistics::on()?;
    let running: Running = subject.begin()?;
    let pid = running.pid().unwrap_or_else(std::process::id);
    let spent = || -> u64 {
        let programs = programs_of(pid);
        programs.iter().filter_map(|info| field(info, "run_time_ns:")).sum()
    };
    let before = spent();
    let churn = Churn::run_with(duration, subject.load);
    let after = spent();
    running.end()?;
    let connections = churn?.connections;
    Ok((after > before).then(|| (after - before) as f64 / connections))
}

/// What this was measured on.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let release = read("/proc/sys/kernel/osrelease");
    format!("{} ({processors} CPUs), Linux {}", model.unwrap_or("unknown processor"), release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |numbers: &[f64]| Spread::of(numbers.iter().copied()).map(|it| (it.low, it.median, it.high));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some((1.0, 2.0, 9.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), Some((1.0, 3.0, 9.0)));
    }

    #[test]
    fn events_are_found_in_a_report() {
        let said = r#"{"session":{"events":{"received":7,"lost":0,"evicted":2,"bytes":1400}}}"#;
        assert!(Events::of(said).is_some_and(|it| (it.received, it.lost, it.evicted, it.bytes) == (7, 0, 2, 1_400)));
        assert!(Events::of("Verdict: no findings").is_none());
    }
}
