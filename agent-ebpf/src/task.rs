//! The current process. Only to be asked in process context: in softirq, `current` is whoever was interrupted.

use agent_ebpf::{Task, TaskNumber, task_flag};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_smp_processor_id},
};

use crate::{
    emit,
    followed::Who,
    maps::{Announced, LAST_SEEN, LastSeen, TASKS_SEEN},
    memory::{Memory, Probed, read_or_zero},
    settings::{config, offset},
};

/// `PF_KTHREAD`, include/linux/sched.h; the value has not changed since 2.6.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A program that gives numbers to processes.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Program {
    Transitions = 0,
    TransitionsSkipped = 1,
    Accept = 2,
}

/// The process that runs now: its thread group leader's name and start, not the thread's. Whoever appears for the first
/// time, or has got another name, user or cgroup, is announced to the agent before.
#[inline(always)]
pub(crate) fn current<M: Memory>(program: Program) -> Who {
    let Some(last) = LAST_SEEN.get_ptr_mut(program as u32) else { return Who::of(TaskNumber::LOST, true) };
    // SAFETY: this CPU's and this program's own, live value, see `LAST_SEEN`.
    let last = unsafe { &mut *last };
    let thread = M::current_thread();
    let looks = Looks::of::<M>(thread);
    if last.thread == thread && looks == Looks::from(&last.announced.task) {
        return Who::of(last.announced.number, last.is_wanted != 0);
    }
    let task = looks.task(thread);
    let number = number(program, last, &task);
    if number == TaskNumber::LOST {
        last.thread = 0;
        return Who::of(number, is_wanted(&task));
    }
    last.thread = thread;
    last.announced = Announced { task, number };
    last.is_wanted = u32::from(is_wanted(&task));
    Who::of(number, last.is_wanted != 0)
}

/// The process that runs now.
#[inline(always)]
pub(crate) fn read_current() -> Task {
    let thread = Probed::current_thread();
    Looks::of::<Probed>(thread).task(thread)
}

/// What can change of the process a thread belongs to, and tells it from others.
#[derive(Clone, Copy)]
struct Looks {
    start_ns: u64,
    cgroup: u64,
    comm: [u64; 2],
    uid: u32,
}

impl Looks {
    #[inline(always)]
    fn of<M: Memory>(thread: u64) -> Self {
        let leader = M::get::<u64>(thread, offset!(task_group_leader));
        Self {
            start_ns: M::get(leader, offset!(task_start_boottime)),
            cgroup: M::current_cgroup(thread),
            comm: [M::get(leader, offset!(task_comm)), M::get(leader, offset!(task_comm) + 8)],
            uid: M::current_uid(thread),
        }
    }

    /// All that is known of the process of the current thread.
    #[inline(always)]
    fn task(&self, thread: u64) -> Task {
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let is_kernel_thread = read_or_zero::<u32>(thread, offset!(task_flags)) & PF_KTHREAD != 0;
        Task {
            tgid,
            uid: self.uid,
            start_ns: self.start_ns,
            cgroup: self.cgroup,
            comm: zerocopy::transmute!(self.comm),
            flags: task_flag::PRESENT
                | u32::from(is_kernel_thread) * task_flag::KERNEL_THREAD
                | u32::from(tgid == config!(agent_tgid)) * task_flag::AGENT,
            reserved: 0,
        }
    }
}

impl From<&Task> for Looks {
    #[inline(always)]
    fn from(task: &Task) -> Self {
        let comm = [half(&task.comm, 0), half(&task.comm, 8)];
        Self { start_ns: task.start_ns, cgroup: task.cgroup, comm, uid: task.uid }
    }
}

impl PartialEq for Looks {
    /// Without branches: the verifier of older kernels follows each to its end.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (self.start_ns ^ other.start_ns)
            | (self.cgroup ^ other.cgroup)
            | (self.comm[0] ^ other.comm[0])
            | (self.comm[1] ^ other.comm[1])
            | u64::from(self.uid ^ other.uid)
            == 0
    }
}

/// The number that stands for a process. A new one is announced; [`TaskNumber::LOST`] if that cannot be done.
#[inline(always)]
fn number(program: Program, last: &mut LastSeen, task: &Task) -> TaskNumber {
    // SAFETY: the value is read at once; a concurrent update of the same key would be the same process.
    if let Some(known) = unsafe { TASKS_SEEN.get(task.tgid) }
        && Looks::from(&known.task) == Looks::from(task)
    {
        return known.number;
    }
    last.count = last.count.wrapping_add(1);
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let origin = (cpu << TaskNumber::PROGRAM_BITS | program as u32) as u16;
    let number = TaskNumber { count: last.count, origin, reserved: 0 };
    if !emit::announcement(task, number) {
        return TaskNumber::LOST;
    }
    // A full table evicts; the process is then announced again.
    let _ = TASKS_SEEN.insert(task.tgid, Announced { task: *task, number }, u64::from(BPF_ANY));
    number
}

/// Whether it is one of those the session's filter asks for.
#[inline(always)]
pub(crate) fn is_wanted(task: &Task) -> bool {
    let (tgid, cgroup) = (config!(filter.tgid), config!(filter.cgroup));
    if tgid != 0 && tgid != task.tgid || cgroup != 0 && cgroup != task.cgroup {
        return false;
    }
    if config!(filter.has_comm) != 0 {
        let wanted = config!(filter.comm);
        return words(&wanted) == words(&task.comm);
    }
    true
}

/// A name as two words, without what is behind its end: kernels before 5.11 leave the rest of a longer name there.
/// Without branches, and as words instead of bytes: the verifier follows every branch.
#[inline(always)]
fn words(comm: &[u8; 16]) -> (u64, u64) {
    let (first, second) = (half(comm, 0), half(comm, 8));
    // The top bit of each zero byte, and maybe of bytes above the lowest one.
    let ends = |word: u64| word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
    // Everything below the lowest bit set; everything if none is.
    let before = |ends: u64| (ends & ends.wrapping_neg()).wrapping_sub(1);
    let goes_on = 0_u64.wrapping_sub(u64::from(ends(first) == 0));
    (first & before(ends(first)), second & before(ends(second)) & goes_on)
}

/// Eight bytes of a name as a word.
#[inline(always)]
fn half(comm: &[u8; 16], at: usize) -> u64 {
    u64::from_le_bytes([
        comm[at],
        comm[at + 1],
        comm[at + 2],
        comm[at + 3],
        comm[at + 4],
        comm[at + 5],
        comm[at + 6],
        comm[at + 7],
    ])
}
