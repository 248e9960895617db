//! Every map but those of the sockets that are followed, with the reason for its size.

use agent_ebpf::{Counter, DURATION_BUCKETS, Task, TaskNumber, duration_bucket};
use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};

use crate::emit;

/// A process that was announced, and the number that stands for it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Announced {
    pub(crate) task: Task,
    pub(crate) number: TaskNumber,
}

/// What a program saw last on its CPU: as a rule the next connection is of the same process.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct LastSeen {
    /// Address of its thread's `struct task_struct`
    pub(crate) thread: u64,
    pub(crate) announced: Announced,
    /// Numbers given so far
    pub(crate) count: u32,
    pub(crate) is_wanted: u32,
}

/// A bind() or listen() between its entry and its exit.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct PendingCall {
    pub(crate) sk: u64,
    pub(crate) address: [u8; 16],
    /// Host order
    pub(crate) port: u16,
    /// 0: the address could not be read
    pub(crate) family: u16,
    /// The byte of `skc_reuse`, `skc_reuseport`, `skc_ipv6only`
    pub(crate) reuse: u8,
    /// 1: its conflict was reported where it happened, in `inet_csk_get_port()`
    pub(crate) is_reported: u8,
    /// `ask_flag` bits
    pub(crate) flags: u8,
    pub(crate) reserved: u8,
    /// `sk_bound_dev_if`
    pub(crate) device: u32,
    /// `sk_uid`
    pub(crate) uid: u32,
}

/// What goes on with a timewait socket on this CPU: where it is taken away tells why. All of it happens with softirqs
/// disabled, so nothing comes between a note and the moment it is read, and one at a time is enough. A note that nobody
/// came to read goes with the next one.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Notes {
    /// The timewait socket, 0 for none
    pub(crate) timewait: u64,
    /// When, `CLOCK_BOOTTIME` in nanoseconds
    pub(crate) noted_ns: u64,
    /// What goes on with it
    pub(crate) what: Doing,
    /// Its substate when a segment arrived for it
    pub(crate) substate: u8,
    /// 1: the segment is a SYN
    pub(crate) is_syn: u8,
    /// 1: `inet_twsk_alloc()` has just returned nothing
    pub(crate) is_refused: u8,
}

/// See [`Notes::what`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// What a map begins with
    Nothing = 0,
    /// Its timer runs
    Expires = 1,
    /// `tcp_twsk_unique()` looks whether a connect() may have its four numbers, or has given them
    Reuses = 2,
    /// `tcp_timewait_state_process()` looks at a segment
    Receives = 3,
    /// It has found a SYN that may have the four numbers
    TakesSyn = 4,
    /// It has found a reason for a RST
    SendsReset = 5,
}

/// The arguments of a function a thread is in, for where it returns.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Arguments {
    pub(crate) sk: u64,
    pub(crate) port: u64,
}

/// 4 MiB hold 65,000 records of ended connections: 0.6 s of 100,000 connections a second while the agent is not scheduled.
/// The agent sets the size it wants at load.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// How often connect() looked for a port for how long, by `duration_bucket()`.
#[map]
pub(crate) static SEARCHES: PerCpuArray<u64> = PerCpuArray::with_max_entries(DURATION_BUCKETS, 0);

/// How many connections took how long from SYN_SENT to ESTABLISHED, by the same. Counted for [`Detail::Ends`] alone.
///
/// [`Detail::Ends`]: agent_ebpf::Detail::Ends
#[map]
pub(crate) static HANDSHAKES: PerCpuArray<u64> = PerCpuArray::with_max_entries(DURATION_BUCKETS, 0);

/// Counts a duration that began at `since_ns` in one of the two histograms above.
#[inline(always)]
pub(crate) fn count_duration(histogram: &PerCpuArray<u64>, since_ns: u64) {
    if let Some(count) = histogram.get_ptr_mut(duration_bucket(emit::now().wrapping_sub(since_ns))) {
        // SAFETY: this CPU's own, live value.
        unsafe { *count = (*count).wrapping_add(1) };
    }
}

/// By thread group. An LRU does here: whoever falls out is announced once more.
#[map]
pub(crate) static TASKS_SEEN: LruHashMap<u32, Announced> = LruHashMap::with_max_entries(16_384, 0);

/// One for each program that gives numbers: no program runs twice at a time on a CPU (since 5.12 the kernel sees to that,
/// before it no program loses its CPU), so nobody else writes there.
#[map]
pub(crate) static LAST_SEEN: PerCpuArray<LastSeen> = PerCpuArray::with_max_entries(1 << TaskNumber::PROGRAM_BITS, 0);

/// One entry for each thread inside bind() or listen().
#[map]
pub(crate) static CALLS: LruHashMap<u64, PendingCall> = LruHashMap::with_max_entries(4_096, 0);

/// Address of the socket that left FIN_WAIT2 or CLOSING on this CPU just now, 0 for none: a RST of the same socket
/// takes the timewait socket back that this would have been.
#[map]
pub(crate) static CLAIM: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// Threads that take timewait sockets away on somebody's behalf: [`PURGES`], or the address of the socket they destroy.
/// An LRU does here: a note that is lost makes a reason unknown, never wrong.
#[map]
pub(crate) static TAKERS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1_024, 0);

/// Value in [`TAKERS`] of a thread that dismantles network namespaces.
pub(crate) const PURGES: u64 = 1;

/// kretprobes see what a function returns, not what it was given.
#[map]
pub(crate) static ARGUMENTS: LruHashMap<u64, Arguments> = LruHashMap::with_max_entries(4_096, 0);
