//! `cargo xtask vm`: the kernel tests on other kernels than this machine's, each in an emulated machine of its own.
//!
//! Kernels and emulator are Debian packages, unpacked in `target/vm` and never installed. Each kernel boots once for each
//! rung, in a machine of its own, as many machines at a time as there are CPUs.

mod account;
mod console;
mod initramfs;
mod kernels;
mod machine;
mod modules;
mod programs;
mod progress;
mod reading;
mod rounds;
mod table;
mod tools;
mod verdict;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, builder::PossibleValuesParser};
use kernels::{Kernel, SERIES, Series};
use machine::Run;
use programs::Programs;
use rounds::{RUNGS, Round};
use tools::Tools;
use verdict::Verdict;

use crate::{setup, workspace};

const ALL: &str = "all";

/// What to run, and where.
#[derive(Args)]
pub(crate) struct Wishes {
    /// A kernel to run on; more than once for several. Without any, all.
    #[arg(long = "kernel", value_name = "SERIES", value_parser = PossibleValuesParser::new(kernel_names()))]
    kernels: Vec<String>,
    /// A way to watch; more than once for several. Without any, each in turn.
    #[arg(long = "rung", value_name = "RUNG", value_parser = PossibleValuesParser::new(RUNGS))]
    rungs: Vec<String>,
    /// Run only the tests whose name contains this.
    filter: Option<String>,
}

fn kernel_names() -> impl Iterator<Item = &'static str> {
    SERIES.iter().map(|series| series.name).chain([ALL])
}

impl Wishes {
    fn series(&self) -> Vec<&'static Series> {
        let is_wished = |name| self.kernels.is_empty() || self.kernels.iter().any(|wish| wish == name || wish == ALL);
        SERIES.iter().filter(|series| is_wished(series.name)).collect()
    }

    fn rungs(&self) -> Vec<&'static str> {
        RUNGS.into_iter().filter(|rung| self.rungs.is_empty() || self.rungs.iter().any(|wish| wish == rung)).collect()
    }

    /// Whether nothing is left out, so that the table can be written.
    fn is_complete(&self) -> bool {
        self.filter.is_none() && self.series().len() == SERIES.len() && self.rungs().len() == RUNGS.len()
    }
}

pub(crate) fn vm(wishes: &Wishes) -> Result<ExitCode> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        bail!("the kernels are x86-64 ones and run the binaries of this machine: it has to be Linux on x86-64");
    }
    let started = Instant::now();
    let ready = setup::setup()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    // Not the target folder of cargo's settings: that may be one for many checkouts.
    let folder = workspace::root()?.join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let _lock = workspace::lock(&folder.join("lock"), "another `cargo xtask vm`")?;

    let Some(programs) = programs::build()? else {
        eprintln!("error: the tests do not build, see above");
        return Ok(ExitCode::from(1));
    };
    let rounds = rounds::rounds(&programs.names, &wishes.rungs(), wishes.filter.as_deref());
    if rounds.is_empty() {
        bail!("no kernel test has {:?} in its name", wishes.filter.as_deref().unwrap_or_default());
    }
    let tools = Tools::bring(&folder)?;
    let kernels: Vec<_> =
        wishes.series().into_iter().map(|series| kernels::bring(series, &folder)).collect::<Result<_>>()?;

    let machines = Machines { folder: &folder, tools: &tools, programs: &programs, rounds: &rounds };
    let runs = machines.run_all(&kernels)?;
    let verdicts: Vec<_> =
        runs.iter().flat_map(|(job, run)| verdict::verdicts(job.kernel.series, job.rounds, run)).collect();
    println!("\n== verdicts");
    for (job, run) in &runs {
        let release = run.reading.release.as_deref().unwrap_or("it never came up");
        println!("{:<7} {release}, its output in {}", job.kernel.series, run.logs.display());
    }
    print!("\n{}", account::of(&verdicts));
    println!("{} s", started.elapsed().as_secs());
    if wishes.is_complete() {
        write_table(&runs, &verdicts)?;
    }
    Ok(ExitCode::from(u8::from(!verdicts.iter().all(Verdict::is_good))))
}

/// Only of what was run: a machine that broke down says nothing of its kernel.
fn write_table(runs: &[(Job<'_>, Run)], verdicts: &[Verdict]) -> Result<()> {
    // One machine of each kernel tells its release.
    let first = runs.iter().filter(|(job, _)| job.rounds.first().is_some_and(|round| round.rung == RUNGS[0]));
    let releases = first.map(|(job, run)| Some((job.kernel.series, run.reading.release.clone()?)));
    let columns =
        releases.collect::<Option<Vec<_>>>().filter(|_| verdicts.iter().all(|verdict| verdict.broken.is_none()));
    let document = workspace::root()?.join("docs/compatibility.md");
    match columns {
        Some(columns) => {
            table::write(&document, &columns, verdicts)?;
            println!("wrote {}", document.display());
        }
        None => println!("{} is left as it is: not everything was run", document.display()),
    }
    Ok(())
}

/// What one machine does.
#[derive(Clone, Copy)]
struct Job<'a> {
    kernel: &'a Kernel,
    /// All of one rung
    rounds: &'a [Round],
}

struct Machines<'a> {
    folder: &'a Path,
    tools: &'a Tools,
    programs: &'a Programs,
    rounds: &'a [Round],
}

impl<'a> Machines<'a> {
    /// One machine for each kernel and rung. The result is in their order.
    fn run_all(&self, kernels: &'a [Kernel]) -> Result<Vec<(Job<'a>, Run)>> {
        let busybox = self.tools.busybox();
        let busybox = fs::read(&busybox).with_context(|| format!("read {}", busybox.display()))?;
        let by_rung: Vec<_> = self.rounds.chunk_by(|one, next| one.rung == next.rung).collect();
        // What takes longest first, the highest rung and the newest kernel: so the last machines end at about the same time.
        let jobs: VecDeque<_> =
            by_rung.iter().flat_map(|rounds| kernels.iter().rev().map(|kernel| Job { kernel, rounds })).collect();
        let at_a_time = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
        let waiting = Mutex::new(jobs);
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let work = || {
            let mut done = Vec::new();
            while let Some(job) = next() {
                done.push((job, self.run(job, &busybox)?));
            }
            Ok::<_, anyhow::Error>(done)
        };
        let mut runs = thread::scope(|scope| {
            let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
            let mut runs = Vec::new();
            for worker in workers {
                let done = worker.join().map_err(|_| anyhow::anyhow!("a thread panicked while it ran a machine"))?;
                runs.extend(done?);
            }
            Ok::<_, anyhow::Error>(runs)
        })?;
        let place = |job: &Job<'_>| {
            let kernel = kernels.iter().position(|kernel| kernel.series == job.kernel.series);
            (kernel, by_rung.iter().position(|rounds| rounds.first() == job.rounds.first()))
        };
        runs.sort_by_key(|(job, _)| place(job));
        Ok(runs)
    }

    fn run(&self, Job { kernel, rounds }: Job<'_>, busybox: &[u8]) -> Result<Run> {
        let rung = rounds.first().map_or("", |round| round.rung);
        let logs = self.folder.join("runs").join(kernel.series).join(rung);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let modules = modules::needed(&kernel.modules, self.tools)?;
        // cargo starts tests in the folder of their package.
        let tests_in = workspace::root()?.join("agent");
        let archive = initramfs::build(self.programs, busybox.to_vec(), modules, rounds, &tests_in)?;
        let initramfs: PathBuf = logs.join("initramfs");
        fs::write(&initramfs, archive).with_context(|| format!("write {}", initramfs.display()))?;
        machine::run(self.tools, kernel, &initramfs, rounds, &logs)
    }
}
