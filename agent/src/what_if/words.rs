//! What an answer says in words.

use super::{
    change::Changes,
    model::Run,
    outcome::{Check, Pair},
    workload::{Gaps, Workload},
};

/// What is different, one line each.
pub(super) fn changes(changes: &Changes) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(most) = changes.pool {
        said.push(format!(
            "a pool: at most {most} connection(s) of a process to a destination at once, which stay open"
        ));
    }
    if let Some(idle) = changes.keep_alive {
        said.push(format!(
            "keep-alive: a connection is used again if it was idle for less than {} s",
            idle.as_secs_f64()
        ));
    }
    if let Some((low, high)) = changes.port_range {
        said.push(format!("net.ipv4.ip_local_port_range = {low} {high}"));
    }
    if let Some(mode) = changes.tw_reuse {
        said.push(format!("net.ipv4.tcp_tw_reuse = {mode}"));
    }
    if let Some(count) = changes.local_addresses {
        said.push(format!("connections are made from {count} local addresses in turn"));
    }
    if let Some(count) = changes.remote_addresses {
        said.push(format!("each destination has {count} addresses, used in turn"));
    }
    if changes.client_closes_first {
        said.push("the client closes first where the server does now".to_owned());
    }
    if changes.linger0 {
        said.push("whoever closes first does so with SO_LINGER 0".to_owned());
    }
    match &changes.process {
        Some(who) if !said.is_empty() => said.push(format!("connections of {who} only")),
        _ => {}
    }
    said
}

/// The option of a single change.
pub(super) fn option(changes: &Changes) -> String {
    let options = [
        changes.pool.map(|most| format!("--pool {most}")),
        changes.keep_alive.map(|idle| format!("--keep-alive {}", idle.as_secs_f64())),
        changes.port_range.map(|(low, high)| format!("--port-range {low}-{high}")),
        changes.tw_reuse.map(|mode| format!("--tw-reuse {mode}")),
        changes.local_addresses.map(|count| format!("--local-addresses {count}")),
        changes.remote_addresses.map(|count| format!("--remote-addresses {count}")),
        changes.client_closes_first.then(|| "--client-closes-first".to_owned()),
        changes.linger0.then(|| "--linger0".to_owned()),
    ];
    options.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What changes cost or need, and what the model cannot tell of them.
pub(super) fn cautions(workload: &Workload, changes: &Changes, run: Option<&Run>) -> Vec<String> {
    let mut said = Vec::new();
    if changes.linger0 {
        said.push(
            "SO_LINGER 0 is unsafe: close() throws away what has not been sent and acknowledged, the other side gets \
             ECONNRESET, and nothing protects the next connection of the same addresses and ports"
                .to_owned(),
        );
    }
    if changes.reuses_connections() {
        said.push(
            "a connection is only used again if both programs keep it open: one side that closes after each answer \
             undoes it"
                .to_owned(),
        );
        if let Some(run) = run.filter(|run| run.waited + run.unserved > 0) {
            said.push(format!(
                "{} request(s) wait for a connection, up to {:.3} s, and {} still wait at the end; each is taken to need \
                 a connection for as long as it had one",
                run.waited + run.unserved,
                run.longest_wait.as_secs_f64(),
                run.unserved
            ));
        }
        if workload.gaps.births > 0 {
            said.push(
                "how many connections are needed at once is not known where their beginning is not recorded".to_owned(),
            );
        }
    }
    if changes.port_range.is_some() {
        said.push(
            "ports of services in the new range have to be reserved (net.ipv4.ip_local_reserved_ports): of them only \
             those are known that somebody had when the recording looked"
                .to_owned(),
        );
    }
    if changes.tw_reuse.is_some_and(|mode| mode > 0) {
        let is_off = workload.looks.iter().any(|look| look.settings.timestamps == Some(0));
        said.push(if is_off {
            "tcp_tw_reuse needs net.ipv4.tcp_timestamps, which is 0 in at least one namespace: it does nothing there"
                .to_owned()
        } else {
            "tcp_tw_reuse needs TCP timestamps at both ends; whether the other side has them is not recorded".to_owned()
        });
    }
    if changes.local_addresses.is_some() {
        said.push(
            "the program has to bind each address with IP_BIND_ADDRESS_NO_PORT; bind() without it takes the port out for \
             everybody"
                .to_owned(),
        );
    }
    if changes.client_closes_first {
        said.push(
            "TIME_WAIT moves to the clients, and takes a port of theirs each; of clients on other hosts nothing is \
             recorded"
                .to_owned(),
        );
    }
    said
}

/// What is made of calls that found no port.
pub(super) fn attempts(workload: &Workload) -> Option<String> {
    let failures = workload.failures();
    (failures > 0).then(|| {
        let mut said = format!(
            "{failures} connect() call(s) found no port. Where one would find one, its connection is taken to last, and to \
             end, as the one of median length of the same process and destination did. Whether a call was a retry is not \
             known: each counts by itself"
        );
        if workload.gaps.without_example > 0 {
            said.push_str(&format!(
                "; {} of them have no such example and are taken to be closed here at once",
                workload.gaps.without_example
            ));
        }
        said
    })
}

/// That the model is too far from what was recorded, if it is.
pub(super) fn distance(check: &Check) -> Option<String> {
    /// Percent
    const NEAR: f64 = 2.0;
    let worst = [check.peak_time_wait, check.peak_used, check.connect_failures];
    let worst = worst.iter().map(Pair::percent_off).fold(0.0, f64::max);
    (worst > NEAR).then(|| {
        format!(
            "the model without a change is off by {worst:.1} %: the recording does not tell enough, and neither column is more \
             than a hint"
        )
    })
}

/// What the recording does not tell.
pub(super) fn gaps(gaps: &Gaps) -> Vec<String> {
    [
        (
            gaps.births,
            "connection(s) whose beginning is not recorded count from their end on: `firstfin record` records it, \
             `report --record` does not",
        ),
        (gaps.anonymous, "of these closed by the other side, known by their destination only: without process and port"),
        (gaps.open_at_end, "connection(s) still open at the end stay open"),
        (
            gaps.begun_between,
            "of these began during the recording, at a time that is not known: they count from the first look that shows \
             them",
        ),
        (gaps.lost, "record(s) were lost or not understood: connections may be missing"),
        (
            gaps.direction,
            "connection(s) of which it is not recorded who opened them: a local port with a listener counts as accepted",
        ),
        (
            gaps.becoming,
            "FIN_WAIT2 minisocket(s) are taken to be in TIME_WAIT at once: when the FIN came is not observed on this \
             kernel",
        ),
        (gaps.namespaces, "namespace(s) whose port range is not known: there connections go as they went"),
        (gaps.bound, "client(s) had their port from bind(): they keep it whatever is changed"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}
