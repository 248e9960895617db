//! What the kernel says of a process that is measured, from `/proc/PID`.

use std::fs;

/// CPU time of all its threads together, in milliseconds.
pub(super) fn cpu_ms(pid: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let spent = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(spent.sum::<u64>() as f64 / 1e6)
}

/// The memory it has now, in MiB.
pub(super) fn rss_mib(pid: u32) -> Option<f64> {
    status_mib(pid, "VmRSS:")
}

/// The most memory it had so far, in MiB.
pub(super) fn peak_mib(pid: u32) -> Option<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, name).map(|kib| kib as f64 / 1024.0)
}

/// What the kernel says of each eBPF program a process has (`/proc/PID/fdinfo`).
pub(super) fn programs_of(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let infos = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos.filter(|info| info.contains("prog_tag:") && !info.contains("link_type:")).collect()
}

/// How many descriptors it has by which a program is attached: links, and before Linux 5.15 the perf events of kprobes and
/// tracepoints. Names of descriptors are read and not their contents, so that this can be asked each millisecond.
pub(super) fn attachments(pid: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let names = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    names.filter(|name| name.to_str().is_some_and(attaches)).count()
}

fn attaches(descriptor: &str) -> bool {
    ["bpf_link", "bpf-link", "bpf-raw-tracepoint", "perf_event"]
        .iter()
        .any(|kind| descriptor.strip_prefix("anon_inode:").is_some_and(|name| name.trim_matches(['[', ']']) == *kind))
}

/// `name: 123` of a file of such lines.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        assert_eq!(field("Name:\tx\nVmHWM:\t  1234 kB\n", "VmHWM:"), Some(1_234));
        assert_eq!(field("run_time_ns:\tx\n", "run_time_ns:"), None);
    }

    #[test]
    fn a_program_is_attached_by_links_and_perf_events() {
        assert!(attaches("anon_inode:bpf_link") && attaches("anon_inode:[perf_event]"));
        assert!(!attaches("anon_inode:bpf-prog") && !attaches("anon_inode:[eventpoll]") && !attaches("/tmp/bpf_link"));
    }
}
