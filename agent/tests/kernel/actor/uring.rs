//! connect() and close() through io_uring, which pass no system call of that name.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd},
};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::net::addr::SocketAddrArg as _;

/// Whether this kernel lets this process use io_uring, or why not.
pub(crate) fn is_usable() -> Result<(), String> {
    IoUring::new(2).map(drop).map_err(|error| format!("io_uring_setup: {error}"))
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
