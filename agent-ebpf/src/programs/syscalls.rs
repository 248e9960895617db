//! Refused bind() and listen(), by their system calls.
//!
//! The requested address is read at the entry, because a refused bind() leaves none in the socket.
//! Misses: calls made through io_uring or by 32-bit programs, which pass other entries.

use agent_ebpf::{Call, Counter};
use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_get_current_task},
    macros::tracepoint,
    programs::TracePointContext,
};

use crate::{
    emit,
    maps::{CALLS, PendingCall},
    memory::{Probed, read},
    settings::offset,
    socket,
};

// Offsets of the arguments in `syscalls:sys_enter_*` and of the result in `sys_exit_*`, the same on every 64-bit
// kernel since 4.7: an 8-byte header, the number of the call, then 8 bytes each.
const ARG0: usize = 16;
const ARG1: usize = 24;
const ARG2: usize = 32;
const RESULT: usize = 16;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `sizeof(struct sockaddr_in)` and what of `struct sockaddr_in6` the kernel insists on (`SIN6_LEN_RFC2133`)
const SOCKADDR_IN_SIZE: u64 = 16;
const SOCKADDR_IN6_SIZE: u64 = 24;

/// Hook: tracepoint `syscalls:sys_enter_bind`
/// Context: process
#[tracepoint(category = "syscalls", name = "sys_enter_bind")]
pub(crate) fn sys_enter_bind(ctx: TracePointContext) -> u32 {
    // SAFETY: the offsets lie within the event of this tracepoint.
    let args = unsafe { (ctx.read_at::<u64>(ARG0), ctx.read_at::<u64>(ARG1), ctx.read_at::<u64>(ARG2)) };
    let (Ok(fd), Ok(address), Ok(length)) = args else { return 0 };
    let Some(mut pending) = tcp_socket(fd as u32) else { return 0 };
    requested(&mut pending, address, length);
    remember(&pending);
    0
}

/// Hook: tracepoint `syscalls:sys_exit_bind`
/// Context: process
#[tracepoint(category = "syscalls", name = "sys_exit_bind")]
pub(crate) fn sys_exit_bind(ctx: TracePointContext) -> u32 {
    finish(&ctx, Call::Bind);
    0
}

/// Hook: tracepoint `syscalls:sys_enter_listen`
/// Context: process
#[tracepoint(category = "syscalls", name = "sys_enter_listen")]
pub(crate) fn sys_enter_listen(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset lies within the event of this tracepoint.
    let Ok(fd) = (unsafe { ctx.read_at::<u64>(ARG0) }) else { return 0 };
    let Some(mut pending) = tcp_socket(fd as u32) else { return 0 };
    // listen() asks for the address the socket is bound to; port 0 if it is not bound at all.
    pending.family = socket::family(pending.sk);
    socket::read_local_address(pending.sk, pending.family, (&raw mut pending.address).cast());
    pending.port = socket::held_port::<Probed>(pending.sk);
    remember(&pending);
    0
}

/// Hook: tracepoint `syscalls:sys_exit_listen`
/// Context: process
#[tracepoint(category = "syscalls", name = "sys_exit_listen")]
pub(crate) fn sys_exit_listen(ctx: TracePointContext) -> u32 {
    finish(&ctx, Call::Listen);
    0
}

/// The TCP socket behind a file descriptor of the current process.
///
/// A descriptor that is not a socket has something else in `private_data`. Reading that as a `struct socket` cannot
/// fault, and then the call fails with ENOTSOCK, which `finish` drops.
#[inline(always)]
fn tcp_socket(fd: u32) -> Option<PendingCall> {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let files = read::<u64>(task, offset!(task_files)).ok()?;
    let table = read::<u64>(files, offset!(files_fdt)).ok()?;
    if fd >= read::<u32>(table, offset!(fdt_max_fds)).ok()? {
        return None;
    }
    let array = read::<u64>(table, offset!(fdt_fd)).ok()?;
    let file = read::<u64>(array, fd as usize * size_of::<u64>()).ok()?;
    if file == 0 {
        return None;
    }
    let socket = read::<u64>(file, offset!(file_private_data)).ok()?;
    let sk = read::<u64>(socket, offset!(socket_sk)).ok()?;
    let family = socket::family(sk);
    if sk == 0 || family == 0 || !socket::is_tcp::<Probed>(sk) {
        return None;
    }
    Some(asking(sk))
}

/// A socket that asks for a port; for which, the caller says.
#[inline(always)]
pub(super) fn asking(sk: u64) -> PendingCall {
    PendingCall {
        sk,
        address: [0; 16],
        port: 0,
        family: 0,
        reuse: socket::reuse(sk),
        is_reported: 0,
        flags: socket::ask_flags(sk),
        reserved: 0,
        device: socket::device(sk),
        uid: socket::uid(sk),
    }
}

/// Reads the `sockaddr` of a bind(). What cannot be read stays unknown (family 0); the kernel refuses it too.
#[inline(always)]
fn requested(pending: &mut PendingCall, sockaddr: u64, length: u64) {
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    let Ok([family, port]) = (unsafe { bpf_probe_read_user(sockaddr as *const [u16; 2]) }) else { return };
    // `sockaddr_in.sin_addr` follows the port, `sockaddr_in6.sin6_addr` comes after the flow label.
    if family == AF_INET && length >= SOCKADDR_IN_SIZE {
        // SAFETY: as above.
        let Ok([a, b, c, d]) = (unsafe { bpf_probe_read_user((sockaddr + 4) as *const [u8; 4]) }) else { return };
        (pending.address[0], pending.address[1], pending.address[2], pending.address[3]) = (a, b, c, d);
    } else if family == AF_INET6 && length >= SOCKADDR_IN6_SIZE {
        // SAFETY: as above.
        let Ok(bytes) = (unsafe { bpf_probe_read_user((sockaddr + 8) as *const [u8; 16]) }) else { return };
        pending.address = bytes;
    } else {
        return;
    }
    pending.family = family;
    pending.port = u16::from_be(port);
}

#[inline(always)]
fn remember(pending: &PendingCall) {
    if CALLS.insert(bpf_get_current_pid_tgid(), pending, u64::from(BPF_ANY)).is_err() {
        emit::count(Counter::CallsFull);
    }
}

#[inline(always)]
fn finish(ctx: &TracePointContext, call: Call) {
    let thread = (u64::from(ctx.tgid()) << 32) | u64::from(ctx.pid());
    // SAFETY: the entry belongs to this thread, which is here and not in another call.
    let Some(pending) = (unsafe { CALLS.get(thread) }).copied() else { return };
    // It was just found; a concurrent eviction does no harm.
    let _ = CALLS.remove(thread);
    // SAFETY: the offset lies within the event of this tracepoint.
    let Ok(result) = (unsafe { ctx.read_at::<i64>(RESULT) }) else { return };
    const EBADF: i64 = -9;
    const ENOTSOCK: i64 = -88;
    if result < 0 && result != EBADF && result != ENOTSOCK && pending.is_reported == 0 {
        emit::refused(call, &pending, (-result) as u32);
    }
}
