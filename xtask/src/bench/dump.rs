//! What a look at 100,000 timewait sockets costs next to receiving the same answer of the kernel and throwing it away.
//!
//! It needs the agent's library, so it is a bench of the agent: `agent/benches/dump.rs`. Its rounds are read here.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{agent, measure::Spread, table};

pub(super) struct Dump {
    raw_ms: Spread,
    joined_ms: Spread,
    report_ms: Spread,
    /// A census, and whose each of its sockets is / raw
    pub(super) ratio: Spread,
}

impl Dump {
    pub(super) fn measure() -> Result<Self> {
        Self::of(&agent::bench("dump")?)
    }

    fn of(said: &str) -> Result<Self> {
        let rounds: Vec<[f64; 3]> = said.lines().filter_map(round).collect();
        ensure!(!rounds.is_empty(), "the bench of dumps measured nothing");
        let spread = |of: fn(&[f64; 3]) -> f64| Spread::of(rounds.iter().map(of)).context("no round");
        Ok(Self {
            raw_ms: spread(|[raw, ..]| *raw)?,
            joined_ms: spread(|[_, joined, _]| *joined)?,
            report_ms: spread(|[.., report]| *report)?,
            ratio: spread(|[raw, joined, _]| joined / raw)?,
        })
    }

    /// In words: what each of them took.
    pub(super) fn times(&self) -> String {
        let (raw, joined, report) = (self.raw_ms.median, self.joined_ms.median, self.report_ms.median);
        format!("raw {raw:.1} ms, joined {joined:.1} ms, a whole report {report:.1} ms")
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "raw_ms": table::spread(self.raw_ms),
            "joined_ms": table::spread(self.joined_ms),
            "census_and_report_ms": table::spread(self.report_ms),
            "ratio": table::spread(self.ratio),
        })
    }
}

/// A line of three numbers of milliseconds.
fn round(line: &str) -> Option<[f64; 3]> {
    let numbers: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
    numbers.ok()?.try_into().ok().filter(|[raw, ..]: &[f64; 3]| *raw > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_lines_of_three_numbers() {
        let dump = Dump::of("40.000 60.000 90.000\nwarning: 1 2\n50.000 100.000 110.000\n").expect("two rounds");
        assert_eq!((dump.ratio.low, dump.ratio.high), (1.5, 2.0));
        assert_eq!(dump.times(), "raw 45.0 ms, joined 80.0 ms, a whole report 100.0 ms");
        assert!(Dump::of("dump: not measured").is_err());
    }
}
