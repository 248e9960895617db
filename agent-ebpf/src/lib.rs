//! The contract between firstfin's eBPF programs and its agent: record layout, settings, counters, names.
//!
//! This crate is compiled twice, for the kernel (the programs in `main.rs`) and for the host (the agent), so that no
//! structure is ever written down by hand a second time. The library is `no_std` and knows neither aya nor the kernel.
//!
//! Rules of the layout: `repr(C)`, no implicit padding (zerocopy's derive refuses it), integers instead of booleans,
//! host byte order for every integer, ports included; IP addresses are 16 bytes in network order, of which an
//! `AF_INET` address uses the first four.
#![cfg_attr(target_arch = "bpf", no_std)]

mod config;
mod counters;
#[cfg(not(target_arch = "bpf"))]
mod encode;
mod histogram;
pub mod names;
mod record;

pub use config::{Bit, Config, Detail, Filter, Offsets};
pub use counters::Counter;
#[cfg(not(target_arch = "bpf"))]
pub use encode::closed_by_peer;
pub use histogram::{DURATION_BUCKETS, duration_bucket, duration_bucket_end_us};
pub use record::{
    Address, Call, Ends, Header, RecordKind, SyscallRecord, Task, TaskNumber, TaskRecord, TimeWaitChange,
    TimeWaitRecord, TransitionRecord, ask_flag, conn_flag, look, task_flag, timewait_state,
};

/// Version of everything in this crate. The programs carry it as a global; the agent refuses an object of another one.
pub const ABI_VERSION: u32 = 7;
