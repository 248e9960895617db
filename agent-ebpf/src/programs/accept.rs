//! The process that accepts a connection.

use agent_ebpf::{Counter, conn_flag};
use aya_ebpf::{
    macros::{fexit, kretprobe},
    programs::{FExitContext, RetProbeContext},
};

use crate::{
    emit, followed,
    memory::Probed,
    socket,
    task::{self, Program},
};

/// Hook: fexit `inet_csk_accept`, up to 6.9
/// Prototype: `struct sock *(struct sock *sk, int flags, int *err, bool kern)`
/// Context: process
#[fexit]
fn fexit_inet_csk_accept_4(ctx: FExitContext) -> i32 {
    accepted(ctx.arg(4));
    0
}

/// Hook: fexit `inet_csk_accept`
/// Prototype: `struct sock *(struct sock *sk, struct proto_accept_arg *arg)`
/// Context: process
#[fexit]
fn fexit_inet_csk_accept_2(ctx: FExitContext) -> i32 {
    accepted(ctx.arg(2));
    0
}

/// Hook: kretprobe `inet_csk_accept`
/// Context: process
/// Misses: returns beyond those the kernel prepared for (twice the CPUs, ten at least), where more threads wait
#[kretprobe]
fn kretprobe_inet_csk_accept(ctx: RetProbeContext) -> u32 {
    accepted(ctx.ret());
    0
}

/// `sk` is the connection's socket, which the listener's child became; 0 if accept() failed.
#[inline(always)]
fn accepted(sk: u64) {
    if sk == 0 || !socket::is_tcp::<Probed>(sk) {
        return;
    }
    let is_new = followed::known(sk).is_none();
    let Some(connection) = followed::known_or_new(sk) else {
        emit::count(Counter::SocketsFull);
        return;
    };
    // SAFETY: the map hands out a live value. A softirq may change other members meanwhile.
    let connection = unsafe { &mut *connection };
    let is_new = connection.renew_if_left_over(socket::state(sk)) || is_new;
    connection.opener = task::current::<Probed>(Program::Accept);
    if is_new {
        connection.flags |= conn_flag::PASSIVE_OPEN;
    }
}
