//! What to attach on this host, on which rung of each ladder, and why not higher. Pure: facts in, plan out.
//!
//! Each thing observed has a ladder of its own, highest rung first, written down once in [`LADDERS`]. A rung is taken
//! if the host meets its needs, has the functions, and has them with as many arguments as a program was written for.
//! One that cannot be loaded or attached all the same is left for the one below ([`Plan::fall`]).

mod ladders;

use agent_ebpf::Offsets;
use serde::{Deserialize, Serialize};

pub(super) use self::ladders::functions;
use self::ladders::{Fit, LADDERS, Ladder, Need, Pick};
use super::{
    StartError,
    host::{Answer, BTF_PATH, HostFacts, TRACEFS_PATH, Tracefs, is_at_least},
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
    /// bind() and listen() that lose a conflict
    PortConflicts,
    /// Refused bind() and listen(), whatever the reason
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
            Self::PortConflicts => "bind() and listen() conflicts",
            Self::RefusedCalls => "other refused bind() and listen()",
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
    /// The same, with its arguments as BTF has them
    TypedTracepoint(&'static str),
    /// Tracepoint of tracefs, by category and name
    Tracepoint(&'static str, &'static str),
    /// Entry of a kernel function, with its arguments as BTF has them
    Fentry(&'static str),
    /// Its return
    Fexit(&'static str),
    /// Entry of a kernel function, with the registers of the machine
    Kprobe(&'static str),
    /// Its return
    Kretprobe(&'static str),
}

impl Attachment {
    /// The kernel function, if it is one.
    const fn function(self) -> Option<&'static str> {
        match self {
            Self::RawTracepoint(_) | Self::TypedTracepoint(_) | Self::Tracepoint(..) => None,
            Self::Fentry(function) | Self::Fexit(function) | Self::Kprobe(function) | Self::Kretprobe(function) => {
                Some(function)
            }
        }
    }
}

/// A program and where it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the object
    pub name: &'static str,
    /// Its hook
    pub attachment: Attachment,
}

/// What is done about one thing observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The thing
    pub observed: Observed,
    /// The rung taken
    pub rung: Rung,
    /// The programs of that rung
    pub programs: Vec<Program>,
    /// Why no higher rung was taken, by rung; empty on the highest
    pub not_higher: Vec<(Rung, String)>,
    /// What is lost compared with the highest; empty if nothing is
    pub lost: &'static str,
    /// Rungs that were tried and could not be carried out
    refused: Vec<(Rung, String)>,
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
    facts: HostFacts,
    highest: Rung,
}

impl Plan {
    fn of(facts: HostFacts, highest: Rung) -> Self {
        let steps = outlook(&facts, highest);
        let mut programs = steps.iter().flat_map(|step| &step.programs);
        let needs_tracefs = programs.any(|program| matches!(program.attachment, Attachment::Tracepoint(..)));
        let mount_tracefs = needs_tracefs && facts.tracefs == Tracefs::Mountable;
        Self { steps, mount_tracefs, facts, highest }
    }

    /// The plan where tracefs turned out not to be mountable.
    #[must_use]
    pub fn without_tracefs(self, why: String) -> Self {
        Self::of(HostFacts { tracefs: Tracefs::Unavailable(why), ..self.facts }, self.highest)
    }

    /// Where the kernel keeps what the programs read.
    #[must_use]
    pub const fn offsets(&self) -> Option<Offsets> {
        self.facts.offsets
    }

    /// What a session has to do without, in words.
    #[must_use]
    pub fn blind_spots(&self) -> Vec<String> {
        blind_spots(&self.facts)
    }

    /// The rung on which something is observed.
    #[must_use]
    pub fn rung(&self, observed: Observed) -> Rung {
        self.steps.iter().find(|step| step.observed == observed).map_or(Rung::None, |step| step.rung)
    }

    /// The steps as a report has them.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        self.steps.iter().map(Step::hook).collect()
    }

    /// Puts the programs of a step that are not told types in the place of those that are. False if there are none.
    pub fn without_types(&mut self, step: usize) -> bool {
        let programs = self.steps.get_mut(step).into_iter().flat_map(|step| &mut step.programs);
        let mut any = false;
        for program in programs {
            if let Attachment::TypedTracepoint(hook) = program.attachment {
                *program = Program { name: hook, attachment: Attachment::RawTracepoint(hook) };
                any = true;
            }
        }
        any
    }

    /// Leaves the rung of a step, which could not be carried out, for the next one below.
    pub fn fall(&mut self, step: usize, why: String) {
        let (Some(fallen), Some(ladder)) = (self.steps.get_mut(step), LADDERS.get(step)) else { return };
        let mut refused = std::mem::take(&mut fallen.refused);
        refused.push((fallen.rung, why.clone()));
        *fallen = climb(ladder, &self.facts, self.highest, refused);
        // On the tracepoint rung the system calls tell of conflicts, too.
        if ladder.observed == Observed::RefusedCalls {
            let leans = |step: &Step| step.observed == Observed::PortConflicts && step.rung == Rung::Tracepoint;
            if let Some(leaning) = self.steps.iter().position(leans) {
                self.fall(leaning, why);
            }
        }
    }
}

/// Makes the plan, with no rung above `highest`.
///
/// # Errors
/// A thing without which there is no session at all is missing.
pub fn plan(facts: &HostFacts, highest: Rung) -> Result<Plan, StartError> {
    if let Some(obstacle) = obstacles(facts).into_iter().next() {
        return Err(obstacle);
    }
    Ok(Plan::of(facts.clone(), highest))
}

/// The steps a host would get whatever is in the way of a session: for `doctor`.
#[must_use]
pub fn outlook(facts: &HostFacts, highest: Rung) -> Vec<Step> {
    LADDERS.iter().map(|ladder| climb(ladder, facts, highest, Vec::new())).collect()
}

/// Takes the highest rung that is allowed, wanted, and not among the refused ones.
fn climb(ladder: &Ladder, facts: &HostFacts, highest: Rung, refused: Vec<(Rung, String)>) -> Step {
    let mut not_higher = Vec::new();
    for rung in ladder.rungs {
        let refusal = refused.iter().find(|(refused, _)| *refused == rung.rung).map(|(_, why)| why.clone());
        let unmet = if rung.rung < highest {
            Some(format!("not wanted (--max-rung {})", highest.name()))
        } else {
            refusal.or_else(|| unmet(rung.need, facts))
        };
        match unmet.map_or_else(|| choose(rung.programs, facts), Err) {
            Ok(programs) => {
                let (observed, lost) = (ladder.observed, rung.lost);
                return Step { observed, rung: rung.rung, programs, not_higher, lost, refused };
            }
            Err(why) => not_higher.push((rung.rung, why)),
        }
    }
    let lost = "it is not seen at all";
    Step { observed: ladder.observed, rung: Rung::None, programs: Vec::new(), not_higher, lost, refused }
}

/// The program of each pick that fits this kernel's functions.
fn choose(picks: &[Pick], facts: &HostFacts) -> Result<Vec<Program>, String> {
    let is_needed = |pick: &&Pick| {
        has_preemptible_tracepoints(facts) || pick.iter().any(|(_, fit)| !matches!(fit, Fit::OnlyPreemptible))
    };
    picks.iter().filter(is_needed).map(|pick| choose_one(pick, facts)).collect()
}

fn choose_one(pick: &Pick, facts: &HostFacts) -> Result<Program, String> {
    let arguments = |program: &Program| facts.argument_count(program.attachment.function()?);
    let fits = |program: &Program, fit: Fit| match fit {
        Fit::Any | Fit::OnlyPreemptible => true,
        Fit::Arguments(count) => arguments(program) == Some(count),
        Fit::PreemptibleTracepoints => has_preemptible_tracepoints(facts) && unmet(Need::Tracepoints, facts).is_none(),
        Fit::TypedTasks => is_at_least(&facts.kernel, (5, 11)) && !has_preemptible_tracepoints(facts),
    };
    if let Some((program, _)) = pick.iter().find(|(program, fit)| fits(program, *fit)) {
        return Ok(*program);
    }
    let known = pick.iter().find_map(|(program, _)| Some((program.attachment.function()?, arguments(program)?)));
    Err(known.map_or_else(
        || {
            let function = pick.iter().find_map(|(program, _)| program.attachment.function()).unwrap_or_default();
            format!("this kernel has no function {function}, or inlined it")
        },
        |(function, count)| {
            let wanted = pick.iter().filter_map(|(_, fit)| match fit {
                Fit::Arguments(wanted) => Some(wanted.to_string()),
                Fit::Any | Fit::OnlyPreemptible | Fit::PreemptibleTracepoints | Fit::TypedTasks => None,
            });
            let wanted: Vec<String> = wanted.collect();
            format!("this kernel's {function} has {count} arguments; firstfin knows it with {}", wanted.join(" or "))
        },
    ))
}

/// Since 7.0 a program on a raw tracepoint may lose the CPU (include/linux/tracepoint.h).
fn has_preemptible_tracepoints(facts: &HostFacts) -> bool {
    is_at_least(&facts.kernel, (7, 0))
}

/// Why the host does not meet a need, if it does not.
fn unmet(need: Need, facts: &HostFacts) -> Option<String> {
    let answer = |answer: &Answer| (!answer.is_yes()).then(|| answer.reason().to_owned());
    match need {
        Need::Nothing => None,
        Need::RawTracepoints => answer(&facts.raw_tracepoint),
        Need::InetDiag => answer(&facts.inet_diag),
        Need::Tracepoints => match &facts.tracefs {
            Tracefs::Unavailable(why) => {
                Some(format!("tracefs is out of reach: {why}; to mount it: mount -t tracefs tracefs {TRACEFS_PATH}"))
            }
            Tracefs::Mounted | Tracefs::Mountable => answer(&facts.tracepoint),
        },
        Need::Fentry => answer(&facts.fentry),
        Need::Kprobe => answer(&facts.kprobe),
    }
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
    if has_preemptible_tracepoints(facts)
        && let Some(why) = unmet(Need::Tracepoints, facts)
    {
        spots.push(format!("transitions are skipped where a task loses the CPU to another (they are counted): {why}"));
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
