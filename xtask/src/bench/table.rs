//! The figures, for people and for programs.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Figures,
    binary::Binary,
    budget::Verdict,
    core::Core,
    dump::Dump,
    losses::Losses,
    measure::{Measured, Spread},
    memory::Memory,
    overload::Overload,
    start::Start,
};

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

pub(super) fn json(machine: &str, seconds: u64, figures: &Figures, verdicts: &[Verdict]) -> Result<String> {
    let subjects: Vec<_> = figures
        .throughput
        .iter()
        .map(|it| {
            json!({
                "attached": it.name,
                "throughput_ratio": spread(it.ratio),
                "connections_per_s": spread(it.rate),
                "in_kernel_ns_per_connection": it.in_kernel_ns,
                "cpu_ms_per_10000_connections": it.cpu_ms.map(spread),
                "rss_mib": it.rss_mib.map(spread),
                "records_lost": it.lost,
                "record_bytes_per_connection": it.bytes.map(spread),
            })
        })
        .collect();
    // What was not measured is null.
    let all = json!({
        "machine": machine,
        "seconds_of_a_run": seconds,
        "subjects": subjects,
        "start": figures.start.as_ref().map(Start::json),
        "dump": figures.dump.as_ref().map(Dump::json),
        "memory": figures.memory.as_ref().map(Memory::json),
        "binary": figures.binary.as_ref().map(Binary::json),
        "core": figures.core.as_ref().map(Core::json),
        "losses": figures.losses.as_ref().map(Losses::json),
        "overload": figures.overload.as_ref().map(Overload::json),
        "budgets": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&all).map(|text| text + "\n").context("write the figures as JSON")
}

pub(super) fn spread(it: Spread) -> Value {
    json!({"median": it.median, "low": it.low, "high": it.high})
}
