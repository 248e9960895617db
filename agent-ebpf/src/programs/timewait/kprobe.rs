//! Timewait sockets through kprobes and kretprobes, for kernels where fentry programs cannot be used.
//!
//! A kretprobe sees what a function returned and not what it was given. So `inet_twsk_alloc` is watched where the new
//! timewait socket is put in its table, which has both, and its kretprobe is asked for refusals only.

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use super::{expires, judged, left, looked_at, made, notes, reused, takes, took};
use crate::{maps::PURGES, socket};

#[inline(always)]
fn argument(ctx: &ProbeContext, number: usize) -> u64 {
    ctx.arg(number).unwrap_or(0)
}

/// Hook: kprobe `inet_twsk_hashdance_schedule`, `inet_twsk_hashdance` before 6.11
/// Prototype: `void (struct inet_timewait_sock *tw, struct sock *sk, struct inet_hashinfo *hashinfo, ...)`
/// Context: either
/// Sees: every timewait socket made; before the transition to CLOSE
#[kprobe]
fn kprobe_inet_twsk_hashdance(ctx: ProbeContext) -> u32 {
    let tw = argument(&ctx, 0);
    made(argument(&ctx, 1), tw, socket::substate(tw));
    0
}

/// Hook: kretprobe `inet_twsk_alloc`
/// Context: either
/// Sees: every timewait socket refused, but not whose
#[kretprobe]
fn kretprobe_inet_twsk_alloc(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<u64>() == 0
        && let Some(notes) = notes()
    {
        notes.is_refused = 1;
    }
    0
}

/// Hook: kprobe `inet_twsk_kill`
/// Context: either
#[kprobe]
fn kprobe_inet_twsk_kill(ctx: ProbeContext) -> u32 {
    left(argument(&ctx, 0));
    0
}

/// Hook: kprobe `tcp_twsk_destructor`, where `inet_twsk_kill` is inlined
/// Context: either
#[kprobe]
fn kprobe_tcp_twsk_destructor(ctx: ProbeContext) -> u32 {
    left(argument(&ctx, 0));
    0
}

/// Hook: kprobe `tw_timer_handler`
/// Context: softirq
#[kprobe]
fn kprobe_tw_timer_handler(ctx: ProbeContext) -> u32 {
    expires(argument(&ctx, 0));
    0
}

/// Hook: kprobe and kretprobe `tcp_twsk_unique`
/// Context: process, softirqs disabled: nothing comes between the two
#[kprobe]
fn kprobe_tcp_twsk_unique(ctx: ProbeContext) -> u32 {
    reused(argument(&ctx, 1));
    0
}

#[kretprobe]
fn kretprobe_tcp_twsk_unique(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<u64>() as u32 != 1 {
        reused(0);
    }
    0
}

/// Hook: kprobe and kretprobe `tcp_timewait_state_process`, whatever its number of arguments
/// Context: softirq
#[kprobe]
fn kprobe_tcp_timewait_state_process(ctx: ProbeContext) -> u32 {
    looked_at(argument(&ctx, 0), argument(&ctx, 2));
    0
}

#[kretprobe]
fn kretprobe_tcp_timewait_state_process(ctx: RetProbeContext) -> u32 {
    judged(ctx.ret::<u64>() as u32);
    0
}

/// Hook: kprobe and kretprobe `inet_twsk_purge`
/// Context: kernel thread
#[kprobe]
fn kprobe_inet_twsk_purge(_ctx: ProbeContext) -> u32 {
    takes(PURGES);
    0
}

#[kretprobe]
fn kretprobe_inet_twsk_purge(_ctx: RetProbeContext) -> u32 {
    took();
    0
}

/// Hook: kprobe and kretprobe `tcp_abort`
/// Context: process
#[kprobe]
fn kprobe_tcp_abort(ctx: ProbeContext) -> u32 {
    takes(argument(&ctx, 0));
    0
}

#[kretprobe]
fn kretprobe_tcp_abort(_ctx: RetProbeContext) -> u32 {
    took();
    0
}
