//! The system call bpf(2), for what the bench does itself.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Carries out a command that returns a descriptor.
pub(super) fn bpf<T>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are a prefix of `union bpf_attr`, as long as is said, and what they point to is constant.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every command used here returns a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
