//! The way out: filter, reserve, fill, submit, and count what could not be sent.
//!
//! The agent is woken when enough bytes wait, not per record; it looks by itself ten times a second. Only a process
//! that appears for the first time wakes it at once, because it may be gone a moment later.

use agent_ebpf::{
    Address, Call, Counter, Header, RecordKind, SyscallRecord, Task, TaskRecord, TimeWaitChange, TimeWaitRecord,
    TransitionRecord,
};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
};

use crate::{
    maps::{COUNTERS, Connection, EVENTS, PendingCall, UNSEEN},
    settings::config,
    socket, task,
};

const CLOSE: u8 = 7;

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the map hands out a pointer to this CPU's own, live value.
        unsafe { *value = (*value).wrapping_add(1) };
    }
}

/// `CLOCK_BOOTTIME` in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn header(kind: RecordKind) -> Header {
    // SAFETY: the helper has no preconditions.
    Header { kind: kind as u32, cpu: unsafe { bpf_get_smp_processor_id() }, time_ns: now() }
}

#[inline(always)]
fn wakeup() -> u64 {
    let flag = if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= u64::from(config!(wakeup_bytes)) {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    u64::from(flag)
}

#[inline(always)]
fn is_wanted_task(task: &Task) -> bool {
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
    let word = |at: usize| {
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
    };
    let (first, second) = (word(0), word(8));
    // The top bit of each zero byte, and maybe of bytes above the lowest one.
    let ends = |word: u64| word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
    // Everything below the lowest bit set; everything if none is.
    let before = |ends: u64| (ends & ends.wrapping_neg()).wrapping_sub(1);
    let goes_on = 0_u64.wrapping_sub(u64::from(ends(first) == 0));
    (first & before(ends(first)), second & before(ends(second)) & goes_on)
}

#[inline(always)]
fn has_task_filter() -> bool {
    config!(filter.tgid) != 0 || config!(filter.cgroup) != 0 || config!(filter.has_comm) != 0
}

#[inline(always)]
fn is_wanted_place(netns: u32, local_port: u16, remote_port: u16) -> bool {
    let (port, wanted_netns) = (config!(filter.port), config!(filter.netns));
    (wanted_netns == 0 || wanted_netns == netns)
        && (port == 0 || port == u32::from(local_port) || port == u32::from(remote_port))
}

/// Takes back the record before this one, see [`TransitionRecord`]. It names no process, and no filter by process
/// holds it back: whoever did not get the first record has nothing to take back.
#[inline(always)]
pub(crate) fn retraction(sk: u64) {
    transition(sk, CLOSE, CLOSE, &UNSEEN);
}

/// Sends a change of state.
#[inline(always)]
pub(crate) fn transition(sk: u64, old_state: u8, new_state: u8, connection: &Connection) {
    let Ok(netns) = socket::netns(sk) else {
        count(Counter::ReadFault);
        return;
    };
    let (local_port, remote_port) = (socket::local_port(sk), socket::remote_port(sk));
    let is_wanted_anyway = old_state == CLOSE && new_state == CLOSE;
    if !is_wanted_place(netns, local_port, remote_port)
        || has_task_filter()
            && !is_wanted_anyway
            && !is_wanted_task(&connection.opener)
            && !is_wanted_task(&connection.closer)
    {
        count(Counter::Filtered);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<TransitionRecord>(0) else {
        count(Counter::LostTransition);
        return;
    };
    let record = entry.as_mut_ptr();
    let family = socket::family(sk);
    let mut facts = socket::facts(sk);
    facts.born_ns = connection.born_ns;
    facts.flags = connection.flags;
    // SAFETY: the entry is a whole, aligned `TransitionRecord` of our own until it is submitted, and every member is
    // written below. Member by member, because the record and its parts would not fit the 512-byte stack together.
    unsafe {
        (&raw mut (*record).header).write(header(RecordKind::Transition));
        (&raw mut (*record).sk).write(sk);
        (&raw mut (*record).netns).write(netns);
        (&raw mut (*record).family).write(family);
        (&raw mut (*record).old_state).write(old_state);
        (&raw mut (*record).new_state).write(new_state);
        socket::read_local_address(sk, family, &raw mut (*record).local);
        socket::read_remote_address(sk, family, &raw mut (*record).remote);
        (&raw mut (*record).local_port).write(local_port);
        (&raw mut (*record).remote_port).write(remote_port);
        (&raw mut (*record).port_errno).write(connection.port_errno);
        (&raw mut (*record).timewait_state).write(connection.timewait_state);
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).timewait).write(connection.timewait);
        (&raw mut (*record).facts).write(facts);
        (&raw mut (*record).opener).write(connection.opener);
        (&raw mut (*record).closer).write(connection.closer);
    }
    count(Counter::Submitted);
    entry.submit(wakeup());
}

/// Sends a refused bind() or listen().
#[inline(always)]
pub(crate) fn refused(call: Call, pending: &PendingCall, errno: u32) {
    let Ok(netns) = socket::netns(pending.sk) else {
        count(Counter::ReadFault);
        return;
    };
    let mut task = UNSEEN.opener;
    task::record_current(&mut task);
    if !is_wanted_place(netns, pending.port, pending.port) || has_task_filter() && !is_wanted_task(&task) {
        count(Counter::Filtered);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<SyscallRecord>(0) else {
        count(Counter::LostSyscall);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: as in `transition`.
    unsafe {
        (&raw mut (*record).header).write(header(RecordKind::Syscall));
        (&raw mut (*record).sk).write(pending.sk);
        (&raw mut (*record).netns).write(netns);
        (&raw mut (*record).call).write(call as u32);
        (&raw mut (*record).errno).write(errno);
        (&raw mut (*record).family).write(pending.family);
        (&raw mut (*record).port).write(pending.port);
        (&raw mut (*record).address).write(Address(pending.address));
        (&raw mut (*record).reuse).write(pending.reuse);
        (&raw mut (*record).flags).write(pending.flags);
        (&raw mut (*record).reserved).write([0; 2]);
        (&raw mut (*record).device).write(pending.device);
        (&raw mut (*record).uid).write(pending.uid);
        (&raw mut (*record).padding).write(0);
        (&raw mut (*record).task).write(task);
    }
    count(Counter::Submitted);
    entry.submit(wakeup());
}

/// Sends a change of a timewait socket. Whose it was only the agent knows, so filters by process are its business.
#[inline(always)]
pub(crate) fn timewait(tw: u64, change: TimeWaitChange, substate: u8) {
    let Ok(netns) = socket::netns(tw) else {
        count(Counter::ReadFault);
        return;
    };
    // `tw_num` is `skc_num`, and stays: a timewait socket's port is not released before it is freed.
    let (local_port, remote_port) = (socket::held_port(tw), socket::remote_port(tw));
    if !is_wanted_place(netns, local_port, remote_port) {
        count(Counter::Filtered);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<TimeWaitRecord>(0) else {
        count(Counter::LostTimeWait);
        return;
    };
    let family = socket::family(tw);
    let record = entry.as_mut_ptr();
    // SAFETY: as in `transition`.
    unsafe {
        (&raw mut (*record).header).write(header(RecordKind::TimeWait));
        (&raw mut (*record).timewait).write(tw);
        (&raw mut (*record).netns).write(netns);
        (&raw mut (*record).family).write(family);
        (&raw mut (*record).change).write(change as u8);
        (&raw mut (*record).substate).write(substate);
        socket::read_local_address(tw, family, &raw mut (*record).local);
        socket::read_remote_address(tw, family, &raw mut (*record).remote);
        (&raw mut (*record).local_port).write(local_port);
        (&raw mut (*record).remote_port).write(remote_port);
        (&raw mut (*record).reserved).write(0);
    }
    count(Counter::Submitted);
    entry.submit(wakeup());
}

/// Announces a process and wakes the agent. False if there was no room.
#[inline(always)]
pub(crate) fn announcement(task: &Task) -> bool {
    let Some(mut entry) = EVENTS.reserve::<TaskRecord>(0) else {
        count(Counter::LostTask);
        return false;
    };
    entry.write(TaskRecord { header: header(RecordKind::Task), task: *task });
    count(Counter::Submitted);
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    true
}
