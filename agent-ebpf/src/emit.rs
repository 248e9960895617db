//! The way out: filter, reserve, fill, submit, and count what could not be sent.
//!
//! The agent is woken when enough bytes wait, not per record; it looks by itself ten times a second. Only a process
//! that appears for the first time, and a refused call, wake it at once, because who it is about may be gone a moment later.

use agent_ebpf::{
    Address, Call, Counter, Header, RecordKind, SyscallRecord, Task, TaskNumber, TaskRecord, TimeWaitChange,
    TimeWaitRecord, TransitionRecord, conn_flag,
};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ktime_get_boot_ns,
};

use crate::{
    followed::{Connection, UNSEEN},
    maps::{COUNTERS, EVENTS, PendingCall},
    memory::{Memory, Probed},
    settings::{config, is_for_report},
    socket::{self, Common},
    states::{CLOSE, CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN},
    task,
};

/// A CPU asks how full the ring buffer is once in so many records: asking takes as long as sending half of one.
const LOOK_EVERY: u64 = 32;

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
fn header(kind: RecordKind, what: u8, flags: u16, netns: u32) -> Header {
    Header { kind: kind as u8, what, flags, netns, time_ns: now() }
}

/// Sends `record`, but for its last bytes. Looks how full the buffer is once in so many records.
#[inline(always)]
fn send<T>(record: &T, left_out: usize, lost: Counter) {
    let submitted = COUNTERS.get_ptr_mut(Counter::Submitted as u32);
    // SAFETY: the map hands out a pointer to this CPU's own, live value.
    let number = submitted.map_or(0, |value| unsafe { *value });
    let wakes = number & (LOOK_EVERY - 1) == 0
        && EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= u64::from(config!(wakeup_bytes));
    output(record, left_out, if wakes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }, lost);
}

/// Sends `record`, but for its last bytes, and counts it. False if there was no room.
#[inline(always)]
fn output<T>(record: &T, left_out: usize, wakeup: u32, lost: Counter) -> bool {
    // SAFETY: the records have no padding, and the slice lives no longer than `record`.
    let bytes = unsafe { core::slice::from_raw_parts((&raw const *record).cast::<u8>(), size_of::<T>() - left_out) };
    if EVENTS.output::<[u8]>(bytes, u64::from(wakeup)).is_err() {
        count(lost);
        return false;
    }
    count(Counter::Submitted);
    true
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
    transition::<Probed>(sk, CLOSE, CLOSE, &UNSEEN);
}

/// Sends a change of state.
#[inline(always)]
pub(crate) fn transition<M: Memory>(sk: u64, old_state: u8, new_state: u8, connection: &Connection) {
    let common = Common::<M>::of(sk);
    let Some(netns) = netns(&common, connection) else { return };
    // The kernel has let go of the port by the time a connection ends.
    let local_port = if connection.local_port != 0 { connection.local_port } else { socket::local_port(&common) };
    let remote_port = common.remote_port();
    let is_wanted_anyway = old_state == CLOSE && new_state == CLOSE;
    if !is_wanted_place(netns, local_port, remote_port)
        || has_task_filter() && !is_wanted_anyway && connection.opener.is_wanted | connection.closer.is_wanted == 0
    {
        count(Counter::Filtered);
        return;
    }
    let mut flags = connection.flags;
    let is_listener = old_state == LISTEN || new_state == LISTEN;
    if flags & (conn_flag::ACTIVE_OPEN | conn_flag::PASSIVE_OPEN) == 0
        && !is_listener
        && socket::is_of_a_listener::<M>(sk)
    {
        flags |= conn_flag::PASSIVE_OPEN;
    }
    if connection.born_ns != 0 || socket::is_younger_than_dumps::<M>(sk) {
        flags |= conn_flag::SEEN_BEGIN;
    }
    let in_full = !is_for_report();
    flags |= u16::from(in_full) * conn_flag::IN_FULL;
    let was_open = !matches!(old_state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK);
    let mut record = TransitionRecord {
        header: header(RecordKind::Transition, old_state << 4 | new_state, flags, netns),
        socket: if !in_full && connection.timewait != 0 { connection.timewait } else { sk },
        opener: connection.opener.count,
        closer: connection.closer.count,
        opener_origin: connection.opener.origin,
        closer_origin: connection.closer.origin,
        err: socket::error::<M>(sk) as u16,
        port_errno: connection.port_errno,
        local_port,
        remote_port,
        look: socket::look::<M>(sk, was_open),
        reuse: common.reuse(),
        timewait_state: connection.timewait_state,
        reserved: 0,
    };
    let rest = [connection.born_ns, connection.timewait];
    let left_out = if in_full { 0 } else { size_of_val(&rest) };
    if common.is_v6() {
        record.header.flags |= conn_flag::IS_V6;
        send(&(Sent { record, ends: common.v6_ends(), rest }), left_out, Counter::LostTransition);
    } else {
        send(&(Sent { record, ends: common.v4_ends(), rest }), left_out, Counter::LostTransition);
    }
}

/// A record, and what follows it.
#[repr(C)]
struct Sent<R, E, T> {
    record: R,
    ends: E,
    rest: T,
}

/// Inode number of the socket's network namespace, as it is known or has to be read. None if it could not be read, which is
/// counted.
#[inline(always)]
fn netns<M: Memory>(common: &Common<M>, known: &Connection) -> Option<u32> {
    let netns = if known.netns != 0 { known.netns } else { common.netns() };
    if netns == 0 {
        count(Counter::ReadFault);
        return None;
    }
    Some(netns)
}

/// Sends that a connection that was opened here ended, after the other side had closed it.
#[inline(always)]
pub(crate) fn closed_by_peer<M: Memory>(sk: u64, connection: &Connection) {
    let common = Common::<M>::of(sk);
    let Some(netns) = netns(&common, connection) else { return };
    let record = |version| header(RecordKind::ClosedByPeer, version, common.remote_port(), netns);
    if common.is_v6() {
        send(&Sent { record: record(6), ends: common.v6_ends(), rest: () }, 0, Counter::LostTransition);
    } else {
        send(&Sent { record: record(4), ends: common.v4_ends(), rest: () }, 0, Counter::LostTransition);
    }
}

/// Sends a refused bind() or listen().
#[inline(always)]
pub(crate) fn refused(call: Call, pending: &PendingCall, errno: u32) {
    let Some(netns) = netns(&Common::<Probed>::of(pending.sk), &UNSEEN) else { return };
    let task = task::read_current();
    if !is_wanted_place(netns, pending.port, pending.port) || has_task_filter() && !task::is_wanted(&task) {
        count(Counter::Filtered);
        return;
    }
    let record = SyscallRecord {
        header: header(RecordKind::Syscall, call as u8, 0, netns),
        errno,
        family: pending.family,
        port: pending.port,
        address: Address(pending.address),
        reuse: pending.reuse,
        flags: pending.flags,
        reserved: [0; 2],
        device: pending.device,
        uid: pending.uid,
        padding: 0,
        task,
    };
    // At once: who holds the port, and the process itself, may be gone a moment later.
    submit(&record, Counter::LostSyscall);
}

/// Sends a change of a timewait socket. Whose it was only the agent knows, so filters by process are its business.
#[inline(always)]
pub(crate) fn timewait(tw: u64, change: TimeWaitChange, substate: u8) {
    let common = Common::<Probed>::of(tw);
    let Some(netns) = netns(&common, &UNSEEN) else { return };
    // `tw_num` is `skc_num`, and stays: a timewait socket's port is not released before it is freed.
    let (local_port, remote_port) = (common.held_port(), common.remote_port());
    if !is_wanted_place(netns, local_port, remote_port) {
        count(Counter::Filtered);
        return;
    }
    let record = |flags| TimeWaitRecord {
        header: header(RecordKind::TimeWait, change as u8, flags, netns),
        timewait: tw,
        local_port,
        remote_port,
        substate,
        reserved: [0; 3],
    };
    if common.is_v6() {
        let ends = common.v6_ends();
        send(&Sent { record: record(conn_flag::IS_V6), ends, rest: () }, 0, Counter::LostTimeWait);
    } else {
        send(&Sent { record: record(0), ends: common.v4_ends(), rest: () }, 0, Counter::LostTimeWait);
    }
}

/// Announces a process and wakes the agent. False if there was no room.
#[inline(always)]
pub(crate) fn announcement(task: &Task, number: TaskNumber) -> bool {
    submit(&TaskRecord { header: header(RecordKind::Task, 0, 0, 0), number, task: *task }, Counter::LostTask)
}

/// Sends a record and wakes the agent. False if there was no room.
#[inline(always)]
fn submit<T>(record: &T, lost: Counter) -> bool {
    output(record, 0, BPF_RB_FORCE_WAKEUP, lost)
}
