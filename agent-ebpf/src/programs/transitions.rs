//! The life of a connection: state transitions and the end of the socket.
//!
//! Attribution rests on one rule: `current` is the owner only where the kernel changes the state on behalf of a system
//! call (connect, listen, close, shutdown). What is learnt there is kept by socket address, in `followed`, and dropped at
//! `tcp_destroy_sock`, since addresses are used again within milliseconds.

use agent_ebpf::{Counter, conn_flag};
use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, raw_tracepoint, tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;

use crate::{
    emit,
    followed::{self, Connection, UNSEEN},
    maps::{CLAIM, HANDSHAKES, count_duration},
    memory::{Memory, Probed, Typed},
    programs::timewait,
    settings::{config, is_for_ends, is_for_report, is_for_states},
    socket,
    states::{CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT},
    task::{self, Program},
};

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
    observe::<Probed>(&ctx, Transition::of(&ctx), Program::Transitions);
    0
}

/// Hook: tracepoint `inet_sock_set_state` by its types, in place of the one above since 5.11
/// Prototype, context: as above
/// Sees: the same, and reads it by loads instead of calls
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state_typed(ctx: BtfTracePointContext) -> i32 {
    observe::<Typed>(&ctx, Transition::of_typed(&ctx), Program::Transitions);
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
    observe::<Probed>(&ctx, Transition { sk, old: old as u8, new: new as u8 }, Program::Transitions);
    0
}

/// Hook: raw tracepoint `inet_sock_set_state`
/// Prototype: as above
/// Context: either
/// Sees: since 7.0, the transitions the first program was not run for. The kernel does not run a program on a CPU where it
/// runs already, and a program that loses the CPU runs for long. It does run another program, this one, after the first or
/// in its stead. It has to be attached last. Before 7.0 only a packet that interrupts the first program itself goes by it,
/// which is rare, is counted, and is made up for at the end of the socket: not worth a second program at each transition.
/// Misses: the end of a socket of which nothing is known, as it looks the same as one the first was run for
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state_skipped(ctx: RawTracePointContext) -> i32 {
    take_over::<Probed>(&ctx, Transition::of(&ctx));
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

    #[inline(always)]
    fn of_typed(ctx: &BtfTracePointContext) -> Self {
        Self { sk: ctx.arg(0), old: ctx.arg::<u64>(1) as u8, new: ctx.arg::<u64>(2) as u8 }
    }

    /// As it is kept with the socket; no transition is 0.
    const fn code(self) -> u8 {
        self.old << 4 | self.new
    }

    /// Whether something is to be learnt from it. For a report, not that a connection was established, nor how one goes on
    /// that was closed: most transitions end here, before anything is looked up.
    #[inline(always)]
    fn is_wanted<M: Memory>(self) -> bool {
        let Self { sk, old, new } = self;
        if !is_for_report() {
            return socket::is_tcp::<M>(sk);
        }
        let is_telling = matches!(new, SYN_SENT | LISTEN | FIN_WAIT1 | CLOSE) || old == FIN_WAIT2 && new == FIN_WAIT2;
        is_telling && socket::is_tcp::<M>(sk) && !(old == LAST_ACK && new == CLOSE && is_of_no_interest::<M>(sk))
    }

    /// Whether it is one on the way to TIME_WAIT.
    const fn leaves_to_time_wait(self) -> bool {
        self.new == CLOSE && matches!(self.old, FIN_WAIT2 | CLOSING)
    }

    /// Whether there is something to say of a socket that nothing is known of: not of its end.
    const fn is_worth_an_entry(self) -> bool {
        self.new != CLOSE || matches!(self.old, ESTABLISHED | CLOSE_WAIT)
    }

    /// The entry of the socket, made if it is first seen here. None if the table is full, or it is not worth one.
    #[inline(always)]
    fn entry(self) -> Option<*mut Connection> {
        if self.is_worth_an_entry() { followed::known_or_new(self.sk) } else { followed::known(self.sk) }
    }
}

/// Deals with a transition the first program was not run for: whatever that sees, it notes with the socket. In a full table
/// there is no telling.
#[inline(always)]
fn take_over<M: Memory>(ctx: &impl EbpfContext, transition: Transition) {
    if !transition.is_wanted::<M>() {
        return;
    }
    // SAFETY: the map hands out a live value, which only the CPU that holds the socket's lock changes.
    if transition.entry().is_some_and(|entry| unsafe { (*entry).last_transition } != transition.code()) {
        emit::count(Counter::TakenOver);
        observe::<M>(ctx, transition, Program::TransitionsSkipped);
    }
}

#[inline(always)]
fn observe<M: Memory>(ctx: &impl EbpfContext, transition: Transition, program: Program) {
    let Transition { sk, old, new } = transition;
    if !transition.is_wanted::<M>() {
        return;
    }
    set_claim(if transition.leaves_to_time_wait() { sk } else { 0 });
    let connection = transition.entry();
    if connection.is_none() && transition.is_worth_an_entry() {
        emit::count(Counter::SocketsFull);
        debug!(ctx, "socket table is full, one is not followed");
    }
    if let Some(connection) = connection {
        // SAFETY: the map hands out a live value, which only the CPU that holds the socket's lock changes.
        let connection = unsafe { &mut *connection };
        connection.renew_if_left_over(old);
        follow::<M>(connection, sk, old, new, program);
        connection.last_transition = transition.code();
        if transition.leaves_to_time_wait() {
            timewait::note_refusal(connection);
        }
    }
    // SAFETY: as above.
    let known = connection.map_or(&UNSEEN, |connection| unsafe { &*connection });
    if is_for_report()
        && old == LAST_ACK
        && new == CLOSE
        && known.flags & (conn_flag::ACTIVE_OPEN | conn_flag::SYN_REJECTED) == conn_flag::ACTIVE_OPEN
        && socket::error::<M>(sk) == 0
    {
        emit::closed_by_peer::<M>(sk, known);
    } else if new == CLOSE || new == LISTEN || is_for_states() {
        emit::transition::<M>(sk, old, new, known);
    }
}

/// Whether a report can do without the end of a connection that the other side closed first, and that leaves nothing here:
/// it was accepted, during the session, and nothing went wrong. Of one that was opened here it matters that it is over, as
/// it had a port; of an older one the agent may know something that is over, too.
#[inline(always)]
fn is_of_no_interest<M: Memory>(sk: u64) -> bool {
    socket::is_of_a_listener::<M>(sk) && socket::error::<M>(sk) == 0 && socket::is_younger_than_dumps::<M>(sk)
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
fn follow<M: Memory>(connection: &mut Connection, sk: u64, old: u8, new: u8, program: Program) {
    let acts = learn::<M>(connection, sk, old, new);
    // In one place: the verifier of older kernels looks at each copy again and again.
    let who = match acts {
        Acts::Nobody => return,
        Acts::Opener => &mut connection.opener,
        Acts::Closer => &mut connection.closer,
    };
    *who = task::current::<M>(program);
}

/// As whom the current process acts in a transition.
enum Acts {
    Nobody,
    Opener,
    Closer,
}

#[inline(always)]
fn learn<M: Memory>(connection: &mut Connection, sk: u64, old: u8, new: u8) -> Acts {
    match (old, new) {
        // tcp_v4_connect(), tcp_v6_connect(): the connecting process. Whatever the socket was before is over.
        (_, SYN_SENT) => {
            let port_bound = u16::from(socket::held_port::<M>(sk) != 0) * conn_flag::PORT_BOUND;
            begin::<M>(connection, sk, conn_flag::ACTIVE_OPEN | port_bound);
            Acts::Opener
        }
        // inet_csk_listen_start(): the listening process.
        (_, LISTEN) => {
            begin::<M>(connection, sk, 0);
            Acts::Opener
        }
        // A child of a listener, in softirq. `sk` is the child already.
        (LISTEN, SYN_RECV) => {
            begin::<M>(connection, sk, conn_flag::PASSIVE_OPEN);
            Acts::Nobody
        }
        (_, ESTABLISHED) => {
            connection.flags |= conn_flag::ESTABLISHED;
            // Since connect(), if that was seen.
            if is_for_ends() && old == SYN_SENT && connection.born_ns != 0 {
                count_duration(&HANDSHAKES, connection.born_ns);
            }
            Acts::Nobody
        }
        // tcp_close_state(): only __tcp_close() and tcp_shutdown() get here, on behalf of a system call or an exit.
        (_, FIN_WAIT1) => {
            connection.flags |= conn_flag::FIN_FIRST;
            connection.local_port = socket::held_port::<M>(sk);
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
        (FIN_WAIT2, FIN_WAIT2) if !connection.closer.is_somebody() => Acts::Closer,
        // A connection cut off by its own process: no FIN was sent.
        (ESTABLISHED | CLOSE_WAIT, CLOSE) if is_cut_off::<M>(connection, sk) => Acts::Closer,
        // A connection that was accepted before its handshake was over (Fast Open). One that the kernel drops, because
        // the queue of the listener is full, ends in softirq.
        (SYN_RECV, CLOSE) if socket::shutdown::<M>(sk) == SHUTDOWN_MASK => Acts::Closer,
        _ => Acts::Nobody,
    }
}

#[inline(always)]
fn begin<M: Memory>(connection: &mut Connection, sk: u64, flags: u16) {
    connection.clear();
    connection.netns = socket::netns::<M>(sk);
    // Whether it was seen is enough where nobody asks when: the clock takes as long as all the rest of this.
    connection.born_ns = if config!(wants_births) != 0 { emit::now() } else { 1 };
    connection.flags = flags;
}

/// Whether a transition to CLOSE runs on behalf of the process that lets the connection go.
///
/// `__tcp_close()` sets `SHUTDOWN_MASK` under the socket's lock before it looks at the state, and `tcp_done()` only
/// after the transition; so the mask means close(). Otherwise it is `tcp_disconnect()` (connect() to `AF_UNSPEC`, or a
/// listener's close() for a connection nobody accepted), unless an error or a RST ended the connection.
#[inline(always)]
fn is_cut_off<M: Memory>(connection: &Connection, sk: u64) -> bool {
    socket::shutdown::<M>(sk) == SHUTDOWN_MASK
        || connection.flags & conn_flag::RESET_RECEIVED == 0 && socket::error::<M>(sk) == 0
}

/// Hook: raw tracepoint `tcp_destroy_sock`
/// Prototype: `(struct sock *sk)`, since 4.16
/// Context: either
/// Sees: the end of every TCP socket, also of those that were never connected
/// Misses: what happens while it runs on the same CPU. The entry then stays until another socket at its address is seen.
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub(crate) fn tcp_destroy_sock(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    // Not being there is the normal case of a socket that was only bound or, for a report, accepted.
    let Some(connection) = followed::known(sk) else { return 0 };
    // SAFETY: the map hands out a live value, which nobody else knows of any more.
    let connection = unsafe { &*connection };
    make_up_for(sk, connection);
    followed::forget(sk);
    0
}

/// Tells of a connection whose last transition the kernel did not run a program for, as it interrupted that very program
/// (since 5.12). Only where there is no doubt about how it ended: this side closed, nothing went wrong, and its FIN was
/// acknowledged, so it left FIN_WAIT2 or CLOSING.
#[inline(always)]
fn make_up_for(sk: u64, connection: &Connection) {
    let has_ended = connection.last_transition & 0xf == CLOSE;
    let reset = conn_flag::RESET_RECEIVED | conn_flag::RESET_SENT;
    if !has_ended
        && connection.flags & (conn_flag::FIN_FIRST | reset) == conn_flag::FIN_FIRST
        && socket::error::<Probed>(sk) == 0
        && socket::is_all_acknowledged(sk)
    {
        emit::count(Counter::TakenOver);
        emit::transition::<Probed>(sk, FIN_WAIT2, CLOSE, connection);
    }
}
