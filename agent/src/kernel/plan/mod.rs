//! What to attach on this host, on which rung of each ladder, and why not higher. Pure: facts in, plan out.
//!
//! Each thing observed has a ladder of its own, highest rung first, written down once in [`LADDERS`]. A rung is taken
//! if the host meets its needs. The upper rungs are named here so that the plan says what a host would allow; the
//! programs for them are not part of this version, and the plan says that too.

use agent_ebpf::names;
use serde::{Deserialize, Serialize};

use super::{
    StartError,
    host::{Answer, BTF_PATH, HostFacts, TRACEFS_PATH, Tracefs},
};
use crate::report::Hook;

/// By what means something is observed, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// fentry and fexit programs
    Fentry,
    /// kprobes and kretprobes
    Kprobe,
    /// Tracepoint and raw tracepoint programs
    Tracepoint,
    /// sock_diag dumps, now and then
    SockDiag,
    /// Not at all
    None,
}

impl Rung {
    /// As it is written in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::SockDiag => "sock_diag",
            Self::None => "none",
        }
    }
}

/// A thing observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// Changes of state, and the processes behind them
    Transitions,
    /// The end of a socket
    SocketGone,
    /// RSTs sent and received
    Resets,
    /// Connections that enter TIME_WAIT
    TimeWaitEntered,
    /// Timewait sockets that leave, and why
    TimeWaitLeft,
    /// Timewait sockets that are there
    TimeWaitNow,
    /// Refused bind() and listen()
    RefusedCalls,
    /// connect() without a free port
    NoFreePort,
    /// The process that accepts
    AcceptedBy,
}

impl Observed {
    /// As it is written in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transitions => "state transitions and their processes",
            Self::SocketGone => "end of sockets",
            Self::Resets => "resets",
            Self::TimeWaitEntered => "entering TIME_WAIT",
            Self::TimeWaitLeft => "leaving TIME_WAIT",
            Self::TimeWaitNow => "TIME_WAIT now",
            Self::RefusedCalls => "refused bind() and listen()",
            Self::NoFreePort => "connect() without a free port",
            Self::AcceptedBy => "accepting process",
        }
    }

    /// Whether there is no session without it.
    #[must_use]
    pub const fn is_essential(self) -> bool {
        matches!(self, Self::Transitions | Self::SocketGone | Self::Resets)
    }
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Raw tracepoint, by name; needs no tracefs
    RawTracepoint(&'static str),
    /// Tracepoint of tracefs, by category and name
    Tracepoint(&'static str, &'static str),
}

/// A program and where it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the object
    pub name: &'static str,
    /// Its hook
    pub attachment: Attachment,
}

/// What a rung needs of the host.
#[derive(Clone, Copy, Debug)]
enum Need {
    RawTracepoints,
    SyscallTracepoints,
    /// fentry programs, and these functions
    Fentry(&'static [&'static str]),
    /// kprobes, and these functions
    Kprobe(&'static [&'static str]),
    InetDiag,
    Nothing,
}

struct RungOf {
    rung: Rung,
    need: Need,
    /// None: this version has no programs for the rung
    programs: Option<&'static [Program]>,
    /// What is lost compared with the rung above
    lost: &'static str,
}

struct Ladder {
    observed: Observed,
    rungs: &'static [RungOf],
}

const fn raw(name: &'static str) -> Program {
    Program { name, attachment: Attachment::RawTracepoint(name) }
}

const fn syscall(name: &'static str) -> Program {
    Program { name, attachment: Attachment::Tracepoint("syscalls", name) }
}

const TIME_WAIT_FUNCTIONS: &[&str] = &["inet_twsk_alloc", "tcp_timewait_state_process"];
const LEAVE_FUNCTIONS: &[&str] =
    &["inet_twsk_kill", "tcp_timewait_state_process", "tcp_twsk_unique", "inet_twsk_purge"];
const CONNECT_FUNCTIONS: &[&str] = &["inet_hash_connect", "inet6_hash_connect"];

const fn upper(rung: Rung, need: Need) -> RungOf {
    RungOf { rung, need, programs: None, lost: "" }
}

const LADDERS: &[Ladder] = &[
    Ladder {
        observed: Observed::Transitions,
        rungs: &[RungOf {
            rung: Rung::Tracepoint,
            need: Need::RawTracepoints,
            programs: Some(&[
                raw(names::INET_SOCK_SET_STATE),
                Program {
                    name: names::INET_SOCK_SET_STATE_SKIPPED,
                    attachment: Attachment::RawTracepoint(names::INET_SOCK_SET_STATE),
                },
            ]),
            lost: "",
        }],
    },
    Ladder {
        observed: Observed::SocketGone,
        rungs: &[RungOf {
            rung: Rung::Tracepoint,
            need: Need::RawTracepoints,
            programs: Some(&[raw(names::TCP_DESTROY_SOCK)]),
            lost: "",
        }],
    },
    Ladder {
        observed: Observed::Resets,
        rungs: &[RungOf {
            rung: Rung::Tracepoint,
            need: Need::RawTracepoints,
            programs: Some(&[raw(names::TCP_RECEIVE_RESET), raw(names::TCP_SEND_RESET)]),
            lost: "",
        }],
    },
    Ladder {
        observed: Observed::TimeWaitEntered,
        rungs: &[
            upper(Rung::Fentry, Need::Fentry(TIME_WAIT_FUNCTIONS)),
            upper(Rung::Kprobe, Need::Kprobe(TIME_WAIT_FUNCTIONS)),
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::RawTracepoints,
                // The transitions say it; there is nothing more to attach.
                programs: Some(&[]),
                lost: "a connection refused a timewait socket by tcp_max_tw_buckets counts as entered (the total of \
                       those is shown); when a FIN_WAIT2 minisocket becomes TIME_WAIT is not seen",
            },
        ],
    },
    Ladder {
        observed: Observed::TimeWaitLeft,
        rungs: &[
            upper(Rung::Fentry, Need::Fentry(LEAVE_FUNCTIONS)),
            upper(Rung::Kprobe, Need::Kprobe(LEAVE_FUNCTIONS)),
            RungOf {
                rung: Rung::SockDiag,
                need: Need::InetDiag,
                programs: Some(&[]),
                lost: "that a timewait socket is gone is seen at the next dump, why it went is not",
            },
        ],
    },
    Ladder {
        observed: Observed::TimeWaitNow,
        rungs: &[RungOf { rung: Rung::SockDiag, need: Need::InetDiag, programs: Some(&[]), lost: "" }],
    },
    Ladder {
        observed: Observed::RefusedCalls,
        rungs: &[
            upper(Rung::Fentry, Need::Fentry(&["inet_csk_get_port"])),
            upper(Rung::Kprobe, Need::Kprobe(&["inet_csk_get_port"])),
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::SyscallTracepoints,
                programs: Some(&[
                    syscall(names::SYS_ENTER_BIND),
                    syscall(names::SYS_EXIT_BIND),
                    syscall(names::SYS_ENTER_LISTEN),
                    syscall(names::SYS_EXIT_LISTEN),
                ]),
                lost: "calls made through io_uring or by 32-bit programs are not seen",
            },
            RungOf {
                rung: Rung::None,
                need: Need::Nothing,
                programs: Some(&[]),
                lost: "refused bind() and listen() are not seen at all",
            },
        ],
    },
    Ladder {
        observed: Observed::NoFreePort,
        rungs: &[
            upper(Rung::Fentry, Need::Fentry(CONNECT_FUNCTIONS)),
            upper(Rung::Kprobe, Need::Kprobe(CONNECT_FUNCTIONS)),
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::RawTracepoints,
                programs: Some(&[]),
                lost: "a connect() that found no memory for a port looks the same as one that found no port",
            },
        ],
    },
    Ladder {
        observed: Observed::AcceptedBy,
        rungs: &[
            upper(Rung::Fentry, Need::Fentry(&["inet_csk_accept"])),
            upper(Rung::Kprobe, Need::Kprobe(&["inet_csk_accept"])),
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::RawTracepoints,
                programs: Some(&[]),
                lost: "an accepted connection is known by the process that closes it, before that by its listener's",
            },
        ],
    },
];

/// What is done about one thing observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The thing
    pub observed: Observed,
    /// The rung taken
    pub rung: Rung,
    /// The programs of that rung
    pub programs: &'static [Program],
    /// Why no higher rung was taken, by rung; empty on the highest
    pub not_higher: Vec<(Rung, String)>,
    /// What is lost compared with the highest; empty if nothing is
    pub lost: &'static str,
}

/// The reason of a step that is on the highest rung of its ladder.
pub const HIGHEST_RUNG: &str = "highest rung";

impl Step {
    /// The step as a report has it.
    #[must_use]
    pub fn hook(&self) -> Hook {
        let mut reasons: Vec<String> =
            self.not_higher.iter().map(|(rung, why)| format!("no {}: {why}", rung.name())).collect();
        if !self.lost.is_empty() {
            reasons.push(self.lost.to_owned());
        }
        let reason = if reasons.is_empty() { HIGHEST_RUNG.to_owned() } else { reasons.join("; ") };
        Hook { observes: self.observed.name().to_owned(), rung: self.rung.name().to_owned(), reason }
    }
}

/// What is done on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One step for each thing observed
    pub steps: Vec<Step>,
    /// tracefs is mounted for the loader, out of the host's sight
    pub mount_tracefs: bool,
}

impl Plan {
    /// The steps as a report has them.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        self.steps.iter().map(Step::hook).collect()
    }
}

/// Makes the plan.
///
/// # Errors
/// A thing without which there is no session at all is missing.
pub fn plan(facts: &HostFacts) -> Result<Plan, StartError> {
    if let Some(obstacle) = obstacles(facts).into_iter().next() {
        return Err(obstacle);
    }
    let steps: Vec<Step> = LADDERS.iter().map(|ladder| climb(ladder, facts)).collect();
    let needs_tracefs = steps
        .iter()
        .flat_map(|step| step.programs)
        .any(|program| matches!(program.attachment, Attachment::Tracepoint(..)));
    Ok(Plan { mount_tracefs: needs_tracefs && facts.tracefs == Tracefs::Mountable, steps })
}

/// The steps a host would get whatever is in the way of a session: for `doctor`.
#[must_use]
pub fn outlook(facts: &HostFacts) -> Vec<Step> {
    LADDERS.iter().map(|ladder| climb(ladder, facts)).collect()
}

fn climb(ladder: &Ladder, facts: &HostFacts) -> Step {
    let mut not_higher = Vec::new();
    for rung in ladder.rungs {
        match (unmet(rung.need, facts), rung.programs) {
            (None, Some(programs)) => {
                return Step { observed: ladder.observed, rung: rung.rung, programs, not_higher, lost: rung.lost };
            }
            (None, None) => {
                not_higher
                    .push((rung.rung, "the host allows it, this version of firstfin has no program for it".to_owned()));
            }
            (Some(why), _) => not_higher.push((rung.rung, why)),
        }
    }
    Step { observed: ladder.observed, rung: Rung::None, programs: &[], not_higher, lost: "it is not seen at all" }
}

/// Why the host does not meet a need, if it does not.
fn unmet(need: Need, facts: &HostFacts) -> Option<String> {
    let answer = |answer: &Answer| (!answer.is_yes()).then(|| answer.reason().to_owned());
    match need {
        Need::Nothing => None,
        Need::RawTracepoints => answer(&facts.raw_tracepoint),
        Need::InetDiag => answer(&facts.inet_diag),
        Need::SyscallTracepoints => match &facts.tracefs {
            Tracefs::Unavailable(why) => {
                Some(format!("tracefs is out of reach: {why}; to mount it: mount -t tracefs tracefs {TRACEFS_PATH}"))
            }
            Tracefs::Mounted | Tracefs::Mountable => answer(&facts.tracepoint),
        },
        Need::Fentry(functions) => answer(&facts.fentry).or_else(|| missing(functions, facts)),
        Need::Kprobe(functions) => answer(&facts.kprobe).or_else(|| missing(functions, facts)),
    }
}

fn missing(functions: &[&str], facts: &HostFacts) -> Option<String> {
    let missing = functions.iter().find(|function| facts.argument_count(function).is_none())?;
    Some(format!("this kernel has no function {missing}, or inlined it"))
}

/// Everything that stands in the way of a session, worst first.
#[must_use]
pub fn obstacles(facts: &HostFacts) -> Vec<StartError> {
    let mut obstacles = Vec::new();
    if !facts.capabilities.can_load() {
        obstacles.push(StartError::new(
            "firstfin has not the capabilities CAP_BPF and CAP_PERFMON",
            "the kernel does not let this process load eBPF programs",
            "run it as root (sudo firstfin ...), or grant CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and \
             CAP_DAC_READ_SEARCH, and CAP_SYS_ADMIN to look into other network namespaces",
        ));
    }
    if let Answer::No(why) | Answer::Unknown(why) = &facts.btf {
        obstacles.push(StartError::new(
            format!("the kernel's type information cannot be used: {why}"),
            format!("without {BTF_PATH} it is not known where this kernel keeps a socket's namespace and its owner"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11, Ubuntu 20.10, RHEL 8.2 and later have it)",
        ));
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        obstacles.push(StartError::new(
            "the kernel is locked down in confidentiality mode",
            "eBPF programs may not read kernel memory, so no socket can be put behind a process",
            "boot with lockdown=integrity or without lockdown, if this host's policy allows it",
        ));
    }
    if let Answer::No(why) = &facts.raw_tracepoint {
        obstacles.push(StartError::new(
            format!("eBPF programs cannot be loaded: {why}"),
            "the capabilities are there, so something else refuses bpf(2): a seccomp profile (containers have one), \
             a security module, or a kernel without CONFIG_BPF_EVENTS",
            "in a container, run with a seccomp profile that allows bpf and perf_event_open (Docker: --security-opt \
             seccomp=unconfined, or --privileged); on the host, look at `dmesg` and `sysctl kernel.unprivileged_bpf_disabled`",
        ));
    }
    if let Answer::No(why) = &facts.inet_diag {
        obstacles.push(StartError::new(
            format!("the kernel does not list its sockets: {why}"),
            "what is in TIME_WAIT now comes from sock_diag, which is a module on many kernels",
            "load it: modprobe tcp_diag (as root, on the host; a container cannot)",
        ));
    }
    obstacles
}

/// What a session has to do without, in words; empty on a host where nothing is missing.
#[must_use]
pub fn blind_spots(facts: &HostFacts) -> Vec<String> {
    let mut spots = Vec::new();
    if !facts.capabilities.sys_admin {
        spots.push("sockets of other network namespaces are not listed: entering them needs CAP_SYS_ADMIN".to_owned());
    }
    if !facts.capabilities.sys_ptrace || !facts.capabilities.dac_read_search {
        spots.push(
            "owners of sockets older than the session stay unknown for other users' processes: that needs \
             CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
                .to_owned(),
        );
    }
    if !facts.initial_pid_namespace {
        spots.push(
            "firstfin runs in a pid namespace of its own: pids are the host's, and paths, units and containers of \
             processes cannot be looked up (Docker: --pid=host)"
                .to_owned(),
        );
    }
    spots
}

#[cfg(test)]
mod tests;
