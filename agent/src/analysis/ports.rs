//! What findings about ephemeral ports have in common: the numbers of a namespace, who has its ports, and remedies that
//! hold for its settings.

use std::net::SocketAddr;

use super::{thresholds, who, who_or_unknown};
use crate::report::{HolderKind, NetnsPorts, PortUse, Report};

/// Why a bound port is lost.
pub(super) const PASSED_OVER: &str = "connect() passes over a port that a socket has bound or listens on, whatever the addresses (its bind bucket is not \
     one that connect() made)";

/// Ports below are for services, and need a privilege to bind.
const FIRST_UNPRIVILEGED: u32 = 1_024;
/// Processes named in evidence.
const NAMED: usize = 3;

/// What connect() can choose from.
pub(super) fn limits(place: &NetnsPorts) -> Option<String> {
    let (first, last) = place.range?;
    Some(match (place.usable, place.reserved, place.poisoned) {
        (Some(usable), Some(reserved), Some(poisoned)) => {
            let most = place.peak_poisoned.filter(|&most| most > poisoned);
            let peak = most.map_or_else(String::new, |most| format!(" ({most} when it was at its worst)"));
            format!(
                "ip_local_port_range is {first} to {last}, {usable} of them usable: {reserved} reserved, {poisoned} bound by \
                 listeners or bound-only sockets{peak}"
            )
        }
        _ => format!("ip_local_port_range is {first} to {last}; how many of them are usable is not known"),
    })
}

/// Who takes ports out.
pub(super) fn holders(place: &NetnsPorts) -> impl Iterator<Item = String> {
    place.poisoned_by.iter().take(NAMED).map(|holder| {
        let owner = who_or_unknown(holder.process.as_ref());
        let (verb, kind) = match holder.kind {
            HolderKind::Listener => ("listens on", "listeners"),
            _ => ("has bound", "bound-only sockets"),
        };
        format!("{owner} {verb} {} of them ({kind}, for example {})", holder.ports, holder.example)
    })
}

/// ` by NAME`, if it is mostly one process, and that is known.
pub(super) fn by(place: Option<&NetnsPorts>) -> String {
    let first = place.and_then(|place| place.poisoned_by.first());
    first
        .and_then(|first| first.process.as_ref())
        .map_or_else(String::new, |process| format!(", most by {}", who(process)))
}

/// How long connect() looks for a port.
pub(super) fn search(report: &Report) -> Option<String> {
    let search = report.ports.search.as_ref()?;
    let (half, most) = (search.quantile_us(0.5)?, search.quantile_us(0.99)?);
    Some(format!(
        "of {} connect() on this host half found a port within {half} us, 99 of 100 within {most} us",
        search.searches
    ))
}

/// Who uses ports towards a destination.
pub(super) fn users(used: &PortUse) -> impl Iterator<Item = String> {
    used.processes.iter().take(NAMED).map(|user| {
        let owner = who_or_unknown(user.process.as_ref());
        match (user.live, user.time_wait) {
            (live, 0) => format!("{owner} holds {live} of them with live connections"),
            (0, time_wait) => format!("{owner} holds {time_wait} of them in TIME_WAIT"),
            (live, time_wait) => {
                format!("{owner} holds {live} of them with live connections, {time_wait} in TIME_WAIT")
            }
        }
    })
}

/// Ports taken out, of those not reserved.
pub(super) fn poisoned_share(place: &NetnsPorts) -> f64 {
    match (place.poisoned, place.usable) {
        (Some(poisoned), Some(usable)) if poisoned > 0 => poisoned as f64 / (poisoned + usable) as f64,
        _ => 0.0,
    }
}

/// Bound sockets, and not connections, are why there was no port: now, or when it was at its worst.
pub(super) fn is_mostly_poisoned(place: &NetnsPorts) -> bool {
    let open = place.poisoned.zip(place.usable).map_or(0, |(poisoned, usable)| poisoned + usable);
    let most = place.peak_poisoned.unwrap_or_default();
    most > 0 && most as f64 >= open as f64 * thresholds::POISONED_CRITICAL
}

/// A wider range, if there is one.
pub(super) fn wider_range(place: Option<&NetnsPorts>) -> Option<String> {
    let (first, last) = place.and_then(|place| place.range)?;
    let now = u32::from(last) - u32::from(first) + 1;
    let most = u32::from(u16::MAX) - FIRST_UNPRIVILEGED + 1;
    // Less than an eighth more is gone in no time.
    (most >= now + now / 8).then(|| {
        format!(
            "or more ports: net.ipv4.ip_local_port_range, {now} now, {most} from {FIRST_UNPRIVILEGED} to 65535; keep the \
             ports of services out of it (net.ipv4.ip_local_reserved_ports)"
        )
    })
}

/// What is often tried against TIME_WAIT, and costs more than it brings.
const OFTEN_TRIED: [&str; 3] = [
    "tcp_fin_timeout: it does not change TIME_WAIT",
    "a lower tcp_max_tw_buckets, or SO_LINGER 0: both give up the protection TIME_WAIT is for",
    "tcp_tw_recycle: it broke clients behind NAT, and is gone since Linux 4.12",
];

/// What helps against TIME_WAIT towards a destination, by the settings that are in force, and what does not.
pub(super) fn against_time_wait(place: Option<&NetnsPorts>, remote: &str) -> (Option<String>, Vec<String>) {
    let often_tried = OFTEN_TRIED.map(str::to_owned);
    match place.and_then(|place| reuse(place, remote)) {
        Some(Reuse::Helps(how)) => (Some(how), often_tried.into()),
        Some(Reuse::Useless(why)) => (None, [why].into_iter().chain(often_tried).collect()),
        None => (None, often_tried.into()),
    }
}

/// What `tcp_tw_reuse` can do.
enum Reuse {
    /// It would help
    Helps(String),
    /// It is on, or would do nothing
    Useless(String),
}

/// None if the settings are not known.
fn reuse(place: &NetnsPorts, remote: &str) -> Option<Reuse> {
    let is_loopback = remote.parse::<SocketAddr>().is_ok_and(|remote| remote.ip().is_loopback());
    let after = match place.tw_reuse_delay_ms {
        Some(delay) => format!("{delay} ms (tcp_tw_reuse_delay)"),
        None => "1 s".to_owned(),
    };
    Some(match (place.tw_reuse?, place.timestamps?) {
        (mode, 0) => Reuse::Useless(format!(
            "tcp_tw_reuse ({mode} now): without TCP timestamps nothing is reused, and net.ipv4.tcp_timestamps is 0 here"
        )),
        (1, _) => in_force("1", &after),
        (2, _) if is_loopback => in_force("2 (loopback)", &after),
        (mode, _) => Reuse::Helps(format!(
            "or net.ipv4.tcp_tw_reuse=1 ({mode} now): connect() may then take over a TIME_WAIT older than {after}. TCP \
             timestamps are on here; the other side needs them too"
        )),
    })
}

fn in_force(mode: &str, after: &str) -> Reuse {
    Reuse::Useless(format!(
        "tcp_tw_reuse: {mode} is in force, connect() takes over a TIME_WAIT older than {after} if the other side uses TCP \
         timestamps. What is used up is taken in less than that, or is not TIME_WAIT"
    ))
}
