//! The life of a connection: state transitions and the end of the socket.
//!
//! Attribution rests on one rule: `current` is the owner only where the kernel changes the state on behalf of a system
//! call (connect, listen, close, shutdown). What is learnt there is kept by socket address in `SOCKETS` and dropped at
//! `tcp_destroy_sock`, since addresses are used again within milliseconds.

use agent_ebpf::{Counter, conn_flag};
use aya_ebpf::{
    EbpfContext,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;

use crate::{
    emit,
    maps::{CLAIM, Connection, SOCKETS, UNSEEN, known_or_new},
    programs::timewait,
    settings::config,
    socket, task,
};

// include/net/tcp_states.h
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const LISTEN: u8 = 10;
const CLOSING: u8 = 11;

/// `SHUTDOWN_MASK`, include/net/sock.h
const SHUTDOWN_MASK: u8 = 3;

/// Hook: raw tracepoint `inet_sock_set_state`
/// Prototype: `(const struct sock *sk, const int oldstate, const int newstate)`, since 4.16
/// Context: either; see `follow` for which transitions run in the context of a system call
/// Sees: every change of state of every TCP socket in every namespace
/// Misses: TIME_WAIT. The kernel moves such a connection into a socket of another type and lets the old one go from
/// FIN_WAIT2 or CLOSING to CLOSE.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    observe(&ctx, Transition::of(&ctx));
    0
}

// `struct trace_event_raw_inet_sock_set_state`, the same since 4.16: an 8-byte header, then the first three members.
const SKADDR: usize = 8;
const OLDSTATE: usize = 16;
const NEWSTATE: usize = 20;

/// Hook: tracepoint `sock:inet_sock_set_state`, in place of the one above since 7.0
/// Context: either
/// Sees: the same. Since 7.0 a task may lose its CPU inside a program on a raw tracepoint, and until it is back the
/// kernel runs that program for nobody there; this one cannot lose it (`perf_trace_*`, include/trace/perf.h).
/// Misses: what a packet does that interrupts a kprobe or another program like this one
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state_unpreempted(ctx: TracePointContext) -> u32 {
    // SAFETY: the offsets lie within the event of this tracepoint.
    let members = unsafe { (ctx.read_at::<u64>(SKADDR), ctx.read_at::<u32>(OLDSTATE), ctx.read_at::<u32>(NEWSTATE)) };
    let (Ok(sk), Ok(old), Ok(new)) = members else { return 0 };
    observe(&ctx, Transition { sk, old: old as u8, new: new as u8 });
    0
}

/// Hook: raw tracepoint `inet_sock_set_state`
/// Prototype: as above
/// Context: either
/// Sees: the transitions the other program, of the two above, was not run for. Since 5.12 the kernel does not run a program
/// on a CPU where it runs already: a close() that is interrupted by a packet, inside our program, would cost the packet's
/// transition. It does run another program, this one, after the first or in its stead. It has to be attached last.
/// Misses: the end of a socket of which nothing is known, as it looks the same as one the first was run for
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state_skipped(ctx: RawTracePointContext) -> i32 {
    let transition = Transition::of(&ctx);
    if was_skipped(transition) {
        emit::count(Counter::TakenOver);
        observe(&ctx, transition);
    }
    0
}

#[derive(Clone, Copy)]
struct Transition {
    sk: u64,
    old: u8,
    new: u8,
}

impl Transition {
    #[inline(always)]
    fn of(ctx: &RawTracePointContext) -> Self {
        Self { sk: ctx.arg(0), old: ctx.arg::<u32>(1) as u8, new: ctx.arg::<u32>(2) as u8 }
    }

    /// As it is kept with the socket; no transition is 0.
    const fn code(self) -> u8 {
        self.old << 4 | self.new
    }

    /// Whether there is something to say of a socket that nothing is known of: not of its end.
    const fn is_worth_an_entry(self) -> bool {
        self.new != CLOSE || matches!(self.old, ESTABLISHED | CLOSE_WAIT)
    }

    /// The entry of the socket, made if it is first seen here. None if the table is full, or it is not worth one.
    #[inline(always)]
    fn entry(self) -> Option<*mut Connection> {
        if self.is_worth_an_entry() { known_or_new(self.sk) } else { SOCKETS.get_ptr_mut(self.sk) }
    }
}

/// Whether the first program was not run: whatever it sees, it notes with the socket. In a full table there is no telling.
#[inline(always)]
fn was_skipped(transition: Transition) -> bool {
    if !socket::is_tcp(transition.sk) {
        return false;
    }
    // SAFETY: the map hands out a live value, which only the CPU that holds the socket's lock changes.
    transition.entry().is_some_and(|entry| unsafe { (*entry).last_transition } != transition.code())
}

#[inline(always)]
fn observe(ctx: &impl EbpfContext, transition: Transition) {
    let Transition { sk, old, new } = transition;
    if !socket::is_tcp(sk) {
        return;
    }
    set_claim(if new == CLOSE && (old == FIN_WAIT2 || old == CLOSING) { sk } else { 0 });
    let connection = transition.entry();
    if connection.is_none() && transition.is_worth_an_entry() {
        emit::count(Counter::SocketsFull);
        debug!(ctx, "socket table is full, {} is not followed", sk);
    }
    if let Some(connection) = connection {
        // SAFETY: the map hands out a live value, which only the CPU that holds the socket's lock changes.
        let connection = unsafe { &mut *connection };
        connection.last_transition = transition.code();
        follow(connection, sk, old, new);
        if new == CLOSE && (old == FIN_WAIT2 || old == CLOSING) {
            timewait::note_refusal(connection);
        }
    }
    if new == CLOSE || new == LISTEN || config!(every_transition) != 0 {
        // SAFETY: as above.
        emit::transition(sk, old, new, connection.map_or(&UNSEEN, |connection| unsafe { &*connection }));
    }
}

#[inline(always)]
fn set_claim(sk: u64) {
    if let Some(claim) = CLAIM.get_ptr_mut(0) {
        // SAFETY: this CPU's own, live value.
        unsafe { *claim = sk };
    }
}

/// Brings what is known of a connection up to date.
#[inline(always)]
fn follow(connection: &mut Connection, sk: u64, old: u8, new: u8) {
    let acts = learn(connection, sk, old, new);
    // In one place: the verifier of older kernels looks at each copy again and again.
    let who = match acts {
        Acts::Nobody => return,
        Acts::Opener => &mut connection.opener,
        Acts::Closer => &mut connection.closer,
    };
    task::record_current(who);
}

/// As whom the current process acts in a transition.
enum Acts {
    Nobody,
    Opener,
    Closer,
}

#[inline(always)]
fn learn(connection: &mut Connection, sk: u64, old: u8, new: u8) -> Acts {
    match (old, new) {
        // tcp_v4_connect(), tcp_v6_connect(): the connecting process. Whatever the socket was before is over.
        (_, SYN_SENT) => {
            begin(connection, conn_flag::ACTIVE_OPEN | u32::from(socket::held_port(sk) != 0) * conn_flag::PORT_BOUND);
            Acts::Opener
        }
        // inet_csk_listen_start(): the listening process.
        (_, LISTEN) => {
            begin(connection, 0);
            Acts::Opener
        }
        // A child of a listener, in softirq. `sk` is the child already.
        (LISTEN, SYN_RECV) => {
            begin(connection, conn_flag::PASSIVE_OPEN);
            Acts::Nobody
        }
        (_, ESTABLISHED) => {
            connection.flags |= conn_flag::ESTABLISHED;
            Acts::Nobody
        }
        // tcp_close_state(): only __tcp_close() and tcp_shutdown() get here, on behalf of a system call or an exit.
        (_, FIN_WAIT1) => {
            connection.flags |= conn_flag::FIN_FIRST;
            Acts::Closer
        }
        (_, LAST_ACK) => {
            connection.flags |= conn_flag::FIN_SECOND;
            Acts::Closer
        }
        (_, CLOSE_WAIT) => {
            connection.flags |= conn_flag::FIN_SECOND;
            Acts::Nobody
        }
        // close() after shutdown(). Whoever sent the FIN stays the closer; if that was before the session, the process
        // that lets go of the socket is all there is to know.
        (FIN_WAIT2, FIN_WAIT2) if connection.closer.flags == 0 => Acts::Closer,
        // A connection cut off by its own process: no FIN was sent.
        (ESTABLISHED | CLOSE_WAIT, CLOSE) if is_cut_off(connection, sk) => Acts::Closer,
        // A connection that was accepted before its handshake was over (Fast Open). One that the kernel drops, because
        // the queue of the listener is full, ends in softirq.
        (SYN_RECV, CLOSE) if socket::shutdown(sk) == SHUTDOWN_MASK => Acts::Closer,
        _ => Acts::Nobody,
    }
}

#[inline(always)]
fn begin(connection: &mut Connection, flags: u32) {
    connection.opener.flags = 0;
    connection.closer.flags = 0;
    connection.born_ns = emit::now();
    connection.flags = flags;
    connection.port_errno = 0;
    connection.timewait_state = 0;
    connection.timewait = 0;
}

/// Whether a transition to CLOSE runs on behalf of the process that lets the connection go.
///
/// `__tcp_close()` sets `SHUTDOWN_MASK` under the socket's lock before it looks at the state, and `tcp_done()` only
/// after the transition; so the mask means close(). Otherwise it is `tcp_disconnect()` (connect() to `AF_UNSPEC`, or a
/// listener's close() for a connection nobody accepted), unless an error or a RST ended the connection.
#[inline(always)]
fn is_cut_off(connection: &Connection, sk: u64) -> bool {
    socket::shutdown(sk) == SHUTDOWN_MASK || connection.flags & conn_flag::RESET_RECEIVED == 0 && socket::error(sk) == 0
}

/// Hook: raw tracepoint `tcp_destroy_sock`
/// Prototype: `(struct sock *sk)`, since 4.16
/// Context: either
/// Sees: the end of every TCP socket, also of those that were never connected
/// Misses: what happens while it runs on the same CPU. The entry then stays until another socket begins at its address.
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub(crate) fn tcp_destroy_sock(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    // Not being there is the normal case of a socket that was only bound.
    let _ = SOCKETS.remove(sk);
    0
}
