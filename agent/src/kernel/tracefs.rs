//! tracefs for a host that has not mounted it, without changing the host: in a mount namespace of one thread.

use std::io;

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::host::TRACEFS_PATH;

/// Mounts tracefs where it belongs, visible to the calling thread alone. Never call it on a thread that lives on.
pub(super) fn mount_for_this_thread() -> io::Result<()> {
    // SAFETY: only the mount namespace is unshared (with the thread's own root and working directory, which that
    // entails); memory, descriptors and signal handlers stay shared, so nothing another thread relies on changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    // What is mounted here must not reach the host; what the host mounts may go on to reach here.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tracefs", TRACEFS_PATH, "tracefs", flags, None)?;
    Ok(())
}
