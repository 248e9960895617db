//! `cargo xtask bench`: what watching costs, next to nothing, next to an empty program, and next to other tools.
//!
//! These are ratios of neighbours: each run with something attached is followed by one without, and the pair makes one
//! ratio, so that a machine whose speed drifts does not pass for a difference. Everything runs on the loopback interface of
//! a network namespace made for it.

mod budget;
mod floor;
pub(crate) mod load;
mod measure;
mod peers;
mod plot;
mod subject;
mod table;

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};

use self::{
    measure::{Measured, Pair},
    subject::Subject,
};
use crate::{privilege::Privilege, setup, workspace};

/// Where the figures go.
const RESULTS: &str = "target/bench";

/// What is to be measured.
#[derive(clap::Args)]
pub(crate) struct Wishes {
    /// Pairs of runs for each tool; the median of them counts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Seconds of load in each run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Three pairs of one second, firstfin only: whether something has gone wrong, in less than two minutes.
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
    let results = workspace::root()?.join(RESULTS);
    fs::create_dir_all(&results).with_context(|| format!("create {}", results.display()))?;

    let (pairs, seconds) = if wishes.quick { (3, 1) } else { (wishes.pairs, wishes.seconds) };
    let mut subjects = Subject::ours(&results)?;
    if !wishes.quick {
        subjects.extend(peers::bring(&results)?);
    }
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    subjects.retain(|subject| wishes.only.is_empty() || wishes.only.iter().any(|name| subject.name.contains(name)));
    if subjects.is_empty() {
        bail!("nothing is called that; there are {}", names.join(", "));
    }

    let machine = measure::machine();
    eprintln!("{machine}: {pairs} pairs of {seconds} s");
    let mut measured = Vec::new();
    for subject in &subjects {
        match measure(subject, pairs, Duration::from_secs(seconds)) {
            Ok(all) => measured.extend(all),
            // Another tool may not run here; what is ours has to.
            Err(error) if !subject.is_ours => eprintln!("{}: not measured: {error:#}", subject.name),
            Err(error) => return Err(error),
        }
    }
    let table = table::render(&measured);
    let budgets = budget::judge(&measured);
    println!("{machine}: medians of {pairs} pairs of {seconds} s\n\n{table}\n{budgets}");
    let write = |name: &str, text: String| {
        let file = results.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
        anyhow::Ok(())
    };
    write("bench.json", table::json(&machine, seconds, &measured)?)?;
    write("bench.svg", plot::svg(&machine, &measured))?;
    Ok(ExitCode::SUCCESS)
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
