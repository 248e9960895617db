//! The current process. Only to be asked in process context: in softirq, `current` is whoever was interrupted.

use agent_ebpf::{Task, task_flag};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_task},
    },
};

use crate::{emit, maps::TASKS_SEEN, settings::offset};

/// `PF_KTHREAD`, include/linux/sched.h; the value has not changed since 2.6.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Reads a `T` at `offset` bytes behind `base`.
#[inline(always)]
pub(crate) fn read<T>(base: u64, offset: usize) -> Result<T, i32> {
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    unsafe { bpf_probe_read_kernel((base as usize).wrapping_add(offset) as *const T) }
}

/// Writes down the process that runs now: its thread group leader's name and start, not the thread's.
#[inline(always)]
pub(crate) fn record_current(who: &mut Task) {
    // SAFETY: neither helper has preconditions.
    let (task, cgroup) = unsafe { (bpf_get_current_task(), bpf_get_current_cgroup_id()) };
    let leader = read::<u64>(task, offset!(task_group_leader)).unwrap_or(task);
    let is_kernel_thread = read::<u32>(task, offset!(task_flags)).unwrap_or(0) & PF_KTHREAD != 0;
    who.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    who.uid = bpf_get_current_uid_gid() as u32;
    who.start_ns = read(leader, offset!(task_start_boottime)).unwrap_or(0);
    who.cgroup = cgroup;
    who.comm = read(leader, offset!(task_comm)).unwrap_or([0; 16]);
    who.flags = task_flag::PRESENT | if is_kernel_thread { task_flag::KERNEL_THREAD } else { 0 };
    who.reserved = 0;
    announce(who);
}

/// Tells the agent of a process the first time it appears, so that its path and unit are read while it lives.
#[inline(always)]
fn announce(who: &Task) {
    // SAFETY: the value is copied at once; a concurrent update of the same key would be the same process.
    let known = unsafe { TASKS_SEEN.get(who.tgid) }.copied();
    if known == Some(who.start_ns) {
        return;
    }
    if emit::announcement(who) {
        // A full table evicts; the process is then announced again.
        let _ = TASKS_SEEN.insert(who.tgid, who.start_ns, u64::from(BPF_ANY));
    }
}
