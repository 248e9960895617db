//! Events a second of decode and state: the agent's bench `core` (`agent/benches/core.rs`), read from what divan prints. divan
//! has no form of its table for programs.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use super::agent;

pub(super) struct Core(Vec<Series>);

/// What varies in one of its benches, and the events a second for each number of it.
#[derive(Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) medians: Vec<(u64, f64)>,
}

impl Core {
    pub(super) fn measure() -> Result<Self> {
        Self::of(&agent::bench("core")?)
    }

    fn of(said: &str) -> Result<Self> {
        let series = read(said)?;
        ensure!(!series.is_empty(), "the bench of the core measured nothing, or divan prints it in another way");
        Ok(Self(series))
    }

    pub(super) fn series(&self) -> &[Series] {
        &self.0
    }

    pub(super) fn json(&self) -> Value {
        let series = self.0.iter().map(|series| {
            let medians = series.medians.iter().map(|(number, rate)| (number.to_string(), json!(rate)));
            (series.name.clone(), Value::Object(medians.collect()))
        });
        json!({"events_per_s": Value::Object(series.collect::<Map<_, _>>())})
    }
}

impl Series {
    /// The least and the most of them.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let rates = || self.medians.iter().map(|(_, rate)| *rate);
        Some((rates().reduce(f64::min)?, rates().reduce(f64::max)?))
    }
}

/// divan's table is a tree: the name of a bench, below it each argument with its times, and below those on a line without a
/// name the same as a throughput. Six columns, of which the third is the median.
fn read(said: &str) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = Vec::new();
    let mut argument = None;
    for line in said.lines() {
        let Some(median) = line.rsplit('│').nth(3).map(str::trim) else { continue };
        let rest = line.trim_start_matches(['│', '├', '╰', '─', ' ']);
        let name = rest.split_whitespace().next().unwrap_or_default();
        if let Some(rate) = throughput(median) {
            let series = all.last_mut().context("divan printed a throughput of no bench")?;
            let number = argument.take().context("divan printed a throughput of no argument")?;
            series.medians.push((number, rate));
        } else if median.is_empty() {
            all.push(Series { name: name.to_owned(), medians: Vec::new() });
        } else {
            argument = name.parse().ok();
        }
    }
    for Series { name, medians } in &all {
        ensure!(!medians.is_empty(), "divan printed no throughput of {name}");
    }
    Ok(all)
}

/// `3.041 Mitem/s`
fn throughput(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let thousands = match unit.strip_suffix("item/s")? {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * 1_000_f64.powi(thousands)).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
core                 fastest       │ slowest       │ median        │ mean          │ samples │ iters
├─ destinations                    │               │               │               │         │
│  ├─ 100            31.94 ms      │ 41.25 ms      │ 32.87 ms      │ 33.65 ms      │ 10      │ 10
│  │                 3.13 Mitem/s  │ 2.423 Mitem/s │ 3.041 Mitem/s │ 2.971 Mitem/s │         │
│  ├─ 10000          47.21 ms      │ 53.78 ms      │ 48.37 ms      │ 49.17 ms      │ 10      │ 10
│  │                 2.117 Mitem/s │ 1.859 Mitem/s │ 2.067 Mitem/s │ 2.033 Mitem/s │         │
│  ╰─ 100000         46.5 ms       │ 49.95 ms      │ 48.64 ms      │ 48.48 ms      │ 10      │ 10
│                    2.15 Mitem/s  │ 2.001 Mitem/s │ 2.055 Mitem/s │ 2.062 Mitem/s │         │
╰─ timewait_sockets                │               │               │               │         │
   ├─ 10000          15.36 ms      │ 19.21 ms      │ 15.8 ms       │ 16.64 ms      │ 10      │ 10
   │                 6.509 Mitem/s │ 5.202 Mitem/s │ 6.326 Mitem/s │ 6.007 Mitem/s │         │
   ├─ 100000         31.37 ms      │ 32.81 ms      │ 31.67 ms      │ 31.85 ms      │ 10      │ 10
   │                 3.187 Mitem/s │ 3.047 Mitem/s │ 3.157 Mitem/s │ 3.139 Mitem/s │         │
   ╰─ 1000000        49.39 ms      │ 58.82 ms      │ 52.75 ms      │ 53.34 ms      │ 10      │ 10
                     2.024 Mitem/s │ 1.699 Mitem/s │ 1.895 Mitem/s │ 1.874 Mitem/s │         │
Timer precision: 20 ns
";

    #[test]
    fn the_table_of_divan_is_read() {
        let core = Core::of(SAID).expect("a table");
        let series = |name: &str, medians: &[(u64, f64)]| Series { name: name.to_owned(), medians: medians.to_vec() };
        let expected = [
            series("destinations", &[(100, 3.041e6), (10_000, 2.067e6), (100_000, 2.055e6)]),
            series("timewait_sockets", &[(10_000, 6.326e6), (100_000, 3.157e6), (1_000_000, 1.895e6)]),
        ];
        assert_eq!(core.series(), expected);
        assert_eq!(core.series().first().and_then(Series::range), Some((2.055e6, 3.041e6)));
        assert_eq!(core.json().pointer("/events_per_s/destinations/100"), Some(&json!(3.041e6)));
    }

    #[test]
    fn throughputs_have_units() {
        assert_eq!(throughput("999.6 item/s"), Some(1_000.0));
        assert_eq!(throughput("1.5 Gitem/s"), Some(1.5e9));
        assert_eq!(throughput("32.87 ms"), None);
        assert_eq!(throughput("1 Xitem/s"), None);
    }

    #[test]
    fn another_table_is_an_error() {
        assert!(Core::of("").is_err());
        assert!(Core::of(&SAID.replace("item/s", "B/s")).is_err());
    }
}
