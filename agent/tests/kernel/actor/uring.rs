//! Calls through io_uring, which pass no system call of their name.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd},
};

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::net::addr::SocketAddrArg as _;

/// Whether this kernel lets this process use io_uring, or why not.
pub(crate) fn is_usable() -> Result<(), String> {
    IoUring::new(2).map(drop).map_err(|error| format!("io_uring_setup: {error}"))
}

/// Whether bind() and listen() are among what this kernel does through io_uring (Linux 6.11), or why not.
pub(crate) fn has_bind() -> Result<(), String> {
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    let ring = IoUring::new(2).map_err(|error| failed("io_uring_setup", error))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| failed("IORING_REGISTER_PROBE", error))?;
    let has_both = probe.is_supported(opcode::Bind::CODE) && probe.is_supported(opcode::Listen::CODE);
    if has_both { Ok(()) } else { Err("io_uring has no bind() and listen() before Linux 6.11".to_owned()) }
}

pub(super) fn bind(socket: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    let address = address.as_any();
    let entry = opcode::Bind::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.addr_len()).build();
    submit(&entry)
}

pub(super) fn listen(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    submit(&opcode::Listen::new(types::Fd(socket.as_raw_fd()), backlog).build())
}

pub(super) fn connect(socket: BorrowedFd<'_>, remote: SocketAddr) -> io::Result<()> {
    let remote = remote.as_any();
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), remote.as_ptr().cast(), remote.addr_len()).build();
    submit(&entry)
}

pub(super) fn close(socket: OwnedFd) -> io::Result<()> {
    submit(&opcode::Close::new(types::Fd(socket.into_raw_fd())).build())
}

/// Submits one entry and waits for it. What the entry points to has to live until then, which it does: this is all
/// the ring is ever used for.
fn submit(entry: &squeue::Entry) -> io::Result<()> {
    let mut ring = IoUring::new(2)?;
    // SAFETY: the address the entry points to is the caller's and outlives this function, which returns only after
    // the kernel has completed the entry.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().ok_or(io::ErrorKind::UnexpectedEof)?.result();
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
