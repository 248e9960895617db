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
    followed::{self, Connection},
    maps::{Doing, NOTES, Notes, PURGES, TAKERS},
    memory::{Probed, read_or_zero},
    settings::offset,
    socket,
    states::{FIN_WAIT2, TIME_WAIT},
};

// enum tcp_tw_status, include/net/tcp.h
const TCP_TW_SUCCESS: u32 = 0;
const TCP_TW_RST: u32 = 1;
const TCP_TW_SYN: u32 = 3;
// struct tcphdr, include/uapi/linux/tcp.h: its flags, and those that make a connection
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// A timewait socket goes microseconds after it was noted, in the same softirq; one that was noted and stayed (a SYN, and
/// nobody listens) must not have that for its reason when it goes later. A stolen CPU can make it longer.
const NOTED_WITHIN_NS: u64 = 100_000_000;

#[inline(always)]
fn notes() -> Option<&'static mut Notes> {
    // SAFETY: this CPU's own, live value. Softirqs are off wherever more than one member is written, see `Notes`.
    NOTES.get_ptr_mut(0).map(|notes| unsafe { &mut *notes })
}

/// A timewait socket was made for a connection, or refused (`tw` is 0).
#[inline(always)]
fn made(sk: u64, tw: u64, state: u8) {
    if !socket::is_tcp::<Probed>(sk) {
        return;
    }
    // A full table is counted where the owner would be kept; here there is none to lose.
    if let Some(connection) = followed::known_or_new(sk) {
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
        && notes.is_refused != 0
    {
        notes.is_refused = 0;
        connection.timewait_state = timewait_state::REFUSED;
    }
}

/// Notes what goes on with a timewait socket.
#[inline(always)]
fn note(tw: u64, what: Doing) {
    if let Some(notes) = notes() {
        notes.timewait = tw;
        notes.noted_ns = emit::now();
        notes.what = what;
    }
}

/// `tw_timer_handler()` begins: the timer ran out.
#[inline(always)]
fn expires(timer: u64) {
    note(timer.wrapping_sub(offset!(tw_timer) as u64), Doing::Expires);
}

/// `tcp_twsk_unique()` returned 1: a connect() gets the four numbers, and the timewait socket goes.
#[inline(always)]
fn reused(tw: u64) {
    note(tw, Doing::Reuses);
}

/// `tcp_timewait_state_process()` begins: a segment has come for a timewait socket, `th` is its `struct tcphdr`.
#[inline(always)]
fn looked_at(tw: u64, th: u64) {
    note(tw, Doing::Receives);
    if let Some(notes) = notes() {
        notes.substate = socket::substate(tw);
        notes.is_syn = u8::from(read_or_zero::<u8>(th, FLAGS) & (SYN | RST | ACK) == SYN);
    }
}

/// `tcp_timewait_state_process()` returns. Only if it left the socket there may the socket be looked at.
#[inline(always)]
fn judged(status: u32) {
    let Some(notes) = notes() else { return };
    let tw = notes.timewait;
    if tw == 0 || notes.what != Doing::Receives {
        return;
    }
    match status {
        TCP_TW_RST => notes.what = Doing::SendsReset,
        TCP_TW_SYN => notes.what = Doing::TakesSyn,
        _ => notes.timewait = 0,
    }
    if notes.is_syn != 0 && status != TCP_TW_SYN && status != TCP_TW_SUCCESS {
        emit::timewait(tw, TimeWaitChange::SynRejected, notes.substate);
    } else if status != TCP_TW_RST && notes.substate == FIN_WAIT2 && socket::substate(tw) == TIME_WAIT {
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
    let mut doing = Doing::Nothing;
    if notes.timewait == tw {
        // The address will be another socket's.
        notes.timewait = 0;
        if emit::now().wrapping_sub(notes.noted_ns) < NOTED_WITHIN_NS {
            doing = notes.what;
        }
    }
    match doing {
        Doing::Expires => return TimeWaitChange::Expired,
        Doing::Reuses => return TimeWaitChange::Reused,
        Doing::Receives => return TimeWaitChange::Reset,
        Doing::Nothing | Doing::TakesSyn | Doing::SendsReset => {}
    }
    // SAFETY: the value is copied at once, and only this thread writes it.
    let taker = unsafe { TAKERS.get(bpf_get_current_pid_tgid()) }.copied().unwrap_or(0);
    match doing {
        _ if taker == tw => TimeWaitChange::Destroyed,
        Doing::TakesSyn => TimeWaitChange::NewSyn,
        Doing::SendsReset => TimeWaitChange::ResetAfterData,
        _ if taker == PURGES => TimeWaitChange::NetnsGone,
        _ => TimeWaitChange::LeftUnexplained,
    }
}
