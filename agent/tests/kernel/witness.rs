//! A witness of transitions that no program was run for.
//!
//! A transition in softirq happens in the context of whoever the CPU was taken from. There are kernels that run no
//! program in the context of the host's first process, which they keep from being looked into: whatever a packet or a
//! timer does just then, every session misses, and nothing counts it. ftrace still sees the tracepoint. An instance of
//! it notes the transitions in the context of that process, and a test that failed while there was one is repeated.
//!
//! Without tracefs there is no witness, and no test is repeated.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use firstfin::model::{TcpState, Timestamp};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::watch::{self, Watch};

const TRACEFS: &str = "/sys/kernel/tracing";
const NAME: &str = "firstfin-tests-";
/// The threads of the first process. In a pid namespace of its own this is another one, and there is no witness.
const TASKS: &str = "/proc/1/task";
/// Between the time of a row, in microseconds and of the tracepoint, and that of the programs' record.
const APART: Duration = Duration::from_millis(5);

static WITNESS: OnceLock<io::Result<Mutex<Witness>>> = OnceLock::new();

struct Witness {
    /// The instances of tracefs
    instances: OwnedFd,
    /// Our own
    instance: OwnedFd,
    name: CString,
}

/// A transition in the context of the host's first process.
struct Row {
    at: Timestamp,
    local_port: u16,
    remote_port: u16,
    is_end: bool,
    text: String,
}

/// Begins to note such transitions; returns the time.
pub(crate) fn begin() -> Timestamp {
    let witness = WITNESS.get_or_init(|| {
        let witness = Witness::new();
        if let Err(error) = &witness {
            eprintln!("no witness of transitions that no program is run for: {error}");
        }
        witness.map(Mutex::new)
    });
    if let Ok(witness) = witness {
        // Threads come and go.
        let _ = witness.lock().unwrap_or_else(PoisonError::into_inner).follow_tasks();
    }
    watch::now()
}

/// The transitions since then that no program was run for.
pub(crate) fn withheld_since(begin: Timestamp) -> Vec<String> {
    let Some(Ok(witness)) = WITNESS.get() else { return Vec::new() };
    let mut rows = witness.lock().unwrap_or_else(PoisonError::into_inner).rows().unwrap_or_default();
    rows.retain(|row| row.at >= begin);
    let Ok(shared) = Watch::shared() else { return Vec::new() };
    // This kernel does run programs there, if the session all tests share has seen one of these ends.
    let is_seen = |row: &Row| {
        row.is_end
            && shared.has_transition(|transition| {
                transition.new == TcpState::Close
                    && transition.connection.local.port() == row.local_port
                    && transition.connection.remote.port() == row.remote_port
                    && transition.at.0.abs_diff(row.at.0) < APART.as_nanos() as u64
            })
    };
    if rows.iter().any(is_seen) { Vec::new() } else { rows.into_iter().map(|row| row.text).collect() }
}

/// Leaves tracefs as it was.
pub(crate) fn end() {
    if let Some(Ok(witness)) = WITNESS.get() {
        let witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = unlinkat(&witness.instances, &witness.name, AtFlags::REMOVEDIR);
    }
}

impl Witness {
    fn new() -> io::Result<Self> {
        let instances = thread::scope(|scope| scope.spawn(instances).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))?;
        remove_leftovers(&instances)?;
        let name = CString::new(format!("{NAME}{}", std::process::id()))?;
        mkdirat(&instances, &name, Mode::RWXU)?;
        let instance = openat(&instances, &name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let witness = Self { instances, instance, name };
        witness.write("trace_clock", "boot")?;
        witness.write("buffer_size_kb", "128")?;
        witness.follow_tasks()?;
        witness.write("events/sock/inet_sock_set_state/enable", "1")?;
        Ok(witness)
    }

    fn follow_tasks(&self) -> io::Result<()> {
        let mut tasks = String::new();
        for task in fs::read_dir(TASKS)? {
            tasks.push_str(&task?.file_name().to_string_lossy());
            tasks.push(' ');
        }
        self.write("set_event_pid", &tasks)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let file = openat(&self.instance, file, OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).write_all(text.as_bytes())
    }

    fn rows(&self) -> io::Result<Vec<Row>> {
        let mut text = String::new();
        let file = openat(&self.instance, "trace", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).read_to_string(&mut text)?;
        Ok(text.lines().filter_map(row).collect())
    }
}

/// The directory of instances, of a tracefs that only the calling thread has mounted: never on one that lives on.
fn instances() -> io::Result<OwnedFd> {
    // SAFETY: only the mount namespace, root and working directory of a thread that ends here become its own.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tracefs", TRACEFS, "tracefs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    let path = format!("{TRACEFS}/instances");
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Instances of test processes that were killed.
fn remove_leftovers(instances: impl AsFd) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(&instances)? {
        let entry = entry?;
        let pid = entry.file_name().to_str().ok().and_then(|name| name.strip_prefix(NAME)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| fs::metadata(format!("/proc/{pid}")).is_err()) {
            unlinkat(&instances, entry.file_name(), AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

/// `comm-73 [001] ..s2.  6738.996046: inet_sock_set_state: family=AF_INET ... sport=8080 dport=40002 ... newstate=TCP_CLOSE`
fn row(line: &str) -> Option<Row> {
    let (place, event) = line.split_once(": inet_sock_set_state: ")?;
    let (seconds, micros) = place.rsplit_once(' ')?.1.split_once('.')?;
    let at = Duration::new(seconds.parse().ok()?, micros.parse::<u32>().ok()?.checked_mul(1_000)?);
    let field = |name: &str| event.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    Some(Row {
        at: Timestamp(u64::try_from(at.as_nanos()).ok()?),
        local_port: field("sport")?.parse().ok()?,
        remote_port: field("dport")?.parse().ok()?,
        is_end: field("newstate")? == "TCP_CLOSE",
        text: line.trim().to_owned(),
    })
}
