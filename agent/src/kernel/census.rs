//! A look at the sockets of all network namespaces that can be reached: what the ledger of events is checked against.
//!
//! Ties together [`super::netns`], [`super::sock_diag`], [`super::counters`] and [`super::sysctl`]. A namespace that
//! cannot be looked into is named with the reason, and never passed over: "no sockets" and "not seen" are not the same.

use std::{collections::HashSet, error::Error, path::Path};

use rustix::time::{ClockId, clock_gettime};

use super::{
    counters,
    netns::{self, Discovery, NetnsHandle},
    processes::Procfs,
    sock_diag::{self, DumpFilter, SockDiagError},
    sysctl,
};
use crate::model::{Census, Netns, NetnsCensus, TcpState, Timestamp};

/// A dump takes some 10 ms per 30,000 sockets, in which sockets come and go: how often it is taken anew if the kernel's
/// count moved meanwhile.
const RETRIES: u32 = 3;

/// What one look needs.
struct Look<'a> {
    procfs: &'a Procfs,
    filter: &'a DumpFilter,
    now: &'a (dyn Fn() -> Timestamp + Sync),
}

/// Looks into every namespace that can be found, or only the `wanted` ones. `now` tells the time of [`boottime`].
pub fn take(
    procfs: &Procfs,
    filter: &DumpFilter,
    wanted: Option<&HashSet<Netns>>,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> Census {
    let look = Look { procfs, filter, now };
    let mut census = Census { at: now(), ..Census::default() };
    let mut expected = wanted.cloned().unwrap_or_default();
    let found = find(procfs.root(), wanted);
    let stale = look.each(&found.namespaces, &mut census);
    if !stale.is_empty() {
        // The process by which a namespace was known has ended. Another one may be in it.
        look.each(&find(procfs.root(), Some(&stale)).namespaces, &mut census);
        expected.extend(stale);
    }
    for seen in &census.namespaces {
        expected.remove(&seen.netns);
    }
    for (unreachable, _) in &census.unreachable {
        expected.remove(unreachable);
    }
    let mut missing: Vec<Netns> = expected.into_iter().collect();
    missing.sort_unstable();
    census.unreachable.extend(missing.into_iter().map(|netns| (netns, not_found(found.unreadable))));
    census
}

/// The time that events are stamped with.
#[must_use]
pub fn boottime() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

fn find(proc_root: &Path, wanted: Option<&HashSet<Netns>>) -> Discovery {
    let mut found = netns::discover(proc_root);
    if let Some(wanted) = wanted {
        found.namespaces.retain(|handle| wanted.contains(&handle.netns));
        let mut missing = wanted.clone();
        for handle in &found.namespaces {
            missing.remove(&handle.netns);
        }
        if !missing.is_empty() {
            found.namespaces.extend(netns::in_threads(proc_root, &missing));
        }
    }
    found
}

fn not_found(unreadable: u64) -> String {
    let reason = "no process and no name left in it: the namespace is gone, or only sockets keep it";
    match unreadable {
        0 => reason.to_owned(),
        n => format!(
            "{reason}; or it belongs to one of {n} processes that could not be read, which takes CAP_SYS_PTRACE"
        ),
    }
}

impl Look<'_> {
    /// Looks into each namespace. Returns those to which the path does not lead any more.
    fn each(&self, handles: &[NetnsHandle], census: &mut Census) -> HashSet<Netns> {
        let mut stale = HashSet::new();
        for handle in handles {
            match netns::enter(handle, || self.around(handle.netns)) {
                Ok(Ok(seen)) => census.namespaces.push(seen),
                Ok(Err(error)) => census.unreachable.push((handle.netns, with_causes(&error))),
                Err(error) if error.is_stale() => {
                    stale.insert(handle.netns);
                }
                Err(error) => census.unreachable.push((handle.netns, with_causes(&error))),
            }
        }
        stale
    }

    /// Looks around in the namespace the calling thread is in.
    fn around(&self, netns: Netns) -> Result<NetnsCensus, SockDiagError> {
        let net = self.procfs.root().join("thread-self/net");
        let count = || counters::time_wait_count(&net).ok();
        let mut before = count();
        let mut retries = 0;
        loop {
            let at = (self.now)();
            let mut rows = sock_diag::dump(netns, self.filter)?;
            let after = count();
            let mut has_close_wait = false;
            let kernel_time_wait = if self.filter.has_every_time_wait() {
                let mut counted = 0;
                for row in rows.iter() {
                    counted += usize::from(row.time_wait_left.is_some());
                    has_close_wait |= row.state == TcpState::CloseWait;
                }
                match compare(counted, before, after) {
                    Comparison::Settled(count) => count,
                    Comparison::Moved(_) if retries < RETRIES => {
                        retries += 1;
                        before = after;
                        continue;
                    }
                    Comparison::Moved(nearest) => Some(nearest),
                }
            } else {
                after
            };
            // For how long nobody has closed them is of use where all sockets are looked at, and after the counts: it takes time.
            if *self.filter == DumpFilter::all() && has_close_wait {
                rows.retain(|row| row.state != TcpState::CloseWait);
                rows.append(sock_diag::dump(netns, &DumpFilter::close_wait())?);
            }
            return Ok(NetnsCensus {
                netns,
                at,
                rows,
                kernel_time_wait,
                time_wait_overflow: counters::time_wait_overflow(&net).ok(),
                settings: sysctl::settings(&self.procfs.root().join("sys")),
            });
        }
    }
}

/// What the kernel's count says of a dump taken between two readings of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// The count to set against the dump: it agrees, or it stood still and does not, or it could not be read
    Settled(Option<u64>),
    /// The count moved meanwhile, and this is the reading nearest to the dump
    Moved(u64),
}

fn compare(counted: usize, before: Option<u64>, after: Option<u64>) -> Comparison {
    let (Some(before), Some(after)) = (before, after) else { return Comparison::Settled(after.or(before)) };
    let distance = |reading: u64| reading.abs_diff(u64::try_from(counted).unwrap_or(u64::MAX));
    let nearest = if distance(before) < distance(after) { before } else { after };
    if distance(nearest) == 0 || before == after {
        Comparison::Settled(Some(nearest))
    } else {
        Comparison::Moved(nearest)
    }
}

/// An error with what caused it, on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::kernel::sock_diag::Family;

    #[test]
    fn the_kernels_count_is_believed_if_it_stood_still() {
        use Comparison::{Moved, Settled};
        assert_eq!(compare(7, Some(7), Some(7)), Settled(Some(7)));
        assert_eq!(compare(7, Some(7), Some(9)), Settled(Some(7)));
        assert_eq!(compare(9, Some(7), Some(9)), Settled(Some(9)));
        assert_eq!(compare(8, Some(9), Some(9)), Settled(Some(9)), "a difference that is real is shown");
        assert_eq!(compare(8, Some(5), Some(9)), Moved(9));
        assert_eq!(compare(3, Some(4), Some(9)), Moved(4));
        assert_eq!(compare(3, None, Some(9)), Settled(Some(9)));
        assert_eq!(compare(3, None, None), Settled(None));
    }

    #[test]
    fn our_own_namespace_is_seen_and_one_that_is_not_there_is_named() {
        let own = netns::current().unwrap();
        let gone = Netns(3);
        let census = take(&Procfs::host(), &DumpFilter::all(), Some(&[own, gone].into()), &boottime);
        assert!(matches!(&census.namespaces[..], [seen] if seen.netns == own && seen.at >= census.at));
        assert!(census.namespaces[0].kernel_time_wait.is_some() && census.namespaces[0].settings.port_range.is_some());
        assert!(matches!(&census.unreachable[..], [(netns, reason)] if *netns == gone && reason.contains("is gone")));
    }

    #[test]
    fn a_reason_has_its_cause() {
        let source = io::Error::from_raw_os_error(2);
        let reason = with_causes(&SockDiagError::NotSupported { family: Family::Ipv4, source });
        assert!(reason.contains("tcp_diag") && reason.ends_with("No such file or directory (os error 2)"), "{reason}");
        assert!(!not_found(0).contains("CAP_SYS_PTRACE") && not_found(2).contains("2 processes"));
    }

    #[test]
    fn the_clock_is_the_one_of_proc_uptime() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let seconds = std::time::Duration::from_nanos(boottime().0).as_secs_f64();
        assert!((seconds - uptime).abs() < 1.0, "{seconds} and {uptime}");
    }
}
