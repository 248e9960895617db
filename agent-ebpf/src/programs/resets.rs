//! RSTs received and sent, which tell an end from TIME_WAIT.

use agent_ebpf::conn_flag;
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    emit, followed,
    maps::CLAIM,
    socket,
    states::{CLOSING, FIN_WAIT1, FIN_WAIT2, SYN_SENT},
};

/// Hook: raw tracepoint `tcp_receive_reset`
/// Prototype: `(struct sock *sk)`, since 4.16
/// Context: softirq
/// Sees: a RST, or data after close(), that ends a connection; before the transition to CLOSE
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub(crate) fn tcp_receive_reset(ctx: RawTracePointContext) -> i32 {
    note(ctx.arg(0), conn_flag::RESET_RECEIVED);
    0
}

/// Hook: raw tracepoint `tcp_send_reset`
/// Prototype: `(const struct sock *sk, const struct sk_buff *skb)`, and a reason since 6.10; `sk` may be NULL
/// Context: either
/// Sees: a RST for a connection: before the transition to CLOSE when a timer gives up, right after it when the
/// connection is cut off; and one for a SYN-ACK or ACK that is not about the SYN that was sent
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub(crate) fn tcp_send_reset(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    if sk == 0 {
        return 0;
    }
    match socket::state(sk) {
        SYN_SENT => {
            mark(sk, conn_flag::SYN_REJECTED);
            return 0;
        }
        // Then this is what tells that it will not enter TIME_WAIT.
        FIN_WAIT1 | FIN_WAIT2 | CLOSING => note(sk, conn_flag::RESET_SENT),
        _ => mark(sk, conn_flag::RESET_SENT),
    }
    let Some(claim) = CLAIM.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own, live value.
    if unsafe { *claim } == sk {
        // The socket left FIN_WAIT2 or CLOSING a moment ago, on this CPU, with nothing in between: it did not leave a
        // timewait socket behind but sent this RST.
        // SAFETY: as above.
        unsafe { *claim = 0 };
        emit::retraction(sk);
    }
    0
}

/// Remembers it of a socket of which something is known.
#[inline(always)]
fn mark(sk: u64, flag: u16) {
    if let Some(connection) = followed::known(sk) {
        // SAFETY: the map hands out a live value, which only the CPU that holds the socket's lock changes.
        unsafe { (*connection).flags |= flag };
    }
}

/// Remembers it of any socket. A full table costs no more than how a connection ended, and is counted where an owner is
/// lost.
#[inline(always)]
fn note(sk: u64, flag: u16) {
    if let Some(connection) = followed::known_or_new(sk) {
        // SAFETY: as above.
        let connection = unsafe { &mut *connection };
        connection.renew_if_left_over(socket::state(sk));
        connection.flags |= flag;
    }
}
