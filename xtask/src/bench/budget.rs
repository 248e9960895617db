//! What firstfin may cost, and whether it does.

use serde_json::{Value, json};

use super::{Figures, measure::Measured, memory, overload, subject};

/// Least share of the throughput without anything attached that `report` must leave.
const REPORT: f64 = 0.97;
/// Or this share of what the empty program leaves, which is as far as anybody could get.
const OF_FLOOR: f64 = 0.99;
const STATES: f64 = 0.80;
/// How much more `trace --states` must leave than tcpstates.
const OF_TCPSTATES: f64 = 2.0;
const BYTES: f64 = 96.0;
/// Milliseconds for 10,000 connections.
const CPU_MS: f64 = 20.0;
/// From exec until all is attached.
const START_MS: f64 = 250.0;
/// A census and its report, by what the kernel takes to answer.
const DUMP: f64 = 1.5;
const MEMORY_MIB: f64 = 64.0;
const BYTES_PER_SOCKET: f64 = 96.0;
const BINARY_MIB: f64 = 12.0;
/// Events a second, whatever there is most of.
const EVENTS_PER_S: f64 = 3e6;
/// The most events a second by the least, of the sizes of one bench.
const FLAT: f64 = 1.5;
/// Half a million destinations more, once the tables are full.
const OVERLOAD_GROWTH_MIB: f64 = 4.0;
/// From Ctrl-C to the end of a report, after an overload.
const OVERLOAD_REPORT_S: f64 = 5.0;

/// A budget and what came of it.
pub(super) struct Verdict {
    what: String,
    may: String,
    is: String,
    is_met: bool,
}

impl Verdict {
    pub(super) fn json(&self) -> Value {
        json!({"what": self.what, "may": self.may, "is": self.is, "met": self.is_met})
    }
}

/// The verdicts as a table.
pub(super) fn render(verdicts: &[Verdict]) -> String {
    let width = |of: fn(&Verdict) -> &str, header: &str| {
        verdicts.iter().map(|it| of(it).chars().count()).chain([header.len()]).max().unwrap_or_default()
    };
    let (what, may) = (width(|it| &it.what, "budget"), width(|it| &it.may, "may be"));
    let mut text = format!("{:7}  {:what$}  {:may$}  is\n", "", "budget", "may be");
    for it in verdicts {
        let verdict = if it.is_met { "met" } else { "NOT MET" };
        text.push_str(&format!("{verdict:7}  {:what$}  {:may$}  {}\n", it.what, it.may, it.is));
    }
    text
}

/// One verdict for each budget whose figures are there.
pub(super) fn judge(figures: &Figures) -> Vec<Verdict> {
    let mut all = Vec::new();
    let mut say = |what: &str, may: String, is_met: bool, is: String| {
        all.push(Verdict { what: what.to_owned(), may, is, is_met });
    };
    throughput(&figures.throughput, &mut say);
    parts(figures, &mut say);
    overloads(figures, &mut say);
    all
}

type Say<'a> = &'a mut dyn FnMut(&str, String, bool, String);

fn throughput(measured: &[Measured], say: Say<'_>) {
    let find = |name: &str| measured.iter().find(|it| it.name == name);
    let ratio = |name: &str| find(name).map(|it| it.ratio.median);
    let mut reported = |what: &str, kept: f64, floor: Option<f64>| {
        let of_floor = floor.map(|floor| kept / floor);
        let share = of_floor.map_or("?".to_owned(), |share| format!("{share:.3}"));
        say(
            what,
            format!(">= {REPORT}, or {OF_FLOOR} of the empty program's"),
            kept >= REPORT || of_floor.is_some_and(|share| share >= OF_FLOOR),
            format!("{kept:.3}, {share} of the empty program's"),
        );
    };
    if let Some(kept) = ratio(subject::REPORT) {
        reported("throughput with report / none", kept, ratio(subject::FLOOR));
    }
    if let Some(kept) = ratio(subject::REPORT_EXCHANGE) {
        reported("the same, with a request and an answer", kept, ratio(subject::FLOOR_EXCHANGE));
    }
    if let Some(report) = find(subject::REPORT) {
        let kept = report.ratio.median;
        if let Some(tcplife) = ratio("tcplife") {
            say("report, against tcplife", format!("> {tcplife:.3}"), kept > tcplife, format!("{kept:.3}"));
        }
        if let Some(lost) = report.lost {
            say("records lost by report in these runs", "0".to_owned(), lost == 0, lost.to_string());
        }
        if let Some(bytes) = report.bytes {
            let is = format!("{:.0}", bytes.median);
            say("bytes of records for a connection", format!("<= {BYTES}"), bytes.median <= BYTES, is);
        }
        if let Some(cpu) = report.cpu_ms {
            let is = format!("{:.1} ms", cpu.median);
            say("CPU of report for 10,000 connections", format!("<= {CPU_MS} ms"), cpu.median <= CPU_MS, is);
        }
    }
    if let Some(states) = ratio(subject::STATES) {
        let is = format!("{states:.3}");
        say("throughput with trace --states / none", format!(">= {STATES:.2}"), states >= STATES, is);
        if let Some(tcpstates) = ratio("tcpstates") {
            let times = states / tcpstates;
            let may = format!(">= {OF_TCPSTATES} times");
            say("trace --states, against tcpstates", may, times >= OF_TCPSTATES, format!("{times:.1} times"));
        }
    }
}

fn parts(figures: &Figures, say: Say<'_>) {
    if let Some(start) = &figures.start {
        let (attached, event) = (start.attached_ms, start.first_event_ms);
        say(
            "start of report until all is attached",
            format!("<= {START_MS} ms"),
            attached.median <= START_MS,
            format!(
                "{:.0} ms ({:.0}-{:.0}); trace until its first line {:.0} ms ({:.0}-{:.0})",
                attached.median, attached.low, attached.high, event.median, event.low, event.high
            ),
        );
    }
    if let Some(dump) = &figures.dump {
        say(
            "dump and join of 100,000 sockets / raw dump",
            format!("<= {DUMP}"),
            dump.ratio.median <= DUMP,
            format!("{:.2} ({:.2}-{:.2}): {}", dump.ratio.median, dump.ratio.low, dump.ratio.high, dump.times()),
        );
    }
    if let Some((rss, peak)) = figures.memory.as_ref().and_then(memory::Memory::budgeted) {
        say(
            &format!("memory of report with {} sockets", memory::BUDGETED),
            format!("<= {MEMORY_MIB} MiB"),
            peak <= MEMORY_MIB,
            format!("{peak:.1} MiB at most, {rss:.1} MiB between two looks"),
        );
    }
    if let Some(bytes) = figures.memory.as_ref().and_then(memory::Memory::bytes_per_socket) {
        let may = format!("<= {BYTES_PER_SOCKET}");
        say("bytes of memory for one socket more", may, bytes <= BYTES_PER_SOCKET, format!("{bytes:.0}"));
    }
    if let Some(binary) = &figures.binary {
        let mib = binary.mib();
        say("size of the binary, stripped", format!("<= {BINARY_MIB} MiB"), mib <= BINARY_MIB, binary.said());
    }
    for series in figures.core.iter().flat_map(|core| core.series()) {
        let Some((low, high)) = series.range() else { continue };
        let steepness = high / low;
        say(
            &format!("events/s by {}", series.name.replace('_', " ")),
            format!(">= {:.0} million, within {FLAT}", EVENTS_PER_S / 1e6),
            low >= EVENTS_PER_S && steepness <= FLAT,
            format!("{:.1} to {:.1} million, within {steepness:.2}", low / 1e6, high / 1e6),
        );
    }
    if let Some(losses) = &figures.losses {
        say(
            &format!("records lost by report in {} s", losses.lasted.as_secs()),
            "0".to_owned(),
            losses.events.lost == 0,
            format!("{}, at {:.0} connections a second", losses.events.lost, losses.churn.rate()),
        );
    }
}

fn overloads(figures: &Figures, say: Say<'_>) {
    let Some(overload::Overload { small_ring, scan }) = &figures.overload else { return };
    for (name, strain) in [("a ring too small", small_ring), ("a million destinations", scan)] {
        let seconds = strain.report_took.as_secs_f64();
        say(
            &format!("{name}: memory of report"),
            format!("<= {MEMORY_MIB} MiB"),
            strain.peak_mib <= MEMORY_MIB,
            format!(
                "{:.1} MiB at most; before, amid, after: {}",
                strain.peak_mib,
                strain.rss_mib.map(|mib| format!("{mib:.1}")).join(", ")
            ),
        );
        // Each connection has an end, which is a record, and each record is kept or counted as one that is not.
        let events = strain.events;
        let is_counted =
            events.received + events.lost >= strain.made && events.lost + events.evicted > 0 && strain.says_so;
        say(
            &format!("{name}: what is missing is counted"),
            "each connection, and the report says so".to_owned(),
            is_counted,
            format!(
                "{} connections: {} records, {} lost, {} not kept{}",
                strain.made,
                events.received,
                events.lost,
                events.evicted,
                if strain.says_so { "" } else { ", and the report does not say so" }
            ),
        );
        let may = format!("<= {OVERLOAD_REPORT_S} s");
        say(&format!("{name}: report after Ctrl-C"), may, seconds <= OVERLOAD_REPORT_S, format!("{seconds:.2} s"));
    }
    // The other load leaves timewait sockets, and each one that is there takes its place.
    let growth = scan.growth_mib();
    say(
        "half a million destinations more",
        format!("<= {OVERLOAD_GROWTH_MIB} MiB"),
        growth <= OVERLOAD_GROWTH_MIB,
        format!("{growth:+.1} MiB"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_is_nothing_judged() {
        assert!(judge(&Figures::default()).is_empty());
    }

    #[test]
    fn a_budget_that_is_not_met_says_so() {
        let verdict =
            |what: &str, is_met| Verdict { what: what.to_owned(), may: "<= 1".to_owned(), is: "2".to_owned(), is_met };
        let text = render(&[verdict("size", false), verdict("start of it", true)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            ["         budget       may be  is", "NOT MET  size         <= 1    2", "met      start of it  <= 1    2",]
        );
    }
}
