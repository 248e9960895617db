//! An eBPF program that does nothing, on the hook ours is on: what the hook itself costs.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use super::syscall::bpf;

// enum bpf_cmd, enum bpf_prog_type (include/uapi/linux/bpf.h)
const BPF_PROG_LOAD: i32 = 5;
const BPF_RAW_TRACEPOINT_OPEN: i32 = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0`, `exit`.
const NOTHING: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
const TRACEPOINT: &[u8] = b"inet_sock_set_state\0";

/// The first members of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    padding: u32,
}

/// The program, attached until it is dropped.
pub(super) struct Floor {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Floor {
    pub(super) fn attach() -> Result<Self> {
        let load = Load {
            kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instructions: NOTHING.len() as u32,
            program: NOTHING.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        };
        let program = bpf(BPF_PROG_LOAD, &load).context("load an empty eBPF program")?;
        let open = Open { name: TRACEPOINT.as_ptr() as u64, program: program.as_raw_fd() as u32, padding: 0 };
        let link = bpf(BPF_RAW_TRACEPOINT_OPEN, &open).context("attach an empty eBPF program")?;
        Ok(Self { _program: program, _link: link })
    }
}
