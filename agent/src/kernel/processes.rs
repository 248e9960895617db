//! Processes, from procfs: what is known of one, whether it is still there, and who holds which socket.
//!
//! A pid says little: it is used again. What is read of `/proc/PID` is read through one descriptor of that directory,
//! which the kernel ties to the process and not to the number, and only counts if the start time is the expected one.
//! What cannot be read is left out; some processes cannot be read even by root, and that is never an error here.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat, readlinkat_raw},
    io::Errno,
};

use super::{
    cgroup,
    containers::{self, Containers},
};
use crate::model::{Inode, Name, Netns, Process, ProcessKey, SocketHolders, Task};

/// `PROC_PID_INIT_INO` (include/linux/proc_ns.h): the inode number of the initial pid namespace.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// An eBPF program and procfs round the start time from nanoseconds to ticks in different places.
const START_TOLERANCE_TICKS: u64 = 1;

/// procfs, at `/proc` or wherever a host's is mounted.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: PathBuf,
    containers: Containers,
}

impl Procfs {
    /// The procfs of this pid namespace; containers go by the names in the usual places.
    #[must_use]
    pub fn host() -> Self {
        Self::at("/proc").naming(Containers::new(&containers::Config::default()))
    }

    /// The procfs mounted at `root`; containers go by their id.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), containers: Containers::unnamed() }
    }

    /// The same, with names of containers from elsewhere.
    #[must_use]
    pub fn naming(self, containers: Containers) -> Self {
        Self { containers, ..self }
    }

    /// Where it has the names of containers from.
    #[must_use]
    pub const fn containers(&self) -> &Containers {
        &self.containers
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is known of a process that a program saw. If it is gone, or the pid is another process's by now, that is
    /// what the task itself tells.
    #[must_use]
    pub fn describe(&self, task: &Task) -> Process {
        self.directory(task.key.tgid)
            .and_then(|directory| Some((directory.stat()?, directory)))
            .filter(|(stat, _)| is_same(stat.start_ticks, task.key))
            .map_or_else(
                || Process::from_task(task),
                |(stat, directory)| directory.describe(&stat, task.key, Some(task.uid), &self.containers),
            )
    }

    /// What is known of the process `pid`, if there is one.
    #[must_use]
    pub fn by_pid(&self, pid: u32) -> Option<Process> {
        let directory = self.directory(pid)?;
        let stat = directory.stat()?;
        let key = ProcessKey { tgid: pid, start_ticks: stat.start_ticks };
        Some(directory.describe(&stat, key, directory.uid(), &self.containers))
    }

    /// Whether the process still runs. A zombie does not.
    #[must_use]
    pub fn is_alive(&self, key: ProcessKey) -> bool {
        self.directory(key.tgid)
            .and_then(|directory| directory.stat())
            .is_some_and(|stat| is_same(stat.start_ticks, key) && !stat.has_exited)
    }

    /// Who holds which socket. A process counts once a socket, however many descriptors it has of it. Descriptors that a
    /// thread keeps from its process (CLONE_FILES without) are not seen.
    #[must_use]
    pub fn socket_holders(&self) -> SocketHolders {
        let mut holders = SocketHolders::default();
        let mut buffer = Vec::with_capacity(DIRECTORY_BYTES);
        for pid in self.pids() {
            let Some(directory) = self.directory(pid) else { continue };
            match directory.sockets(buffer.spare_capacity_mut()) {
                Ok(inodes) if inodes.is_empty() => {}
                Ok(inodes) => {
                    let Some(stat) = directory.stat() else { continue };
                    let key = ProcessKey { tgid: pid, start_ticks: stat.start_ticks };
                    let process = directory.describe(&stat, key, directory.uid(), &self.containers);
                    for inode in inodes {
                        holders.by_inode.entry(inode).or_default().push(process.clone());
                    }
                }
                Err(Errno::NOENT | Errno::SRCH) => {}
                Err(_) => holders.unreadable += 1,
            }
        }
        for processes in holders.by_inode.values_mut() {
            processes.sort_by_key(|process| (process.key.start_ticks, process.key.tgid));
        }
        holders
    }

    /// Descriptors by which a process has one of these sockets open, one a socket.
    pub(super) fn descriptors_of(&self, pid: u32, wanted: &HashSet<Inode>) -> Vec<(i32, Inode)> {
        let mut missing = wanted.clone();
        let mut found = Vec::new();
        let mut buffer = Vec::with_capacity(DIRECTORY_BYTES);
        if let Some(directory) = self.directory(pid) {
            // Those read before an error are as good as any.
            let _ = directory.each_socket(buffer.spare_capacity_mut(), |descriptor, inode| {
                if missing.remove(&inode) {
                    found.push((descriptor, inode));
                }
            });
        }
        found
    }

    /// Whether this procfs and the programs in the kernel mean the same by a pid: programs see the numbers of the
    /// initial pid namespace.
    #[must_use]
    pub fn is_initial_pid_namespace(&self) -> bool {
        let link = fs::read_link(self.root.join("self/ns/pid")).unwrap_or_default();
        link.to_str().is_some_and(|link| bracketed(link.as_bytes(), b"pid:[") == Some(INITIAL_PID_NAMESPACE))
    }

    /// Every process, each by its thread group leader: procfs lists no other threads.
    fn pids(&self) -> impl Iterator<Item = u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    fn directory(&self, pid: u32) -> Option<Directory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, self.root.join(pid.to_string()), flags, Mode::empty()).ok().map(Directory)
    }
}

fn is_same(start_ticks: u64, key: ProcessKey) -> bool {
    start_ticks.abs_diff(key.start_ticks) <= START_TOLERANCE_TICKS
}

/// `/proc/PID` of one process. Once that is gone nothing can be read through it, whoever has the pid.
struct Directory(OwnedFd);

/// Room for some thousand entries of `/proc/PID/fd` a system call.
const DIRECTORY_BYTES: usize = 64 * 1024;

impl Directory {
    fn describe(&self, stat: &Stat, key: ProcessKey, uid: Option<u32>, containers: &Containers) -> Process {
        let cgroup = self.read("cgroup").ok().map(|text| String::from_utf8_lossy(&text).into_owned());
        let cgroup = cgroup.as_deref().and_then(cgroup::own_path);
        let cgroup::Identity { unit, mut container } = cgroup.map(cgroup::identify).unwrap_or_default();
        if let Some(container) = &mut container {
            containers.name(container);
        }
        Process {
            key,
            comm: stat.comm.clone(),
            uid,
            exe: self.link("exe").map(|path| Name::from_bytes(&path)),
            cgroup: cgroup.map(Name::from),
            unit,
            container,
            netns: self
                .link("ns/net")
                .and_then(|link| bracketed(&link, b"net:["))
                .and_then(|inode| u32::try_from(inode).ok())
                .map(Netns),
        }
    }

    fn stat(&self) -> Option<Stat> {
        Stat::parse(&self.read("stat").ok()?)
    }

    /// The real user id, which is also the one the programs report.
    fn uid(&self) -> Option<u32> {
        uid(&self.read("status").ok()?)
    }

    /// The sockets the process has descriptors of. `buffer` is for the entries of the directory.
    fn sockets(&self, buffer: &mut [MaybeUninit<u8>]) -> rustix::io::Result<HashSet<Inode>> {
        let mut inodes = HashSet::new();
        self.each_socket(buffer, |_, inode| {
            inodes.insert(inode);
        })?;
        Ok(inodes)
    }

    fn each_socket(&self, buffer: &mut [MaybeUninit<u8>], mut take: impl FnMut(i32, Inode)) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptors = openat(&self.0, "fd", flags, Mode::empty())?;
        let mut entries = RawDir::new(&descriptors, buffer);
        while let Some(entry) = entries.next() {
            // `socket:[18446744073709551615]` fits; of a longer link the beginning is enough to see that it is none.
            let mut target = [MaybeUninit::uninit(); 40];
            let entry = entry?;
            // `.` and `..` are no links, and a descriptor may be closed by now.
            if let Ok((target, _)) = readlinkat_raw(&descriptors, entry.file_name(), &mut target)
                && let Some(inode) = bracketed(target, b"socket:[")
                && let Some(descriptor) = entry.file_name().to_str().ok().and_then(|number| number.parse().ok())
            {
                take(descriptor, Inode(inode));
            }
        }
        Ok(())
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = openat(&self.0, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn link(&self, name: &str) -> Option<Vec<u8>> {
        readlinkat(&self.0, name, Vec::new()).ok().map(std::ffi::CString::into_bytes)
    }
}

/// The number in `NAME[NUMBER]`, as links to sockets and namespaces are written.
fn bracketed(link: &[u8], name: &[u8]) -> Option<u64> {
    std::str::from_utf8(link.strip_prefix(name)?.strip_suffix(b"]")?).ok()?.parse().ok()
}

/// What is used of `/proc/PID/stat`. For a process it tells of the thread group leader.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: Name,
    /// Zombie, or past it
    has_exited: bool,
    /// Field 22, ticks of 10 ms (`USER_HZ` is 100 on all architectures that run eBPF) since boot
    start_ticks: u64,
}

impl Stat {
    /// The name is in parentheses, and may hold parentheses, blanks and line feeds itself: it ends with the last `)`.
    fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let comm = text.get(open + 1..close)?;
        let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
        // Fields 3 and 22, of which field 3 is the first here.
        let (state, start_ticks) = (fields.next()?, fields.nth(18)?.parse().ok()?);
        Some(Self { comm: Name::from_comm(comm), has_exited: matches!(state, "Z" | "X" | "x"), start_ticks })
    }
}

/// The first number of the line `Uid:` of `/proc/PID/status`.
fn uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixStream,
        process::{Command, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    fn task(process: &Process, start_ticks: u64) -> Task {
        Task {
            key: ProcessKey { start_ticks, ..process.key },
            uid: 77,
            comm: "as-seen".into(),
            cgroup_id: 1,
            is_kernel_thread: false,
            is_agent: false,
        }
    }

    #[test]
    fn the_name_may_hold_anything() {
        let line = |comm: &str, state: char| {
            format!(
                "42 ({comm}) {state} 1 42 42 0 -1 4194560 9 8 7 6 5 4 3 2 20 0 1 0 123456 1000 50 18446744073709551615"
            )
        };
        let stat = |text: &str| Stat::parse(text.as_bytes()).unwrap();
        assert_eq!(stat(&line("nginx: worker", 'S')).comm.as_str(), "nginx: worker");
        let odd = stat(&line(") R 1 (\u{1b}[2J\n", 'S'));
        assert_eq!((odd.comm.as_str(), odd.start_ticks, odd.has_exited), (r") R 1 (\x1b[2J\n", 123_456, false));
        assert!(stat(&line("gone", 'Z')).has_exited);
        let mut bytes = line("x", 'S').into_bytes();
        *bytes.get_mut(4).unwrap() = 0xff;
        assert_eq!(Stat::parse(&bytes).unwrap().comm.as_str(), r"\xff");
        for text in ["", "42 (x", "42 (x) S 1 2", "42 )x( S", "42 (x) S 1 42 42 0 -1 0 9 8 7 6 5 4 3 2 20 0 1 0 soon"] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn links_and_uids() {
        assert_eq!(bracketed(b"socket:[4711]", b"socket:["), Some(4711));
        assert_eq!(bracketed(b"socket:[18446744073709551615]", b"socket:["), Some(u64::MAX));
        for link in [&b"pipe:[1]"[..], b"socket:[]", b"socket:[1", b"socket:[x]", b"/tmp/socket:[1]"] {
            assert_eq!(bracketed(link, b"socket:["), None);
        }
        assert_eq!(uid(b"Name:\tUid:\nUmask:\t0022\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\n"), Some(1000));
        assert_eq!(uid(b"Name:\tx\n"), None);
    }

    #[test]
    fn we_find_ourselves() {
        let procfs = Procfs::host();
        let me = procfs.by_pid(std::process::id()).unwrap();
        assert_eq!(me.uid, Some(rustix::process::getuid().as_raw()));
        assert_eq!(me.exe.as_ref().unwrap().as_str(), std::env::current_exe().unwrap().to_str().unwrap());
        assert!(me.netns.is_some() && me.cgroup.is_some());
        assert!(procfs.is_alive(me.key));
        assert_eq!(procfs.by_pid(u32::MAX), None);
    }

    #[test]
    fn a_pid_that_was_used_again_is_another_process() {
        let procfs = Procfs::host();
        let me = procfs.by_pid(std::process::id()).unwrap();
        for ticks in [me.key.start_ticks - 1, me.key.start_ticks, me.key.start_ticks + 1] {
            let described = procfs.describe(&task(&me, ticks));
            assert_eq!((&described.exe, &described.comm, described.uid), (&me.exe, &me.comm, Some(77)));
            assert_eq!(described.key.start_ticks, ticks, "the key stays as the event had it");
        }
        for ticks in [me.key.start_ticks - 2, me.key.start_ticks + 2, 0, u64::MAX] {
            assert_eq!(procfs.describe(&task(&me, ticks)), Process::from_task(&task(&me, ticks)));
            assert!(!procfs.is_alive(ProcessKey { start_ticks: ticks, ..me.key }));
        }
    }

    #[test]
    fn a_zombie_has_exited() {
        let procfs = Procfs::host();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = procfs.by_pid(child.id()).unwrap();
        assert!(procfs.is_alive(process.key));
        child.kill().unwrap();
        let zombie = std::iter::repeat_with(|| procfs.directory(child.id()).unwrap().stat().unwrap())
            .find(|stat| stat.has_exited)
            .unwrap();
        assert_eq!(zombie.start_ticks, process.key.start_ticks);
        assert!(!procfs.is_alive(process.key));
        child.wait().unwrap();
        assert!(!procfs.is_alive(process.key));
    }

    #[test]
    fn a_socket_is_held_by_all_that_have_it() {
        let (mine, _other) = UnixStream::pair().unwrap();
        let duplicate = mine.try_clone().unwrap();
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::from(OwnedFd::from(duplicate))).spawn().unwrap();
        let inode = Inode(rustix::fs::fstat(&mine).unwrap().st_ino);
        let holders = Procfs::host().socket_holders();
        child.kill().unwrap();
        child.wait().unwrap();
        let pids: Vec<u32> = holders.by_inode.get(&inode).unwrap().iter().map(|process| process.key.tgid).collect();
        // A child that another test is just starting may hold it for a moment, too.
        for pid in [std::process::id(), child.id()] {
            assert_eq!(pids.iter().filter(|&&holder| holder == pid).count(), 1, "{pid} in {pids:?}");
        }
    }

    #[test]
    fn an_empty_procfs_knows_nobody() {
        let procfs = Procfs::at("/nowhere");
        assert_eq!(procfs.by_pid(1), None);
        assert_eq!(procfs.socket_holders(), SocketHolders::default());
        assert!(!procfs.is_initial_pid_namespace());
    }

    proptest! {
        #[test]
        fn any_stat_is_taken(text in prop::collection::vec(any::<u8>(), 0..200), comm in "[ ()\\PC]{0,16}") {
            let _ = Stat::parse(&text);
            let _ = uid(&text);
            let line = format!("1 ({comm}) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20");
            prop_assert_eq!(Stat::parse(line.as_bytes()).unwrap().start_ticks, 99);
        }
    }
}
