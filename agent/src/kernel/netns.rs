//! Network namespaces: finding them, and looking into one.
//!
//! A namespace is found by the processes in it and by the names it is mounted under (`ip netns`, Docker, CNI). One that
//! only sockets or open descriptors keep alive has no path that leads to it, and cannot be found.
//!
//! setns() moves a thread, so a namespace is entered on a thread of its own that ends with the work: no other code of
//! this process ever finds itself in a foreign namespace.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::model::Netns;

/// A network namespace and a path that leads to it, for as long as what it was found by is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsHandle {
    /// Which namespace
    pub netns: Netns,
    /// `/proc/PID/ns/net`, or the name it is mounted under
    pub path: PathBuf,
}

/// The namespaces that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Each namespace once, that of the calling thread first
    pub namespaces: Vec<NetnsHandle>,
    /// Processes whose namespace could not be read, which takes CAP_SYS_PTRACE
    pub unreadable: u64,
}

impl Discovery {
    fn add(&mut self, known: &mut HashSet<Netns>, netns: Netns, path: PathBuf) {
        if known.insert(netns) {
            self.namespaces.push(NetnsHandle { netns, path });
        }
    }
}

/// Finds the namespace of the calling thread, those that have a name in this mount namespace, and those of all
/// processes. A process counts with its first thread only: [`in_threads`] looks at the others. `proc_root` is `/proc`.
#[must_use]
pub fn discover(proc_root: &Path) -> Discovery {
    let mut discovery = Discovery::default();
    let mut known = HashSet::new();
    let own = proc_root.join("thread-self/ns/net");
    if let Ok(netns) = read_link(&own) {
        discovery.add(&mut known, netns, own);
    }
    // A name is the surer way: a process can end at any moment.
    let mounts = fs::read(proc_root.join("thread-self/mountinfo")).unwrap_or_default();
    for (netns, path) in String::from_utf8_lossy(&mounts).lines().filter_map(mounted) {
        discovery.add(&mut known, netns, path);
    }
    for process in numbered(proc_root) {
        let path = process.join("ns/net");
        match read_link(&path) {
            Ok(netns) => discovery.add(&mut known, netns, path),
            Err(error) if is_gone(&error) => {}
            Err(_) => discovery.unreadable += 1,
        }
    }
    discovery
}

/// Looks for `wanted` namespaces among all threads of all processes, which is slower than [`discover`]: for a thread that
/// left its process's namespace, as Go programs and this one do.
#[must_use]
pub fn in_threads(proc_root: &Path, wanted: &HashSet<Netns>) -> Vec<NetnsHandle> {
    let mut found = Discovery::default();
    let mut known = HashSet::new();
    for thread in numbered(proc_root).flat_map(|process| numbered(&process.join("task"))) {
        if known.len() == wanted.len() {
            break;
        }
        let path = thread.join("ns/net");
        if let Ok(netns) = read_link(&path)
            && wanted.contains(&netns)
        {
            found.add(&mut known, netns, path);
        }
    }
    found.namespaces
}

/// The network namespace of the calling thread.
///
/// # Errors
/// If procfs is not mounted at `/proc`.
pub fn current() -> io::Result<Netns> {
    read_link(Path::new("/proc/thread-self/ns/net"))
}

/// Entries of a directory that are numbers: processes, or threads.
fn numbered(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path())
}

/// Whether an error says that the process is not there any more, or has no namespace any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn read_link(path: &Path) -> io::Result<Netns> {
    let target = fs::read_link(path)?;
    let text = target.to_str().unwrap_or_default();
    parse_link(text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a link to a network namespace"))
}

/// `net:[4026531840]`
fn parse_link(text: &str) -> Option<Netns> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok().map(Netns)
}

/// The namespace and mount point of a line of `mountinfo`, if it is a namespace that is mounted:
/// `386 25 0:4 net:[4026532281] /run/netns/blue rw shared:204 - nsfs nsfs rw`.
fn mounted(line: &str) -> Option<(Netns, PathBuf)> {
    let mut fields = line.split(' ').skip(3);
    let netns = parse_link(fields.next()?)?;
    // A path that is not UTF-8 could not be opened by what is left of it.
    let path = fields.next().filter(|path| !path.contains(char::REPLACEMENT_CHARACTER))?;
    Some((netns, PathBuf::from(unescape(path))))
}

/// Undoes the `\040` that stands for a space, and its like (mangle_path, fs/seq_file.c).
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// Why a namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// No thread to do it on
    #[error("start a thread to look into network namespace {netns}")]
    Thread {
        /// Which namespace
        netns: Netns,
        /// Why not
        #[source]
        source: io::Error,
    },
    /// The path leads nowhere any more
    #[error("{path:?} is gone, by which network namespace {netns} was known")]
    Gone {
        /// Which namespace
        netns: Netns,
        /// The way to it
        path: PathBuf,
        /// What says so
        #[source]
        source: io::Error,
    },
    /// The path leads elsewhere now: its process ended and the pid was used again, or it changed its namespace
    #[error("{path:?} leads to another place now than network namespace {netns}")]
    Replaced {
        /// Which namespace
        netns: Netns,
        /// The way to it
        path: PathBuf,
    },
    /// A capability is missing
    #[error("enter network namespace {netns} by {path:?}: takes CAP_SYS_ADMIN, and CAP_SYS_PTRACE by way of a process")]
    NotPermitted {
        /// Which namespace
        netns: Netns,
        /// The way to it
        path: PathBuf,
        /// The kernel's answer
        #[source]
        source: io::Error,
    },
    /// Anything else
    #[error("enter network namespace {netns} by {path:?}")]
    Os {
        /// Which namespace
        netns: Netns,
        /// The way to it
        path: PathBuf,
        /// The kernel's answer
        #[source]
        source: io::Error,
    },
}

impl EnterError {
    /// Whether another path may still lead there.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Replaced { .. })
    }

    fn from_errno(handle: &NetnsHandle, errno: Errno) -> Self {
        let (netns, path, source) = (handle.netns, handle.path.clone(), errno.into());
        match errno {
            Errno::NOENT | Errno::SRCH => Self::Gone { netns, path, source },
            Errno::PERM | Errno::ACCESS => Self::NotPermitted { netns, path, source },
            _ => Self::Os { netns, path, source },
        }
    }
}

/// Does `work` on a thread in the namespace, and waits for it. The calling thread's own namespace takes no capability.
///
/// # Errors
/// If the namespace cannot be entered, or the path leads to another one by now. `work` is not done then.
///
/// # Panics
/// If `work` does.
pub fn enter<T: Send>(handle: &NetnsHandle, work: impl FnOnce() -> T + Send) -> Result<T, EnterError> {
    // A new thread begins in the namespace of the one that starts it.
    let is_own = current().is_ok_and(|own| own == handle.netns);
    thread::scope(|scope| {
        let inside = move || {
            if !is_own {
                move_to(handle)?;
            }
            Ok(work())
        };
        let builder = thread::Builder::new().name("netns".to_owned());
        let thread =
            builder.spawn_scoped(scope, inside).map_err(|source| EnterError::Thread { netns: handle.netns, source })?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn move_to(handle: &NetnsHandle) -> Result<(), EnterError> {
    let failed = |errno| EnterError::from_errno(handle, errno);
    // Whatever may be at the path by now, opening it does not block.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let namespace: OwnedFd = rustix::fs::open(&handle.path, flags, Mode::empty()).map_err(failed)?;
    // The descriptor holds the namespace: what it is now it stays.
    if rustix::fs::fstat(&namespace).map_err(failed)?.st_ino != u64::from(handle.netns.0) {
        return Err(EnterError::Replaced { netns: handle.netns, path: handle.path.clone() });
    }
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_mounts_are_read() {
        assert_eq!(parse_link("net:[4026531840]"), Some(Netns(4_026_531_840)));
        for text in ["mnt:[4026531840]", "net:[]", "net:[-1]", "net:[4294967296]", "net:[1"] {
            assert_eq!(parse_link(text), None, "{text}");
        }
        assert_eq!(
            mounted("386 25 0:4 net:[4026532281] /run/netns/blue rw shared:204 - nsfs nsfs rw"),
            Some((Netns(4_026_532_281), "/run/netns/blue".into()))
        );
        assert_eq!(
            mounted(r"387 25 0:4 net:[7] /run/netns/a\040b\134c rw - nsfs nsfs rw"),
            Some((Netns(7), r"/run/netns/a b\c".into()))
        );
        assert_eq!(mounted("22 1 0:21 / /proc rw,nosuid - proc proc rw"), None);
        assert_eq!(mounted("388 25 0:4 mnt:[9] /run/mnt/x rw - nsfs nsfs rw"), None);
    }

    #[test]
    fn every_namespace_is_found_once_and_what_cannot_be_read_is_counted() {
        let root = std::env::temp_dir().join(format!("firstfin-netns-{}", std::process::id()));
        let link = |process: &str, target: &str| {
            let directory = root.join(process).join("ns");
            fs::create_dir_all(&directory).unwrap();
            symlink(target, directory.join("net")).unwrap();
        };
        link("thread-self", "net:[100]");
        link("1", "net:[100]");
        link("20", "net:[200]");
        link("21", "net:[200]");
        link("22", "net:[300]");
        link("22/task/22", "net:[300]");
        link("22/task/23", "net:[400]");
        link("30", "no namespace");
        link("self", "net:[500]");
        fs::create_dir_all(root.join("31")).unwrap();
        let mounts = "1 1 0:4 net:[300] /run/netns/blue rw - nsfs nsfs rw\n";
        fs::write(root.join("thread-self/mountinfo"), mounts).unwrap();

        let discovery = discover(&root);
        let thread = in_threads(&root, &[Netns(400), Netns(999)].into());
        fs::remove_dir_all(&root).unwrap();

        let mut found = discovery.namespaces.iter().map(|handle| handle.netns.0);
        assert_eq!(found.next(), Some(100), "its own first");
        assert_eq!(found.collect::<HashSet<_>>(), [200, 300].into());
        assert_eq!(discovery.namespaces.len(), 3);
        let named = discovery.namespaces.iter().find(|handle| handle.netns == Netns(300)).unwrap();
        assert_eq!(named.path, Path::new("/run/netns/blue"), "a name before a process");
        assert_eq!(discovery.unreadable, 1, "a process that is gone is not one that cannot be read");
        assert_eq!(thread, [NetnsHandle { netns: Netns(400), path: root.join("22/task/23/ns/net") }]);
    }

    #[test]
    fn ones_own_namespace_takes_no_capability() {
        let own = discover(Path::new("/proc")).namespaces.into_iter().next().unwrap();
        assert_eq!(own.netns, current().unwrap());
        assert_eq!(enter(&own, current).unwrap().unwrap(), own.netns);
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_not_followed() {
        let path = PathBuf::from("/proc/self/ns/net");
        let error =
            enter(&NetnsHandle { netns: Netns(1), path }, || unreachable!("in the wrong namespace")).unwrap_err();
        assert!(matches!(error, EnterError::Replaced { .. }) && error.is_stale(), "{error}");
        let path = PathBuf::from("/proc/self/ns/nothing");
        let error = enter(&NetnsHandle { netns: Netns(1), path }, || ()).unwrap_err();
        assert!(matches!(error, EnterError::Gone { .. }) && error.to_string().contains("ns/nothing"), "{error}");
    }

    #[test]
    fn a_missing_capability_is_named() {
        let handle = NetnsHandle { netns: Netns(1), path: "/proc/1/ns/net".into() };
        let error = EnterError::from_errno(&handle, Errno::PERM);
        assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
        assert!(!error.is_stale());
    }

    #[test]
    fn a_panic_inside_comes_out() {
        let own = NetnsHandle { netns: current().unwrap(), path: "/proc/thread-self/ns/net".into() };
        let result = std::panic::catch_unwind(|| enter::<()>(&own, || resume_unwind(Box::new("inside"))));
        assert!(result.is_err());
    }
}
