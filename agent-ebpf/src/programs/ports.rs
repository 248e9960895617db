//! The search for a local port: bind() and listen() that lose a conflict, connect() that finds none.

use agent_ebpf::{Address, Call, Counter, conn_flag};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use super::syscalls::asking;
use crate::{
    emit, followed,
    maps::{ARGUMENTS, Arguments, CALLS, PendingCall, SEARCHES, count_duration},
    memory::Probed,
    socket,
    states::LISTEN,
};

const AF_INET6: u16 = 10;
/// `skc_ipv6only` in the byte of the options
const V6_ONLY: u8 = 0x20;
const EADDRINUSE: u32 = 98;

/// Hook: fexit `inet_csk_get_port`
/// Prototype: `int (struct sock *sk, unsigned short snum)`
/// Context: process
/// Sees: every bind() and listen() that is refused for a conflict, also of io_uring, of 32-bit programs and of MPTCP
/// Misses: refusals before it is asked (a foreign address, a privileged port); the system calls have those
#[fexit]
fn fexit_inet_csk_get_port(ctx: FExitContext) -> i32 {
    searched(ctx.arg(0), ctx.arg::<u64>(1) as u16, ctx.arg::<u64>(2) as i32);
    0
}

/// Hook: fexit `inet_hash_connect`
/// Prototype: `int (struct inet_timewait_death_row *death_row, struct sock *sk)`
/// Context: process
/// Sees: connect() that finds no local port, or finds its four numbers taken, before the transition back to CLOSE; and
/// how long it looked
#[fexit]
fn fexit_inet_hash_connect(ctx: FExitContext) -> i32 {
    connected(ctx.arg(1), ctx.arg::<u64>(2) as i32);
    0
}

/// Hook: fexit `inet6_hash_connect`
/// Prototype and context: as above
#[fexit]
fn fexit_inet6_hash_connect(ctx: FExitContext) -> i32 {
    connected(ctx.arg(1), ctx.arg::<u64>(2) as i32);
    0
}

/// Hook: kprobe and kretprobe `inet_csk_get_port`
/// Context: process
#[kprobe]
fn kprobe_inet_csk_get_port(ctx: ProbeContext) -> u32 {
    keep(ctx.arg(0), ctx.arg(1));
    0
}

#[kretprobe]
fn kretprobe_inet_csk_get_port(ctx: RetProbeContext) -> u32 {
    if let Some(arguments) = kept() {
        searched(arguments.sk, arguments.port as u16, ctx.ret::<u64>() as i32);
    }
    0
}

/// Hook: kprobe and kretprobe `inet_hash_connect`, `inet6_hash_connect`
/// Context: process
#[kprobe]
fn kprobe_inet_hash_connect(ctx: ProbeContext) -> u32 {
    keep(ctx.arg(1), None);
    0
}

#[kretprobe]
fn kretprobe_inet_hash_connect(ctx: RetProbeContext) -> u32 {
    if let Some(arguments) = kept() {
        connected(arguments.sk, ctx.ret::<u64>() as i32);
    }
    0
}

#[inline(always)]
fn keep(sk: Option<u64>, port: Option<u64>) {
    let arguments = Arguments { sk: sk.unwrap_or(0), port: port.unwrap_or(0) };
    if ARGUMENTS.insert(bpf_get_current_pid_tgid(), &arguments, u64::from(BPF_ANY)).is_err() {
        emit::count(Counter::CallsFull);
    }
}

#[inline(always)]
fn kept() -> Option<Arguments> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the entry is this thread's, which is here and not in another call.
    let arguments = unsafe { ARGUMENTS.get(thread) }.copied();
    // It may have been evicted.
    let _ = ARGUMENTS.remove(thread);
    arguments
}

/// A bind() or listen() asked for a port.
#[inline(always)]
fn searched(sk: u64, port: u16, result: i32) {
    if result == 0 || !socket::is_tcp::<Probed>(sk) {
        return;
    }
    // 1 before 5.17, where the callers made EADDRINUSE of it.
    let errno = if result < 0 { result.unsigned_abs() } else { EADDRINUSE };
    let call = if socket::state(sk) == LISTEN { Call::Listen } else { Call::Bind };
    let family = socket::family(sk);
    let mut address = Address([0; 16]);
    socket::read_local_address(sk, family, &raw mut address);
    let mut reuse = socket::reuse(sk);
    if family == AF_INET6 && address.0 != [0; 16] {
        // __inet6_bind() sets the bit itself for as long as it asks for a certain address.
        reuse &= !V6_ONLY;
    }
    if let Some(entered) = CALLS.get_ptr_mut(bpf_get_current_pid_tgid()) {
        // SAFETY: the entry is this thread's, which is here and not in another call.
        let entered = unsafe { &mut *entered };
        entered.is_reported = 1;
        if entered.sk == sk {
            reuse = entered.reuse;
        }
    }
    let pending = PendingCall { address: address.0, port, family, reuse, is_reported: 1, ..asking(sk) };
    emit::refused(call, &pending, errno);
}

/// A connect() looked for a port, or for whether its four numbers are free. It began right after the transition to
/// SYN_SENT (`tcp_v4_connect()`), which is where the time of the search is counted from.
#[inline(always)]
fn connected(sk: u64, result: i32) {
    let Some(connection) = followed::known(sk) else { return };
    // SAFETY: the map hands out a live value, which only the CPU that holds the socket's lock changes.
    let connection = unsafe { &mut *connection };
    if result < 0 {
        connection.port_errno = result.unsigned_abs() as u16;
    }
    // A port that bind() chose is not looked for.
    if connection.flags & (conn_flag::ACTIVE_OPEN | conn_flag::PORT_BOUND) == conn_flag::ACTIVE_OPEN {
        count_duration(&SEARCHES, connection.born_ns);
    }
}
