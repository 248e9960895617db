//! The life of a timewait socket: made or refused, FIN_WAIT2 turned TIME_WAIT, taken away and why.
//!
//! The kernel takes every timewait socket away in one place, `inet_twsk_kill()`, and knows the reason in another. What
//! goes on there is noted, by CPU or by thread, and read when the socket goes; a reason nobody noted is unknown, never
//! the likeliest one. `current` means nothing in any of these functions: most of them run in softirq.
//!
//! `fentry.rs` and `kprobe.rs` are two ways to be called; what is done is here.

mod fentry;
mod kprobe;

use agent_ebpf::{TimeWaitChange, timewait_state};
use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_get_current_pid_tgid};

use crate::{
    emit,
    maps::{Connection, NOTES, Notes, PURGES, TAKERS, known_or_new},
    settings::offset,
    socket,
};

// enum tcp_tw_status, include/net/tcp.h
const TCP_TW_RST: u32 = 1;
const TCP_TW_SYN: u32 = 3;
// tw_substate, include/net/tcp_states.h
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
/// A timewait socket goes microseconds after it was judged, in the same softirq; one that was judged and stayed (a SYN,
/// and nobody listens) must not have that for its reason when it goes later. A stolen CPU can make it longer.
const JUDGED_WITHIN_NS: u64 = 100_000_000;

#[inline(always)]
fn notes() -> Option<&'static mut Notes> {
    // SAFETY: this CPU's own, live value; whoever interrupts a program that holds it does so in another member.
    NOTES.get_ptr_mut(0).map(|notes| unsafe { &mut *notes })
}

/// A timewait socket was made for a connection, or refused (`tw` is 0).
#[inline(always)]
fn made(sk: u64, tw: u64, state: u8) {
    if !socket::is_tcp(sk) {
        return;
    }
    // A full table is counted where the owner would be kept; here there is none to lose.
    if let Some(connection) = known_or_new(sk) {
        // SAFETY: the map hands out a live value, which only the CPU that holds the socket's lock changes.
        let connection = unsafe { &mut *connection };
        connection.timewait = tw;
        connection.timewait_state = if tw == 0 { timewait_state::REFUSED } else { state };
    }
}

/// Brings a refusal that was seen without its socket to the socket it is about: the next one that leaves without a
/// timewait socket, on this CPU.
#[inline(always)]
pub(super) fn note_refusal(connection: &mut Connection) {
    if connection.timewait_state != timewait_state::UNKNOWN {
        return;
    }
    if let Some(notes) = notes()
        && notes.refused != 0
    {
        notes.refused = 0;
        connection.timewait_state = timewait_state::REFUSED;
    }
}

/// `tw_timer_handler()` begins: the timer ran out.
#[inline(always)]
fn expires(timer: u64) {
    if let Some(notes) = notes() {
        notes.expiring = timer.wrapping_sub(offset!(tw_timer) as u64);
    }
}

/// `tcp_twsk_unique()` returned 1: a connect() gets the four numbers, and the timewait socket goes.
#[inline(always)]
fn reused(tw: u64) {
    if let Some(notes) = notes() {
        notes.reused = tw;
    }
}

/// `tcp_timewait_state_process()` begins: a segment has come for a timewait socket.
#[inline(always)]
fn looked_at(tw: u64) {
    if let Some(notes) = notes() {
        notes.looked_at = tw;
        notes.substate = u64::from(socket::substate(tw));
    }
}

/// `tcp_timewait_state_process()` returns. Only if it left the socket there may the socket be looked at.
#[inline(always)]
fn judged(status: u32) {
    let Some(notes) = notes() else { return };
    let tw = notes.looked_at;
    notes.looked_at = 0;
    if tw == 0 {
        return;
    }
    notes.judged = 0;
    if status == TCP_TW_RST || status == TCP_TW_SYN {
        notes.judged = tw;
        notes.verdict = u64::from(status);
        notes.judged_ns = emit::now();
    } else if notes.substate == u64::from(FIN_WAIT2) && socket::substate(tw) == TIME_WAIT {
        emit::timewait(tw, TimeWaitChange::BecameTimeWait, TIME_WAIT);
    }
}

/// The current thread begins to take timewait sockets away: [`PURGES`], or the one it destroys.
#[inline(always)]
fn takes(what: u64) {
    // A full table evicts: the reason is then unknown.
    let _ = TAKERS.insert(bpf_get_current_pid_tgid(), what, u64::from(BPF_ANY));
}

/// It is done.
#[inline(always)]
fn took() {
    // It may have been evicted.
    let _ = TAKERS.remove(bpf_get_current_pid_tgid());
}

/// A timewait socket goes.
#[inline(always)]
fn left(tw: u64) {
    let change = reason(tw);
    emit::timewait(tw, change, socket::substate(tw));
}

#[inline(always)]
fn reason(tw: u64) -> TimeWaitChange {
    let Some(notes) = notes() else { return TimeWaitChange::LeftUnexplained };
    let (expiring, reused, looked_at) = (notes.expiring == tw, notes.reused == tw, notes.looked_at == tw);
    let judged = notes.judged == tw && emit::now().wrapping_sub(notes.judged_ns) < JUDGED_WITHIN_NS;
    // The address will be another socket's.
    if expiring {
        notes.expiring = 0;
    }
    if reused {
        notes.reused = 0;
    }
    if looked_at {
        notes.looked_at = 0;
    }
    if notes.judged == tw {
        notes.judged = 0;
    }
    if expiring {
        return TimeWaitChange::Expired;
    } else if reused {
        return TimeWaitChange::Reused;
    } else if looked_at {
        return TimeWaitChange::Reset;
    }
    // SAFETY: the value is copied at once, and only this thread writes it.
    let taker = unsafe { TAKERS.get(bpf_get_current_pid_tgid()) }.copied().unwrap_or(0);
    if taker == tw {
        return TimeWaitChange::Destroyed;
    }
    if judged {
        return if notes.verdict == u64::from(TCP_TW_SYN) {
            TimeWaitChange::NewSyn
        } else {
            TimeWaitChange::ResetAfterData
        };
    }
    if taker == PURGES { TimeWaitChange::NetnsGone } else { TimeWaitChange::LeftUnexplained }
}
