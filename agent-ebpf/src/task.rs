//! The current process. Only to be asked in process context: in softirq, `current` is whoever was interrupted.

use core::ffi::c_void;

use agent_ebpf::{Task, task_flag};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{
        self, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_task, bpf_probe_read_kernel},
    },
};
use zerocopy::FromZeros;

use crate::{emit, maps::TASKS_SEEN, settings::offset};

/// `PF_KTHREAD`, include/linux/sched.h; the value has not changed since 2.6.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Reads a `T` at `offset` bytes behind `base`.
#[inline(always)]
pub(crate) fn read<T>(base: u64, offset: usize) -> Result<T, i32> {
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    unsafe { helpers::bpf_probe_read_kernel((base as usize).wrapping_add(offset) as *const T) }
}

/// The same, and zero where it cannot be read: the helper sees to that itself. Without a branch, because the verifier of
/// older kernels (6.1) follows each branch of a program to its end.
#[inline(always)]
pub(crate) fn read_or_zero<T: FromZeros>(base: u64, offset: usize) -> T {
    let mut value = T::new_zeroed();
    let source = (base as usize).wrapping_add(offset) as *const c_void;
    // SAFETY: `value` is writable and as long as said; the helper checks the source itself, and on failure clears
    // `value`, all of whose bits may be zero.
    let _ = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, source) };
    value
}

/// Writes down the process that runs now: its thread group leader's name and start, not the thread's.
#[inline(always)]
pub(crate) fn record_current(who: &mut Task) {
    // SAFETY: neither helper has preconditions.
    let (task, cgroup) = unsafe { (bpf_get_current_task(), bpf_get_current_cgroup_id()) };
    let leader = read_or_zero::<u64>(task, offset!(task_group_leader));
    let is_kernel_thread = read_or_zero::<u32>(task, offset!(task_flags)) & PF_KTHREAD != 0;
    who.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    who.uid = bpf_get_current_uid_gid() as u32;
    who.start_ns = read_or_zero(leader, offset!(task_start_boottime));
    who.cgroup = cgroup;
    who.comm = read_or_zero(leader, offset!(task_comm));
    who.flags = task_flag::PRESENT | u32::from(is_kernel_thread) * task_flag::KERNEL_THREAD;
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
