//! Each remedy by itself, the one with the largest effect first.

use std::time::Duration;

use super::{
    change::Changes,
    model::{Run, run},
    outcome::{Remedy, figures},
    words,
    workload::Workload,
};

/// What is tried where nothing else is asked for: as long as Apache httpd keeps a connection (KeepAliveTimeout).
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Every port that is not privileged.
const PORT_RANGE: (u16, u16) = (1_024, 65_535);
const TW_REUSE: u8 = 1;
const ADDRESSES: u16 = 2;

/// Plays every remedy. Those that `changes` name have its values; all are for its process.
pub(super) fn remedies(workload: &Workload, changes: &Changes, today: &Run) -> Vec<Remedy> {
    let none = || Changes { process: changes.process.clone(), ..Changes::default() };
    let all = [
        // As many as there ever were: nobody waits.
        Changes { pool: Some(changes.pool.unwrap_or(today.most_at_once.max(1))), ..none() },
        Changes { keep_alive: Some(changes.keep_alive.unwrap_or(KEEP_ALIVE)), ..none() },
        Changes { port_range: Some(changes.port_range.unwrap_or(PORT_RANGE)), ..none() },
        Changes { tw_reuse: Some(changes.tw_reuse.unwrap_or(TW_REUSE)), ..none() },
        Changes { local_addresses: Some(changes.local_addresses.unwrap_or(ADDRESSES)), ..none() },
        Changes { remote_addresses: Some(changes.remote_addresses.unwrap_or(ADDRESSES)), ..none() },
        Changes { client_closes_first: true, ..none() },
        Changes { linger0: true, ..none() },
    ];
    let mut remedies: Vec<_> = all.iter().map(|changes| remedy(workload, changes, today)).collect();
    // Stable: of those with the same effect the one that changes the program comes first.
    remedies.sort_by_key(effect);
    remedies
}

fn remedy(workload: &Workload, changes: &Changes, today: &Run) -> Remedy {
    let run = run(workload, changes);
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Remedy {
        option: words::option(changes),
        change: words::changes(&Changes { process: None, ..changes.clone() }).join("; "),
        is_unsafe: changes.linger0,
        failures_avoided: signed(today.failures) - signed(run.failures),
        what_if: figures(workload, &run),
    }
}

/// What is left to suffer from, worst first: calls in vain, tenths of the ports in use, TIME_WAITs. Less is better.
fn effect(remedy: &Remedy) -> (u64, u64, u64) {
    let it = &remedy.what_if;
    (it.connect_failures + it.requests_unserved, (it.peak_ports_percent / 10.0) as u64, it.peak_time_wait)
}
