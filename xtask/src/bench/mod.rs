//! `cargo xtask bench`: what watching costs, next to nothing, next to an empty program, and next to other tools.
//!
//! These are ratios of neighbours: each run with something attached is followed by one without, and the pair makes one
//! ratio, so that a machine whose speed drifts does not pass for a difference. Everything runs on the loopback interface of
//! a network namespace made for it. Besides these there are parts that measure one thing each: how long a start takes, what a
//! look at all sockets costs, memory, the size of the binary, the core, losses, and what becomes of an overload.

mod agent;
mod binary;
mod budget;
mod core;
mod dump;
mod floor;
pub(crate) mod load;
mod losses;
mod measure;
mod memory;
mod namespace;
mod overload;
mod peers;
mod plot;
mod process;
pub(crate) mod scan;
mod start;
mod statistics;
mod subject;
mod syscall;
mod table;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};

use self::{
    binary::Binary,
    core::Core,
    dump::Dump,
    losses::Losses,
    measure::{Measured, Pair},
    memory::Memory,
    overload::Overload,
    start::Start,
    statistics::NoStatistics,
    subject::Subject,
};
use crate::{privilege::Privilege, setup, workspace};

/// How often firstfin is started.
const STARTS: u32 = 10;

/// What is to be measured.
#[derive(clap::Args)]
pub(crate) struct Wishes {
    /// Pairs of runs for each tool; the median of them counts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Seconds of load in each run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Three pairs of one second, firstfin only, and the parts that take seconds: whether something has gone wrong, in less
    /// than two minutes.
    #[arg(long, conflicts_with_all = ["pairs", "seconds"])]
    quick: bool,
    /// Only what has this in its name; more than once for several.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// Measures and prints. A budget that is not met is said, and no failure: a busy machine is no reason to stop anybody.
pub(crate) fn bench(wishes: &Wishes) -> Result<ExitCode> {
    let ready = setup::setup()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    if Privilege::of_this_process() != Privilege::Root {
        bail!("eBPF programs are measured as root: run it as root");
    }
    let built = workspace::cargo()?
        .args(["build", "--release", "--package", "firstfin", "--locked"])
        .status()
        .context("run cargo build --release --package firstfin")?;
    if !built.success() {
        bail!("build firstfin: {built}");
    }
    let results = workspace::target()?.join("bench");
    fs::create_dir_all(&results).with_context(|| format!("create {}", results.display()))?;

    let (pairs, seconds) = if wishes.quick { (3, 1) } else { (wishes.pairs, wishes.seconds) };
    let mut subjects = Subject::ours(&results)?;
    if !wishes.quick {
        subjects.extend(Subject::with_exchange(&results)?);
    }
    let parts = Part::ALL.into_iter().filter(|part| !wishes.quick || part.is_quick());
    let peers = if wishes.quick { &[][..] } else { &peers::NAMES[..] };
    let mut names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    names.extend(peers.iter().map(|&name| name.to_owned()));
    names.extend(parts.clone().map(|part| part.name().to_owned()));
    let is_wanted = |name: &str| wishes.only.is_empty() || wishes.only.iter().any(|only| name.contains(only.as_str()));
    if !names.iter().any(|name| is_wanted(name)) {
        bail!("nothing is called that; there are {}", names.join(", "));
    }
    let parts: Vec<Part> = parts.filter(|part| is_wanted(part.name())).collect();
    // They are fetched, so only where one of them is wanted.
    if peers.iter().any(|name| is_wanted(name)) {
        subjects.extend(peers::bring(&results)?);
    }
    subjects.retain(|subject| is_wanted(&subject.name));

    let _no_statistics = NoStatistics::ensure()?;
    let machine = measure::machine();
    eprintln!("{machine}");
    let mut figures = Figures::default();
    for subject in &subjects {
        match measure(subject, pairs, Duration::from_secs(seconds)) {
            Ok(all) => figures.throughput.extend(all),
            // Another tool may not run here; what is ours has to.
            Err(error) if !subject.is_ours => eprintln!("{}: not measured: {error:#}", subject.name),
            Err(error) => return Err(error),
        }
    }
    for part in parts {
        eprintln!("{} ...", part.name());
        part.measure(wishes.quick, &results, &mut figures).with_context(|| format!("measure {}", part.name()))?;
    }
    let verdicts = budget::judge(&figures);
    println!("{machine}");
    if !figures.throughput.is_empty() {
        println!("medians of {pairs} pairs of {seconds} s\n\n{}", table::render(&figures.throughput));
    }
    println!("{}", budget::render(&verdicts));
    let write = |name: &str, text: String| {
        let file = results.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
        anyhow::Ok(())
    };
    write("bench.json", table::json(&machine, seconds, &figures, &verdicts)?)?;
    if !figures.throughput.is_empty() {
        write("bench.svg", plot::svg(&machine, &figures.throughput))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All that was measured.
#[derive(Default)]
struct Figures {
    throughput: Vec<Measured>,
    start: Option<Start>,
    dump: Option<Dump>,
    memory: Option<Memory>,
    binary: Option<Binary>,
    core: Option<Core>,
    losses: Option<Losses>,
    overload: Option<Overload>,
}

/// What is measured apart from throughput.
#[derive(Clone, Copy)]
enum Part {
    Start,
    Dump,
    Memory,
    Binary,
    Core,
    Losses,
    Overload,
}

impl Part {
    const ALL: [Self; 7] =
        [Self::Start, Self::Dump, Self::Memory, Self::Binary, Self::Core, Self::Losses, Self::Overload];

    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Dump => "dump",
            Self::Memory => "memory",
            Self::Binary => "binary",
            Self::Core => "core",
            Self::Losses => "losses",
            Self::Overload => "overload",
        }
    }

    /// Whether `--quick` has the time.
    const fn is_quick(self) -> bool {
        matches!(self, Self::Start | Self::Binary | Self::Core | Self::Losses)
    }

    fn measure(self, is_quick: bool, results: &Path, figures: &mut Figures) -> Result<()> {
        match self {
            Self::Start => figures.start = Some(Start::measure(STARTS, results)?),
            Self::Dump => figures.dump = Some(Dump::measure()?),
            Self::Memory => figures.memory = Some(Memory::measure(results)?),
            Self::Binary => figures.binary = Some(Binary::measure(results)?),
            Self::Core => figures.core = Some(Core::measure()?),
            Self::Losses => {
                let lasting = Duration::from_secs(if is_quick { 3 } else { 60 });
                figures.losses = Some(Losses::measure(lasting, results)?);
            }
            Self::Overload => figures.overload = Some(Overload::measure(results)?),
        }
        Ok(())
    }
}

fn measure(subject: &Subject, pairs: u32, duration: Duration) -> Result<Option<Measured>> {
    let mut all = Vec::new();
    for number in 1..=pairs {
        let pair = Pair::run(subject, duration)?;
        eprintln!("{:24} {number:>3} of {pairs}: {pair}", subject.name);
        all.push(pair);
    }
    let in_kernel = measure::in_kernel(subject, duration)?;
    Ok(Measured::of(subject, &all, in_kernel))
}
