//! The kernel's clock of eBPF programs: how long they run, and what it costs to find out.
//!
//! It is read twice each time a program runs, which takes longer than a short program does. So it must run in the rounds that
//! want its figures and in no other.

use std::{fs, os::fd::OwnedFd};

use anyhow::{Context as _, Result};

use super::syscall::bpf;

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

// enum bpf_cmd, enum bpf_stats_type (include/uapi/linux/bpf.h), since 5.8
const BPF_ENABLE_STATS: i32 = 32;
const BPF_STATS_RUN_TIME: u32 = 0;

/// While it lives, the clock runs. The kernel stops it with the process, however that ends.
pub(super) struct Statistics {
    _enabled: OwnedFd,
}

impl Statistics {
    pub(super) fn on() -> Result<Self> {
        let enabled = bpf(BPF_ENABLE_STATS, &BPF_STATS_RUN_TIME).context("let the kernel time eBPF programs")?;
        Ok(Self { _enabled: enabled })
    }
}

/// While it lives, the clock does not run for others either. Then it does as before.
pub(super) struct NoStatistics {
    before: String,
}

impl NoStatistics {
    /// None where it does not run.
    pub(super) fn ensure() -> Result<Option<Self>> {
        let before = fs::read_to_string(SETTING).with_context(|| format!("read {SETTING}"))?.trim().to_owned();
        if before == "0" {
            return Ok(None);
        }
        eprintln!("kernel.bpf_stats_enabled is {before}: every eBPF program pays for it, so not in this bench");
        fs::write(SETTING, "0").with_context(|| format!("write {SETTING}"))?;
        Ok(Some(Self { before }))
    }
}

impl Drop for NoStatistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SETTING, &self.before) {
            eprintln!("{SETTING} is 0 and was {}: {error}", self.before);
        }
    }
}
