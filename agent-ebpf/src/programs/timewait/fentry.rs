//! Timewait sockets through fentry and fexit programs.
//!
//! An fexit program finds what a function returned behind its arguments. A program for another number of arguments may
//! load all the same and read an argument instead; so there is one for each number, and the agent chooses by the
//! kernel's type information, never by what loads.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use super::{expires, judged, left, looked_at, made, reused, takes, took};
use crate::maps::PURGES;

/// Hook: fexit `inet_twsk_alloc`
/// Prototype: `struct inet_timewait_sock *(const struct sock *sk, struct inet_timewait_death_row *dr, const int state)`
/// Context: either
/// Sees: every timewait socket made, and every one refused (`tcp_max_tw_buckets`, memory); before the transition to CLOSE
#[fexit]
fn fexit_inet_twsk_alloc(ctx: FExitContext) -> i32 {
    made(ctx.arg(0), ctx.arg(3), ctx.arg::<u64>(2) as u8);
    0
}

/// Hook: fentry `inet_twsk_kill`
/// Prototype: `void (struct inet_timewait_sock *tw)`
/// Context: either
/// Sees: every timewait socket that goes. It is static: a kernel that inlines it has `tcp_twsk_destructor` instead
#[fentry]
fn fentry_inet_twsk_kill(ctx: FEntryContext) -> i32 {
    left(ctx.arg(0));
    0
}

/// Hook: fentry `tcp_twsk_destructor`
/// Prototype: `void (struct sock *sk)`
/// Context: either
/// Sees: the same, when the last reference is dropped, which is where it goes or shortly after
#[fentry]
fn fentry_tcp_twsk_destructor(ctx: FEntryContext) -> i32 {
    left(ctx.arg(0));
    0
}

/// Hook: fentry `tw_timer_handler`
/// Prototype: `void (struct timer_list *t)`
/// Context: softirq
#[fentry]
fn fentry_tw_timer_handler(ctx: FEntryContext) -> i32 {
    expires(ctx.arg(0));
    0
}

/// Hook: fexit `tcp_twsk_unique`
/// Prototype: `int (struct sock *sk, struct sock *sktw, void *twp)`
/// Context: process, softirqs disabled
#[fexit]
fn fexit_tcp_twsk_unique(ctx: FExitContext) -> i32 {
    if ctx.arg::<u64>(3) as u32 == 1 {
        reused(ctx.arg(1));
    }
    0
}

/// Hook: fentry `tcp_timewait_state_process`
/// Prototype: see the fexit programs
/// Context: softirq
#[fentry]
fn fentry_tcp_timewait_state_process(ctx: FEntryContext) -> i32 {
    looked_at(ctx.arg(0), ctx.arg(2));
    0
}

/// Hook: fexit `tcp_timewait_state_process`, up to 6.8
/// Prototype: `enum tcp_tw_status (struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th)`
/// Context: softirq
#[fexit]
fn fexit_tcp_timewait_state_process_3(ctx: FExitContext) -> i32 {
    judged(ctx.arg::<u64>(3) as u32);
    0
}

/// Hook: fexit `tcp_timewait_state_process`, with `u32 *tw_isn`
/// Context: softirq
#[fexit]
fn fexit_tcp_timewait_state_process_4(ctx: FExitContext) -> i32 {
    judged(ctx.arg::<u64>(4) as u32);
    0
}

/// Hook: fexit `tcp_timewait_state_process`, with `u32 *tw_isn, enum skb_drop_reason *drop_reason`
/// Context: softirq
#[fexit]
fn fexit_tcp_timewait_state_process_5(ctx: FExitContext) -> i32 {
    judged(ctx.arg::<u64>(5) as u32);
    0
}

/// Hook: fentry and fexit `inet_twsk_purge`
/// Prototype: `void (struct inet_hashinfo *hashinfo)`, with `int family` before 6.1
/// Context: kernel thread
/// Sees: a network namespace that is dismantled
#[fentry]
fn fentry_inet_twsk_purge(_ctx: FEntryContext) -> i32 {
    takes(PURGES);
    0
}

#[fexit]
fn fexit_inet_twsk_purge(_ctx: FExitContext) -> i32 {
    took();
    0
}

/// Hook: fentry and fexit `tcp_abort`
/// Prototype: `int (struct sock *sk, int err)`
/// Context: process
/// Sees: SOCK_DESTROY. Before 6.1 the kernel does it to full sockets only
#[fentry]
fn fentry_tcp_abort(ctx: FEntryContext) -> i32 {
    takes(ctx.arg(0));
    0
}

#[fexit]
fn fexit_tcp_abort(_ctx: FExitContext) -> i32 {
    took();
    0
}
