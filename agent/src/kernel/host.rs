//! Facts about the host, and nothing but facts: what they mean for the session is decided in `plan`.
//!
//! A fact that could not be found out is `None` with its reason, which is not the same as no.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use agent_ebpf::Offsets;
use aya::{programs::ProgramType, sys::is_program_supported};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::btf::Btf;

/// Where the kernel's types are.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// Where tracefs belongs.
pub const TRACEFS_PATH: &str = "/sys/kernel/tracing";

/// A yes-or-no question to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is so
    Yes,
    /// It is not so, and why
    No(String),
    /// It could not be found out, and why
    Unknown(String),
}

impl Answer {
    /// Whether it is known to be so.
    #[must_use]
    pub const fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }

    /// Why it is not so, or not known to be.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Yes => "",
            Self::No(reason) | Self::Unknown(reason) => reason,
        }
    }
}

/// The state of tracefs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracefs {
    /// Mounted where it belongs
    Mounted,
    /// Not mounted, but the agent can mount it for itself, in a mount namespace of its own
    Mountable,
    /// Out of reach, and why
    Unavailable(String),
}

/// What the plan is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// `uname -r`
    pub kernel: String,
    /// `uname -m`
    pub machine: String,
    /// The capabilities this process has and the programs need
    pub capabilities: Capabilities,
    /// The kernel's BTF is there and has every member the programs read
    pub btf: Answer,
    /// Where this kernel keeps what the programs read; none if not all of it is there
    #[serde(skip)]
    pub offsets: Option<Offsets>,
    /// Functions of the upper rungs, and the number of their arguments; empty without BTF
    pub functions: Vec<(String, usize)>,
    /// `none`, `integrity`, `confidentiality`; none if securityfs does not tell
    pub lockdown: Option<String>,
    /// tracefs: syscall tracepoints need it, raw tracepoints do not
    pub tracefs: Tracefs,
    /// sock_diag answers for TCP
    pub inet_diag: Answer,
    /// Raw tracepoint programs can be loaded
    pub raw_tracepoint: Answer,
    /// Tracepoint programs can be loaded
    pub tracepoint: Answer,
    /// fentry and fexit programs can be loaded
    pub fentry: Answer,
    /// kprobes exist
    pub kprobe: Answer,
    /// This process sees pids as the kernel counts them
    pub initial_pid_namespace: bool,
}

/// Capabilities that matter, effective ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "one fact each, named by the kernel")]
pub struct Capabilities {
    /// CAP_BPF: load programs
    pub bpf: bool,
    /// CAP_PERFMON: load tracing programs
    pub perfmon: bool,
    /// CAP_SYS_ADMIN: stands in for both on kernels before 5.8; enter namespaces, mount tracefs
    pub sys_admin: bool,
    /// CAP_SYS_PTRACE: see other users' processes
    pub sys_ptrace: bool,
    /// CAP_DAC_READ_SEARCH (or CAP_DAC_OVERRIDE): read tracefs and other users' descriptors
    pub dac_read_search: bool,
    /// CAP_NET_ADMIN: ask a bound socket for its namespace, before Linux 6.8; nothing else needs it
    pub net_admin: bool,
}

impl Capabilities {
    /// Whether programs can be loaded at all.
    #[must_use]
    pub const fn can_load(&self) -> bool {
        self.sys_admin || self.bpf && self.perfmon
    }
}

/// Kernel release, as `uname -r` has it.
#[must_use]
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

impl HostFacts {
    /// Asks the host. Changes nothing.
    #[must_use]
    pub fn gather() -> Self {
        let capabilities = capabilities();
        let Types { btf, offsets, functions } = Types::of_this_kernel();
        let loadable = |kind| loadable(kind, capabilities);
        Self {
            kernel: release(),
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            capabilities,
            btf: btf.clone(),
            offsets: *offsets,
            functions: functions.clone(),
            lockdown: lockdown(),
            tracefs: tracefs(capabilities),
            inet_diag: inet_diag(),
            raw_tracepoint: loadable(ProgramType::RawTracePoint),
            tracepoint: loadable(ProgramType::TracePoint),
            fentry: loadable(ProgramType::Tracing),
            kprobe: kprobe(capabilities),
            initial_pid_namespace: super::processes::Procfs::host().is_initial_pid_namespace(),
        }
    }

    /// Number of arguments of a function, if the kernel has it as a function.
    #[must_use]
    pub fn argument_count(&self, function: &str) -> Option<usize> {
        self.functions.iter().find(|(name, _)| name == function).map(|(_, count)| *count)
    }
}

/// Whether a release (`uname -r`) is of this version, major and minor, or a later one. One without numbers is not.
#[must_use]
pub fn is_at_least(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|digit: char| !digit.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    numbers.next().flatten().zip(numbers.next().flatten()).is_some_and(|release| release >= version)
}

fn capabilities() -> Capabilities {
    let effective = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let has = |capability| effective.contains(capability);
    Capabilities {
        bpf: has(CapabilitySet::BPF),
        perfmon: has(CapabilitySet::PERFMON),
        sys_admin: has(CapabilitySet::SYS_ADMIN),
        sys_ptrace: has(CapabilitySet::SYS_PTRACE),
        dac_read_search: has(CapabilitySet::DAC_READ_SEARCH) || has(CapabilitySet::DAC_OVERRIDE),
        net_admin: has(CapabilitySet::NET_ADMIN),
    }
}

/// What is read from BTF, all at once and once a process: reading takes a while, and the kernel stays the same.
struct Types {
    btf: Answer,
    offsets: Option<Offsets>,
    functions: Vec<(String, usize)>,
}

impl Types {
    fn of_this_kernel() -> &'static Self {
        static TYPES: OnceLock<Types> = OnceLock::new();
        TYPES.get_or_init(Self::gather)
    }

    fn gather() -> Self {
        let nothing = |btf| Self { btf, offsets: None, functions: Vec::new() };
        let path = Path::new(BTF_PATH);
        if !path.exists() {
            let why = format!("{BTF_PATH} is missing: the kernel was built without CONFIG_DEBUG_INFO_BTF");
            return nothing(Answer::No(why));
        }
        let btf = match Btf::read(path) {
            Ok(btf) => btf,
            Err(error) => return nothing(Answer::Unknown(format!("{:#}", anyhow::Error::from(error)))),
        };
        let mut functions: Vec<_> = super::plan::functions()
            .filter_map(|name| btf.argument_count(name).map(|count| (name.to_owned(), count)))
            .collect();
        functions.sort_unstable();
        functions.dedup();
        match super::offsets::resolve(&btf) {
            Ok(offsets) => Self { btf: Answer::Yes, offsets: Some(offsets), functions },
            Err(error) => Self { btf: Answer::No(error.to_string()), offsets: None, functions },
        }
    }
}

fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    // "none [integrity] confidentiality"
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

/// Whether `path` is the root of a tracefs.
pub(super) fn is_tracefs(path: &Path) -> bool {
    // TRACEFS_MAGIC, include/uapi/linux/magic.h
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == 0x7472_6163)
}

fn tracefs(capabilities: Capabilities) -> Tracefs {
    let mounted =
        [TRACEFS_PATH, "/sys/kernel/debug/tracing"].map(PathBuf::from).into_iter().find(|path| is_tracefs(path));
    if let Some(path) = mounted {
        let sample = path.join("events/syscalls/sys_enter_bind/id");
        return match fs::read(&sample) {
            Ok(_) => Tracefs::Mounted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Tracefs::Unavailable("the kernel has no syscall tracepoints (CONFIG_FTRACE_SYSCALLS)".to_owned())
            }
            Err(error) => Tracefs::Unavailable(format!("{}: {error}", sample.display())),
        };
    }
    let known =
        fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.lines().any(|line| line.ends_with("\ttracefs")));
    if !known {
        Tracefs::Unavailable("the kernel has no tracefs".to_owned())
    } else if !Path::new(TRACEFS_PATH).is_dir() {
        Tracefs::Unavailable(format!("{TRACEFS_PATH} does not exist, so it cannot be mounted there"))
    } else if !capabilities.sys_admin {
        Tracefs::Unavailable("it is not mounted, and mounting it needs CAP_SYS_ADMIN".to_owned())
    } else {
        Tracefs::Mountable
    }
}

fn inet_diag() -> Answer {
    use super::{netns, sock_diag};
    // A port nobody can have open costs one walk of an (almost) empty answer.
    let netns = netns::current().unwrap_or_default();
    match sock_diag::dump(netns, &sock_diag::DumpFilter::port(u16::MAX)) {
        Ok(_) => Answer::Yes,
        Err(error) => Answer::No(format!("{:#}", anyhow::Error::from(error))),
    }
}

fn loadable(kind: ProgramType, capabilities: Capabilities) -> Answer {
    if !capabilities.can_load() {
        return Answer::Unknown("asking needs CAP_BPF and CAP_PERFMON".to_owned());
    }
    // What a kernel knows it does not forget; what refuses it may change.
    static KNOWN: Mutex<Vec<ProgramType>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(&kind) {
        return Answer::Yes;
    }
    match is_program_supported(kind) {
        Ok(true) => {
            known.push(kind);
            Answer::Yes
        }
        Ok(false) => Answer::No("the kernel does not know this type of program".to_owned()),
        Err(error) => Answer::No(format!("the kernel refuses it: {:#}", anyhow::Error::from(error))),
    }
}

fn kprobe(capabilities: Capabilities) -> Answer {
    if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        return Answer::No("the kernel was built without kprobes (CONFIG_KPROBE_EVENTS)".to_owned());
    }
    loadable(ProgramType::KProbe, capabilities)
}
