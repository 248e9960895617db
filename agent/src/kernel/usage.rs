//! What this process uses of the host.

use std::{fs, time::Duration};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// What is used now. What could not be read is 0, which nothing of it can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all threads since the start
    pub cpu: Duration,
    /// Resident memory
    pub resident_bytes: u64,
    /// Open descriptors, less the one that looking takes
    pub open_fds: u64,
    /// Descriptors that may be open; the largest number if there is no limit
    pub max_fds: u64,
}

/// Looks.
#[must_use]
pub fn usage() -> Usage {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(u64::try_from(cpu.tv_sec).unwrap_or_default());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Usage {
        cpu: seconds + Duration::from_nanos(u64::try_from(cpu.tv_nsec).unwrap_or_default()),
        resident_bytes: resident_kib(&status).unwrap_or_default() * 1_024,
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1)) as u64,
        max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

/// `VmRSS:     5120 kB`
fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_seen() {
        let before = usage();
        let held: Vec<_> = (0..10).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let mut sum = 0_u64;
        for number in 0..30_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        let after = usage();
        // Other tests open and close files meanwhile, but nothing of this size.
        assert!(after.open_fds + 100 >= before.open_fds + held.len() as u64, "{before:?} {after:?}");
        assert!(after.cpu > before.cpu && after.resident_bytes > 1 << 20 && after.max_fds > 10, "{after:?}");
    }
}
