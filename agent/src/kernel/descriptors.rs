//! Options of other processes' sockets. sock_diag does not tell them, and the kernel tells only who has a descriptor: so
//! through a duplicate of theirs, kept for as long as it takes to ask (pidfd_getfd(2), Linux 5.6, which needs what ptrace
//! needs).
//!
//! A duplicate makes this process one of those that have the socket open: `ss -p` and `fuser` would say so, and another
//! firstfin would name this one as the holder. So it is made where nobody looks, see [`apart`].

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    panic::resume_unwind,
    thread,
};

use rustix::{
    net::{getsockname, ipproto, sockopt},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    thread::{UnshareFlags, unshare_unsafe},
};

use zerocopy::{FromBytes, IntoBytes};

use super::processes::Procfs;
use crate::model::{HeldOptions, Inode, Netns, ProcessKey};

/// Where duplicates of other processes' descriptors are made: [`apart`].
pub(super) struct Duplicates<'a> {
    procfs: &'a Procfs,
}

/// Does `work` on a thread with a table of descriptors of its own, which goes with the thread. `/proc/PID/fd` shows the
/// table of the thread group leader, so what is opened meanwhile is in nobody's list. `None`: there is no such thread.
///
/// # Panics
/// If `work` does.
pub(super) fn apart<T: Send>(procfs: &Procfs, work: impl FnOnce(&Duplicates<'_>) -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let inside = move || {
            // SAFETY: of the descriptors opened from here on none leaves the thread, and of those from before, which are
            // open in the copy as well, none is closed by it.
            let unshared = unsafe { unshare_unsafe(UnshareFlags::FILES) };
            if let Err(error) = unshared {
                // What is asked matters more than that nobody sees it.
                log::debug!("descriptors are duplicated in plain sight: {error}");
            }
            work(&Duplicates { procfs })
        };
        let spawned = thread::Builder::new().name("descriptors".to_owned()).spawn_scoped(scope, inside);
        let thread = spawned.inspect_err(|error| log::warn!("no thread to ask for sockets' options: {error}")).ok()?;
        Some(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// A TCP socket that is bound to a port and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BoundSocket {
    pub(super) netns: Netns,
    pub(super) local: SocketAddr,
    /// The user its file belongs to, as sock_diag would have it
    pub(super) uid: Option<u32>,
}

impl Duplicates<'_> {
    /// The options of those of the `wanted` sockets that this process has open. What cannot be asked is left out: the
    /// process or its descriptor is gone, or may not be looked at.
    #[must_use]
    pub(super) fn socket_options(&self, process: ProcessKey, wanted: &HashSet<Inode>) -> HashMap<Inode, HeldOptions> {
        let mut found = HashMap::new();
        self.each(process, wanted, |inode, socket| {
            found.insert(inode, options(socket));
        });
        found
    }

    /// Those of the `wanted` sockets that are only bound. In which namespace a socket is takes CAP_NET_ADMIN to ask; one
    /// of which it is not known is left out.
    #[must_use]
    pub(super) fn bound_sockets(&self, process: ProcessKey, wanted: &HashSet<Inode>) -> HashMap<Inode, BoundSocket> {
        let mut found = HashMap::new();
        self.each(process, wanted, |inode, socket| {
            if sockopt::socket_protocol(socket) == Ok(Some(ipproto::TCP))
                && is_closed(socket)
                && let Ok(local) =
                    getsockname(socket).map_err(drop).and_then(|local| SocketAddr::try_from(local).map_err(drop))
                && local.port() != 0
                && let Ok(netns) = netns(socket)
            {
                let uid = rustix::fs::fstat(socket).ok().map(|stat| stat.st_uid);
                found.insert(inode, BoundSocket { netns, local, uid });
            }
        });
        found
    }

    /// Hands over a duplicate of each of the `wanted` sockets, one at a time.
    fn each(&self, process: ProcessKey, wanted: &HashSet<Inode>, mut ask: impl FnMut(Inode, &OwnedFd)) {
        let Some(pid) = i32::try_from(process.tgid).ok().and_then(Pid::from_raw) else { return };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // From here on the pid is not used again.
        if !self.procfs.is_alive(process) {
            return;
        }
        for (descriptor, inode) in self.procfs.descriptors_of(process.tgid, wanted) {
            let Ok(socket) = pidfd_getfd(&pidfd, descriptor, PidfdGetfdFlags::empty()) else { continue };
            // The number may have become another descriptor's.
            if rustix::fs::fstat(&socket).is_ok_and(|stat| Inode(stat.st_ino) == inode) {
                ask(inode, &socket);
            }
        }
    }
}

fn options(socket: &OwnedFd) -> HeldOptions {
    HeldOptions {
        reuse_address: sockopt::socket_reuseaddr(socket).ok(),
        reuse_port: sockopt::socket_reuseport(socket).ok(),
        // Refused for an IPv4 socket, where it means nothing.
        v6_only: sockopt::ipv6_v6only(socket).ok(),
        device: device(socket).ok(),
    }
}

/// SO_BINDTOIFINDEX, since Linux 5.0.
fn device(socket: &OwnedFd) -> io::Result<u32> {
    option(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX)
}

/// Whether it is in the state CLOSE: the first byte of `struct tcp_info`.
fn is_closed(socket: &OwnedFd) -> bool {
    const TCP_CLOSE: u8 = 7;
    option::<u8>(socket, libc::IPPROTO_TCP, libc::TCP_INFO).is_ok_and(|state| state == TCP_CLOSE)
}

/// The network namespace of a socket, whose process may have left it.
fn netns(socket: &OwnedFd) -> io::Result<Netns> {
    // SIOCGSKNS, include/uapi/linux/sockios.h
    const SIOCGSKNS: libc::Ioctl = 0x894C;
    // SAFETY: the descriptor is open, and this request reads and writes no memory of ours.
    let descriptor = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    let namespace = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let inode = rustix::fs::fstat(&namespace)?.st_ino;
    u32::try_from(inode).map(Netns).map_err(io::Error::other)
}

fn option<T: FromBytes + IntoBytes>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::new_zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `value`, which may be any.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_bytes().as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

    use super::*;

    fn tcp_socket(family: AddressFamily) -> OwnedFd {
        socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP)).unwrap()
    }

    /// A process that is not this one, with a socket of ours as its stdin.
    #[test]
    fn options_are_read_through_another_process() {
        let socket = tcp_socket(AddressFamily::INET6);
        sockopt::set_socket_reuseport(&socket, true).unwrap();
        sockopt::set_ipv6_v6only(&socket, true).unwrap();
        let inode = Inode(rustix::fs::fstat(&socket).unwrap().st_ino);
        let stdin = Stdio::from(socket.try_clone().unwrap());
        let mut child = Command::new("sleep").arg("600").stdin(stdin).spawn().unwrap();
        let procfs = Procfs::host();
        let process = procfs.by_pid(child.id()).unwrap();
        let stranger = ProcessKey { start_ticks: process.key.start_ticks + 100, ..process.key };
        let read = |key| apart(&procfs, |duplicates| duplicates.socket_options(key, &[inode].into())).unwrap();
        let (found, of_stranger) = (read(process.key), read(stranger));
        child.kill().unwrap();
        child.wait().unwrap();
        let expected =
            HeldOptions { reuse_address: Some(false), reuse_port: Some(true), v6_only: Some(true), device: Some(0) };
        assert_eq!(found, [(inode, expected)].into());
        assert_eq!(of_stranger, HashMap::new(), "the pid of another process");
        assert_eq!(read(process.key), HashMap::new(), "it is gone");
    }

    /// A listener that only a child has: while its options are asked, nobody sees it here.
    #[test]
    fn the_duplicate_is_in_nobodys_list() {
        let socket = tcp_socket(AddressFamily::INET);
        let inode = Inode(rustix::fs::fstat(&socket).unwrap().st_ino);
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::from(socket)).spawn().unwrap();
        let procfs = Procfs::host();
        let process = procfs.by_pid(child.id()).unwrap().key;
        let mut seen = Vec::new();
        apart(&procfs, |duplicates| {
            duplicates.each(process, &[inode].into(), |_, _| seen.push(procfs.socket_holders().by_inode));
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let [seen] = seen.as_slice() else { panic!("one duplicate was made: {seen:?}") };
        // A child of another test has it as well, until its exec().
        let holders: Vec<_> = seen[&inode].iter().map(|it| it.key).collect();
        assert!(holders.contains(&process), "{holders:?}");
        assert!(holders.iter().all(|holder| holder.tgid != std::process::id()), "{holders:?}");
    }
}
