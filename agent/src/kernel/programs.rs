//! Carrying out the plan: load, attach, read the ring buffer, read the counters. Dropping [`Programs`] detaches.

use std::{
    cell::OnceCell,
    collections::HashMap,
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use agent_ebpf::{ABI_VERSION, Config, Counter, DURATION_BUCKETS, Detail, Filter, names};
use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FEntry, FExit, KProbe, ProgramError, RawTracePoint, TracePoint},
};
use aya_log::EbpfLogger;
use rustix::process::{Resource, Rlimit, setrlimit};
use zerocopy::IntoBytes as _;

use super::{
    StartError,
    host::HostFacts,
    plan::{self, Attachment, Observed, Plan, Program, Rung},
    processes::Procfs,
    tracefs,
};
use crate::{
    decode::{DecodeError, Decoder},
    model::{Event, ProcessKey},
    report::Lost,
};

/// What a session wants of the programs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much of a connection's life to send
    pub detail: Detail,
    /// What to send
    pub filter: Filter,
    /// Size of the ring buffer in bytes: a power of two, at least a page
    pub ring_bytes: u32,
    /// Sockets followed at the same time, at most
    pub max_sockets: u32,
    /// No rung above this one
    pub highest_rung: Rung,
}

impl Settings {
    /// Size of the ring buffer unless told otherwise: 65,000 records of ended connections.
    pub const DEFAULT_RING_BYTES: u32 = 4 << 20;
    /// Sockets followed at the same time unless told otherwise, about 14 MB of kernel memory, and 8 MB for their places.
    pub const DEFAULT_MAX_SOCKETS: u32 = 131_072;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            detail: Detail::Report,
            filter: Filter::default(),
            ring_bytes: Self::DEFAULT_RING_BYTES,
            max_sockets: Self::DEFAULT_MAX_SOCKETS,
            highest_rung: Rung::Fentry,
        }
    }
}

/// Places of the table of sockets, at most: 64 MB. More sockets than that at once find theirs in the hash table behind it.
const MAX_PLACES: u32 = 1 << 20;

/// Durations, counted on each CPU by [`duration_bucket`](agent_ebpf::duration_bucket).
type Histogram = PerCpuArray<MapData, u64>;

fn read(histogram: &Histogram) -> Result<Vec<u64>, MapError> {
    (0..DURATION_BUCKETS).map(|bucket| histogram.get(&bucket, 0).map(|values| values.iter().sum())).collect()
}

/// What the kernel could not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records lost, and calls skipped
    pub lost: Lost,
    /// Sockets not followed because the table was full
    pub sockets_not_followed: u64,
    /// Calls not followed because their table was full, or a program was skipped
    pub calls_not_followed: u64,
    /// Calls of programs that were skipped and cost a detail: who accepted, what the search for a port came back with,
    /// what a timewait socket is called
    pub details_missed: u64,
    /// Reads of kernel memory that failed
    pub read_faults: u64,
}

/// Loaded and attached programs.
pub struct Programs {
    plan: Plan,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
    searches: Histogram,
    handshakes: Histogram,
    are_handshakes_timed: bool,
    decoder: Decoder,
    bytes: u64,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Holds the programs, their links and the other maps
    ebpf: Ebpf,
    /// The descriptors of the links of kprobes, with the name of the program
    kprobes: Vec<(String, RawFd)>,
}

impl Programs {
    /// Gathers facts, makes a plan and carries it out.
    ///
    /// # Errors
    /// The host lacks something without which there is no session; nothing is left attached.
    pub fn attach(settings: &Settings) -> Result<Self, StartError> {
        let facts = HostFacts::gather();
        let plan = plan::plan(&facts, settings.highest_rung)?;
        Self::carry_out(plan, settings)
    }

    /// Carries out a plan. A step that fails and is not essential falls to the rung below, and the plan says why.
    ///
    /// # Errors
    /// An essential step failed; nothing is left attached.
    pub fn carry_out(plan: Plan, settings: &Settings) -> Result<Self, StartError> {
        // On a thread of its own: mounting tracefs out of the host's sight changes the thread that does it.
        std::thread::scope(|scope| {
            scope
                .spawn(|| load_and_attach(plan, settings))
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the loader panicked")))
        })
        .map_err(|error| refused(&error))
    }

    /// What was carried out.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Puts what the oldest record that waits tells behind other events; none if none waits. Never blocks.
    #[inline]
    pub fn next_event(&mut self, events: &mut Vec<Event>) -> Option<Result<(), DecodeError>> {
        let Some(record) = self.ring.next() else {
            if let Some(log) = &mut self.log {
                log.flush();
            }
            return None;
        };
        self.bytes += record.len() as u64;
        Some(self.decoder.decode_onto(&record, events))
    }

    /// Tells of processes that run: records may go on to name them for as long.
    pub fn keep(&self, running: impl IntoIterator<Item = ProcessKey>) {
        self.decoder.keep(running);
    }

    /// Bytes of the records handed over so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the kernel could not tell so far.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<Losses> {
        let sum = |counter: Counter| -> anyhow::Result<u64> {
            let values =
                self.counters.get(&(counter as u32), 0).with_context(|| format!("read counter {counter:?}"))?;
            Ok(values.iter().sum())
        };
        Ok(Losses {
            lost: Lost {
                transitions: sum(Counter::LostTransition)?,
                refused_calls: sum(Counter::LostSyscall)?,
                processes: sum(Counter::LostTask)?,
                timewait: sum(Counter::LostTimeWait)?,
                // Less those that another program took over.
                skipped_programs: self.skipped(is_first_hand).saturating_sub(sum(Counter::TakenOver)?),
            },
            sockets_not_followed: sum(Counter::SocketsFull)?,
            calls_not_followed: sum(Counter::CallsFull)? + self.skipped(|name| name.starts_with("sys_")),
            details_missed: self.skipped(is_detail),
            read_faults: sum(Counter::ReadFault)?,
        })
    }

    /// How often connect() looked for a port for how long, by [`duration_bucket`](agent_ebpf::duration_bucket), whatever
    /// the filter; none where it is not observed.
    ///
    /// # Errors
    /// The histogram cannot be read.
    pub fn port_searches(&self) -> anyhow::Result<Option<Vec<u64>>> {
        if !matches!(self.plan.rung(Observed::NoFreePort), Rung::Fentry | Rung::Kprobe) {
            return Ok(None);
        }
        read(&self.searches).map(Some).context("read how long connect() looked for ports")
    }

    /// How many connections took how long from connect() to the end of the handshake, by the same and whatever the
    /// filter; none unless they are timed, which is so for [`Detail::Ends`].
    ///
    /// # Errors
    /// The histogram cannot be read.
    pub fn handshakes(&self) -> anyhow::Result<Option<Vec<u64>>> {
        self.are_handshakes_timed.then(|| read(&self.handshakes)).transpose().context("read how long handshakes took")
    }

    /// Calls the kernel skipped because the same program, or another kprobe, was running on that CPU, of programs that
    /// `counts`.
    fn skipped(&self, counts: impl Fn(&str) -> bool) -> u64 {
        let programs = self.ebpf.programs().filter(|(name, _)| counts(name));
        let skipped = programs.filter_map(|(name, program)| {
            let mut skipped = fdinfo(program.fd().ok()?.as_fd().as_raw_fd(), "recursion_misses")?;
            for (_, link) in self.kprobes.iter().filter(|(probe, _)| probe == name) {
                skipped += fdinfo(*link, "missed").unwrap_or_default();
            }
            if skipped > 0 {
                log::debug!("{name} was skipped {skipped} times");
            }
            Some(skipped)
        });
        skipped.sum()
    }
}

/// Whether a skipped call of this program costs a detail and nothing else: the same is told by another one.
fn is_detail(name: &str) -> bool {
    ["inet_csk_accept", "hash_connect", "inet_csk_get_port", "inet_twsk_alloc", "inet_twsk_hashdance"]
        .iter()
        .any(|function| name.contains(function))
}

/// Whether a skipped call of this program costs a record, unless another program took it over.
///
/// A skipped `tcp_destroy_sock` costs nothing, and the second of the two programs for transitions has nothing to do where
/// the first runs.
fn is_first_hand(name: &str) -> bool {
    let others = [names::TCP_DESTROY_SOCK, names::INET_SOCK_SET_STATE_SKIPPED];
    !is_detail(name) && !name.starts_with("sys_") && !others.contains(&name)
}

/// A number that the kernel tells of a program or a link by its descriptor: `recursion_misses` of a program since Linux
/// 5.12 (before that nothing is skipped), `missed` of a kprobe's link since 6.17 (before that it is not told there).
fn fdinfo(descriptor: RawFd, member: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(member)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

/// The links of the kprobes that are attached, by their programs' names. aya holds them, and does not lend their descriptors.
fn kprobe_links(ebpf: &Ebpf) -> Vec<(String, RawFd)> {
    let kprobes = ebpf.programs().filter(|(_, program)| matches!(program, aya::programs::Program::KProbe(_)));
    let by_id: HashMap<u64, &str> = kprobes
        .filter_map(|(name, program)| Some((fdinfo(program.fd().ok()?.as_fd().as_raw_fd(), "prog_id")?, name)))
        .collect();
    if by_id.is_empty() {
        return Vec::new();
    }
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let links = descriptors.flatten().filter(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:bpf_link")
    });
    let numbers = links.filter_map(|link| link.file_name().to_str()?.parse().ok());
    numbers.filter_map(|link| Some(((*by_id.get(&fdinfo(link, "prog_id")?)?).to_owned(), link))).collect()
}

impl AsFd for Programs {
    /// Readable when enough records wait, or a process appeared.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Programs {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

fn load_and_attach(mut plan: Plan, settings: &Settings) -> anyhow::Result<Programs> {
    if plan.mount_tracefs
        && let Err(error) = tracefs::mount_for_this_thread()
    {
        plan = plan.without_tracefs(format!("it could not be mounted: {error}"));
    }
    raise_memlock();
    let places = settings.max_sockets.clamp(2, MAX_PLACES).next_power_of_two();
    let config = Config {
        filter: settings.filter,
        // A quarter full: three quarters are left for what comes while the agent wakes up.
        wakeup_bytes: settings.ring_bytes / 4,
        detail: settings.detail as u32,
        // Of a report, only the search for a port is timed.
        wants_births: u32::from(
            settings.detail != Detail::Report || plan.rung(Observed::NoFreePort) < Rung::Tracepoint,
        ),
        abi_version: ABI_VERSION,
        // As the kernel counts pids; the agent's own count differs in a pid namespace.
        agent_tgid: if Procfs::host().is_initial_pid_namespace() { std::process::id() } else { 0 },
        place_shift: u64::BITS - places.ilog2(),
        offsets: plan.offsets().context("where this kernel keeps things was not found out")?,
    };
    let mut ebpf = EbpfLoader::new()
        // There are no CO-RE relocations to resolve, and reading the kernel's types takes 40 ms and 10 MB.
        .btf(None)
        .override_global(names::CONFIG, config.as_bytes(), true)
        .map_max_entries(names::EVENTS, settings.ring_bytes)
        .map_max_entries(names::SOCKETS, settings.max_sockets)
        .map_max_entries(names::PLACES, places)
        .load(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/firstfin-programs")))
        .context("load the eBPF object")?;
    let log = EbpfLogger::init(&mut ebpf).inspect_err(|error| log::debug!("no log of the programs: {error}")).ok();
    let ring = RingBuf::try_from(ebpf.take_map(names::EVENTS).context("the object has no ring buffer")?)?;
    let counters = PerCpuArray::try_from(ebpf.take_map(names::COUNTERS).context("the object has no counters")?)?;
    let mut histogram = |name| Histogram::try_from(ebpf.take_map(name)?).ok();
    let searches = histogram(names::SEARCHES).context("the object does not count searches for a port")?;
    let handshakes = histogram(names::HANDSHAKES).context("the object does not count handshakes")?;
    let are_handshakes_timed = settings.detail == Detail::Ends;

    let types = KernelTypes::default();
    for number in 0..plan.steps.len() {
        while let Some(step) = plan.steps.get(number)
            && let Err((program, error)) = attach_all(&mut ebpf, &step.programs, &types)
        {
            let is_essential = step.observed.is_essential();
            let error = anyhow::Error::from(error).context(format!("attach {program}"));
            if plan.without_types(number) {
                log::debug!("{error:#}; once more without types");
            } else if is_essential {
                return Err(error);
            } else {
                plan.fall(number, format!("{error:#}"));
            }
        }
    }
    let kprobes = kprobe_links(&ebpf);
    Ok(Programs {
        plan,
        ring,
        counters,
        searches,
        handshakes,
        are_handshakes_timed,
        decoder: Decoder::default(),
        bytes: 0,
        log,
        ebpf,
        kprobes,
    })
}

/// Before 5.11 the kernel charges maps to RLIMIT_MEMLOCK, and the usual 64 kB are not enough. Since then it does not, so
/// not being allowed to raise it (CAP_SYS_RESOURCE) is no reason to stop: if it was needed, loading says so.
fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        log::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

/// The kernel's types as aya reads them, for programs that are told types: reading takes a while.
#[derive(Default)]
struct KernelTypes(OnceCell<aya::Btf>);

impl KernelTypes {
    fn get(&self) -> Result<&aya::Btf, ProgramError> {
        if let Some(types) = self.0.get() {
            return Ok(types);
        }
        let types = aya::Btf::from_sys_fs()?;
        Ok(self.0.get_or_init(|| types))
    }
}

/// Attaches all of them or none.
fn attach_all(ebpf: &mut Ebpf, programs: &[Program], types: &KernelTypes) -> Result<(), (&'static str, ProgramError)> {
    for program in programs {
        if let Err(error) = attach(ebpf, program, types) {
            for program in programs {
                // One that was never loaded has nothing to unload.
                let _ = ebpf.program_mut(program.name).map(unload);
            }
            return Err((program.name, error));
        }
    }
    Ok(())
}

fn unload(program: &mut aya::programs::Program) -> Result<(), ProgramError> {
    use aya::programs::Program;
    match program {
        Program::RawTracePoint(program) => program.unload(),
        Program::BtfTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        _ => Ok(()),
    }
}

/// A program that is there already is attached once more.
fn attach(ebpf: &mut Ebpf, program: &Program, types: &KernelTypes) -> Result<(), ProgramError> {
    let loaded = ebpf.program_mut(program.name).ok_or(ProgramError::NotLoaded)?;
    let is_loaded = loaded.fd().is_ok();
    match program.attachment {
        Attachment::RawTracepoint(hook) => {
            let loaded: &mut RawTracePoint = loaded.try_into()?;
            loaded.load()?;
            loaded.attach(hook)?;
        }
        Attachment::TypedTracepoint(hook) => {
            let loaded: &mut BtfTracePoint = loaded.try_into()?;
            loaded.load(hook, types.get()?)?;
            loaded.attach()?;
        }
        Attachment::Tracepoint(category, name) => {
            let loaded: &mut TracePoint = loaded.try_into()?;
            loaded.load()?;
            loaded.attach(category, name)?;
        }
        Attachment::Fentry(function) => {
            let loaded: &mut FEntry = loaded.try_into()?;
            loaded.load(function, types.get()?)?;
            loaded.attach()?;
        }
        Attachment::Fexit(function) => {
            let loaded: &mut FExit = loaded.try_into()?;
            loaded.load(function, types.get()?)?;
            loaded.attach()?;
        }
        Attachment::Kprobe(function) | Attachment::Kretprobe(function) => {
            let loaded: &mut KProbe = loaded.try_into()?;
            if !is_loaded {
                loaded.load()?;
            }
            loaded.attach(function, 0)?;
        }
    }
    Ok(())
}

fn refused(error: &anyhow::Error) -> StartError {
    StartError::new(
        format!("the programs could not be loaded and attached: {error:#}"),
        "the host passed every check beforehand, so this kernel differs from those firstfin knows",
        "run `firstfin doctor --format json` and report its output with this message",
    )
}
