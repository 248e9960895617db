//! The figures, for people and for programs.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::measure::{Measured, Spread};

const HEADER: &str =
    "attached                  throughput / none     connections/s  in kernel  CPU/10k   RSS      lost  bytes/conn";

pub(super) fn render(measured: &[Measured]) -> String {
    let mut text = format!("{HEADER}\n");
    for it in measured {
        let number = |spread: Option<Spread>, digits: usize, unit: &str| {
            spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.digits$}{unit}", spread.median))
        };
        let Spread { median, low, high } = it.ratio;
        text.push_str(&format!(
            "{:24}  {median:.3} ({low:.3}-{high:.3})  {:>13.0}  {:>9}  {:>8}  {:>8}  {:>4}  {:>10}\n",
            it.name,
            it.rate.median,
            it.in_kernel_ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0} ns")),
            number(it.cpu_ms, 1, " ms"),
            number(it.rss_mib, 1, " MiB"),
            it.lost.map_or_else(|| "-".to_owned(), |lost| lost.to_string()),
            number(it.bytes, 0, ""),
        ));
    }
    text
}

pub(super) fn json(machine: &str, seconds: u64, measured: &[Measured]) -> Result<String> {
    let spread = |spread: Option<Spread>| spread.map(|it| json!({"median": it.median, "low": it.low, "high": it.high}));
    let subjects: Vec<_> = measured
        .iter()
        .map(|it| {
            json!({
                "attached": it.name,
                "throughput_ratio": spread(Some(it.ratio)),
                "connections_per_s": spread(Some(it.rate)),
                "in_kernel_ns_per_connection": it.in_kernel_ns,
                "cpu_ms_per_10000_connections": spread(it.cpu_ms),
                "rss_mib": spread(it.rss_mib),
                "records_lost": it.lost,
                "record_bytes_per_connection": spread(it.bytes),
            })
        })
        .collect();
    let all = json!({"machine": machine, "seconds_of_a_run": seconds, "subjects": subjects});
    serde_json::to_string_pretty(&all).map(|text| text + "\n").context("write the figures as JSON")
}
