//! A network namespace for each test, so that tests run at the same time and see only themselves.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use firstfin::model::Netns;
use rustix::{
    net::{AddressFamily, SocketType, socket},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use crate::actor::Actor;

/// A network namespace with its loopback up. It lasts until the last test is done.
pub(crate) struct Net {
    file: File,
    id: Netns,
}

impl Net {
    /// Makes one.
    pub(crate) fn new() -> io::Result<Self> {
        let net = Self::passing()?;
        // The kernel gives the number of a namespace that is gone to the next one, and events are sorted by it.
        static KEPT: Mutex<Vec<File>> = Mutex::new(Vec::new());
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(net.file.try_clone()?);
        Ok(net)
    }

    /// Makes one that goes with this value and the last actor in it.
    pub(crate) fn passing() -> io::Result<Self> {
        let file = on_a_thread(|| {
            // SAFETY: only a namespace of this thread's own is asked for; descriptors stay shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            set_up("lo")?;
            // On a busy host an ACK comes late, is answered by a RST, and that takes the TIME_WAIT of its sender away
            // (RFC 1337): nothing a test of something else should meet.
            fs::write("/proc/sys/net/ipv4/tcp_rfc1337", "1")?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let inode = file.metadata()?.ino();
        let id = Netns(u32::try_from(inode).map_err(io::Error::other)?);
        Ok(Self { file, id })
    }

    /// Its inode number, as events name it.
    pub(crate) const fn id(&self) -> Netns {
        self.id
    }

    /// A descriptor to enter it by.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Starts a workload process in it.
    pub(crate) fn actor(&self, comm: &str) -> io::Result<Actor> {
        Actor::start(self, comm.as_bytes())
    }

    /// Does something in it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        })
    }

    /// Sets `net.NAME` in it, the name with slashes.
    pub(crate) fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        self.inside(|| {
            let path = format!("/proc/sys/net/{name}");
            fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        })
    }

    /// Waits until the kernel counts that many timewait sockets in it.
    pub(crate) fn await_time_wait(&self, wanted: u64) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.kernel_time_wait()? {
                count if count == wanted => return Ok(()),
                count if Instant::now() > deadline => {
                    return Err(io::Error::other(format!(
                        "{count} timewait sockets by the kernel's count, {wanted} wanted"
                    )));
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// How many timewait sockets the kernel counts in it.
    pub(crate) fn kernel_time_wait(&self) -> io::Result<u64> {
        self.inside(|| {
            let path = "/proc/thread-self/net/sockstat";
            let text = fs::read_to_string(path)?;
            let tcp = text.lines().find_map(|line| line.strip_prefix("TCP: "));
            let count =
                tcp.and_then(|fields| fields.split(' ').skip_while(|&field| field != "tw").nth(1)?.parse().ok());
            count.ok_or_else(|| io::Error::other(format!("{path}: {text}")))
        })
    }
}

/// A namespace belongs to a thread, so whatever enters one gets a thread of its own.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Brings an interface of the current namespace up.
pub(crate) fn set_up(interface: &str) -> io::Result<()> {
    let mut request = interface_request(interface)?;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let up = libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the request is a whole `ifreq`, named and NUL terminated, and the kernel only reads it. The union's
    // member is the one SIOCSIFFLAGS asks for.
    let result = unsafe {
        request.ifr_ifru.ifru_flags = up;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A request about an interface, with nothing but its name.
pub(crate) fn interface_request(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all bytes zero is a valid `ifreq`: an empty name and a union of numbers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}
