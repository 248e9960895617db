//! Capabilities: which are needed once the programs are attached, and giving up all others for good.
//!
//! They belong to a thread. So they are given up while there is one thread only, and every later one begins without them;
//! where there are more, nothing is given up and that is an error. `docs/capabilities.md` says what each is needed for.

use std::{fs, io, thread, time::Duration};

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use super::host::is_at_least;

/// Since this version a program that is loaded can be asked for its counters without CAP_BPF, whatever
/// `kernel.unprivileged_bpf_disabled` says (c8644cd0efe7, "bpf: refine kernel.unprivileged_bpf_disabled behaviour").
const COUNTERS_ARE_FREE: (u32, u32) = (5, 19);

/// Before this version sock_diag does not list sockets that are bound and nothing else. They are asked by their descriptors
/// for the namespace they are in, which takes CAP_NET_ADMIN (SIOCGSKNS).
const LISTS_BOUND_SOCKETS: (u32, u32) = (6, 8);
/// Milliseconds after which a thread that is still listed is one that runs.
const GONE_AFTER: u32 = 2_000;

/// What is needed after the programs are attached, on a kernel of this release.
#[must_use]
pub fn needed_later(kernel: &str) -> CapabilitySet {
    let mut needed = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::SYS_ADMIN;
    needed.set(CapabilitySet::BPF, !is_at_least(kernel, COUNTERS_ARE_FREE));
    needed.set(CapabilitySet::NET_ADMIN, !is_at_least(kernel, LISTS_BOUND_SOCKETS));
    needed
}

/// Gives up every capability but those of `kept` that this process has, also for whatever it might execute. Returns what is
/// left.
///
/// # Errors
/// There is more than one thread; or the kernel refuses, in which case nothing or only a part was given up.
pub fn keep_only(kept: CapabilitySet) -> io::Result<CapabilitySet> {
    let threads = threads()?;
    if threads != 1 {
        return Err(io::Error::other(format!("there are {threads} threads, and each has its own capabilities")));
    }
    let left = capabilities(None)?.permitted & kept;
    // Takes CAP_SETPCAP, which a unit need not grant: what is executed gains nothing then, for want of new privileges.
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(one) {
            // EINVAL: this kernel has no such capability. EPERM: see above.
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() })?;
    set_no_new_privs(true)?;
    Ok(left)
}

/// How many there are. One that was joined a moment ago can be listed for a moment more.
fn threads() -> io::Result<usize> {
    let mut threads = 0;
    for _ in 0..GONE_AFTER {
        threads = fs::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(threads)
}

/// Their names, as documents write them: `CAP_SYS_ADMIN`.
#[must_use]
pub fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the table in docs/capabilities.md: name, and what it says of keeping it.
    fn documented() -> Vec<(String, String)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/capabilities.md");
        let text = fs::read_to_string(path).unwrap();
        let rows = text.lines().filter(|line| line.starts_with("| `CAP_"));
        let cell = |line: &str, place| line.split('|').nth(place).unwrap().trim().trim_matches('`').to_owned();
        rows.map(|line| (cell(line, 1), cell(line, 2))).collect()
    }

    #[test]
    fn what_is_kept_is_what_is_documented() {
        for (kernel, words) in [
            ("5.10.0-30-amd64", &["yes", "before 5.19", "before 6.8"][..]),
            ("6.1.0", &["yes", "before 6.8"]),
            ("6.18.0", &["yes"]),
        ] {
            let documented = documented();
            let kept = documented.iter().filter(|(_, kept)| words.contains(&kept.as_str()));
            let mut kept: Vec<_> = kept.map(|(name, _)| name.clone()).collect();
            let mut needed = names(needed_later(kernel));
            kept.sort_unstable();
            needed.sort_unstable();
            assert_eq!(needed, kept, "{kernel}");
        }
    }

    #[test]
    fn nothing_is_given_up_while_there_are_other_threads() {
        // The test harness is one.
        let before = capabilities(None).unwrap();
        let error = keep_only(CapabilitySet::empty()).unwrap_err();
        assert!(error.to_string().contains("threads"), "{error}");
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
