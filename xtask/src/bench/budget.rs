//! What firstfin may cost.

use super::measure::Measured;

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

/// One line for each budget whose figures are there.
pub(super) fn judge(measured: &[Measured]) -> String {
    let find = |name: &str| measured.iter().find(|it| it.name == name);
    let ratio = |name: &str| find(name).map(|it| it.ratio.median);
    let mut lines = String::new();
    let mut say = |what: &str, is_met: bool, figure: String| {
        let verdict = if is_met { "met    " } else { "NOT MET" };
        lines.push_str(&format!("{verdict}  {what}: {figure}\n"));
    };
    if let Some(report) = find("firstfin report") {
        let kept = report.ratio.median;
        let floor = ratio("empty program");
        let of_floor = floor.map(|floor| kept / floor);
        say(
            &format!("throughput with report, >= {REPORT} or >= {OF_FLOOR} of the empty program's"),
            kept >= REPORT || of_floor.is_some_and(|share| share >= OF_FLOOR),
            format!(
                "{kept:.3}, {} of the empty program's",
                of_floor.map_or("?".to_owned(), |share| format!("{share:.3}"))
            ),
        );
        if let Some(tcplife) = ratio("tcplife") {
            say("throughput with report, above tcplife's", kept > tcplife, format!("{kept:.3} against {tcplife:.3}"));
        }
        if let Some(lost) = report.lost {
            say("records lost by report", lost == 0, lost.to_string());
        }
        if let Some(bytes) = report.bytes {
            say(
                &format!("bytes of records for a connection, <= {BYTES}"),
                bytes.median <= BYTES,
                format!("{:.0}", bytes.median),
            );
        }
        if let Some(cpu) = report.cpu_ms {
            say(
                &format!("CPU of report for 10,000 connections, <= {CPU_MS} ms"),
                cpu.median <= CPU_MS,
                format!("{:.1} ms", cpu.median),
            );
        }
    }
    if let Some(states) = ratio("firstfin trace --states") {
        say(&format!("throughput with trace --states, >= {STATES:.2}"), states >= STATES, format!("{states:.3}"));
        if let Some(tcpstates) = ratio("tcpstates") {
            let times = states / tcpstates;
            say(
                &format!("throughput with trace --states, {OF_TCPSTATES} times tcpstates'"),
                times >= OF_TCPSTATES,
                format!("{times:.1} times"),
            );
        }
    }
    lines
}
