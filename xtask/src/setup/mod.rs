//! `cargo xtask setup`: what the build and the tests need, brought here if it is not.
//!
//! Facts, plan and carrying out are three files. This one asks the plan what is next for each part, has it carried out,
//! gathers the facts again, and says on one line a part how that went. A part that cannot be done does not stop the
//! others: whoever is offline gets the whole list at once.

mod carry_out;
mod facts;
mod plan;

use std::{fs, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
pub(crate) use carry_out::APT_LIMITS;
use facts::{Facts, Version, parse_version};
use plan::{Blocked, Next, Tried};

use crate::workspace;

/// How many parts there are, for the counter in front of each line.
const PARTS: u32 = 4;

/// Safe to run twice, and at the same time: the second waits for the first and then finds everything there.
pub(crate) fn setup() -> Result<ExitCode> {
    let installed = workspace::installed()?;
    fs::create_dir_all(&installed).with_context(|| format!("create {}", installed.display()))?;
    // Two at once would fight over the same files.
    let _lock = workspace::lock(&installed.join("lock"), "another set-up")?;

    let mut setup = Setup { facts: Facts::gather()?, asked_apt: false, tried: Tried::default(), blocked: Vec::new() };
    let minimum = minimum_rust()?;

    let toolchain = setup.part(
        1,
        "Rust with the sources of core",
        |facts, tried| plan::toolchain(facts, tried, minimum),
        |done| {
            let name = done.name.as_deref().unwrap_or("rustc on PATH");
            format!("{name}: Rust {}.{}, LLVM {}", done.release.0, done.release.1, done.llvm)
        },
    )?;
    if let Some(toolchain) = &toolchain {
        carry_out::note_toolchain(toolchain.name.as_deref().unwrap_or_default())?;
    }
    // Without one: the toolchain in use is the one that its missing sources would be added to.
    match toolchain.as_ref().or(setup.facts.current.as_ref()).map(|toolchain| toolchain.llvm) {
        Some(llvm) => {
            setup.part(
                2,
                &format!("bpf-linker for LLVM {llvm}"),
                |facts, tried| plan::linker(facts, tried, llvm),
                |done| format!("{} in {}", done.version, done.path.display()),
            )?;
        }
        None => eprintln!("[2/{PARTS}] bpf-linker: which one depends on the Rust that is missing"),
    }
    setup.part(3, "programs that tests compare with", plan::tools, |()| plan::tool_names())?;
    setup.part(4, "crates", plan::crates, |()| "all that Cargo.lock names".to_owned())?;
    Ok(setup.verdict())
}

struct Setup {
    facts: Facts,
    asked_apt: bool,
    tried: Tried,
    blocked: Vec<Blocked>,
}

impl Setup {
    /// Carries out one part to its end. `None`: it is blocked, which `verdict` explains.
    fn part<Done>(
        &mut self,
        number: u32,
        title: &str,
        next: impl Fn(&Facts, &Tried) -> Next<Done>,
        describe: impl Fn(&Done) -> String,
    ) -> Result<Option<Done>> {
        let started = Instant::now();
        let mut touched = false;
        eprint!("[{number}/{PARTS}] {title} ... ");
        loop {
            let action = next(&self.facts, &self.tried);
            match action {
                Next::Done(done) => {
                    match touched {
                        true => eprintln!("    done in {:.0} s ({})", started.elapsed().as_secs_f64(), describe(&done)),
                        false => eprintln!("ok, already there ({})", describe(&done)),
                    }
                    return Ok(Some(done));
                }
                Next::Blocked(blocked) => {
                    eprintln!("{}missing: {}", if touched { "    " } else { "" }, blocked.missing);
                    self.blocked.push(blocked);
                    return Ok(None);
                }
                Next::RefreshLists if !self.asked_apt => {
                    self.asked_apt = true;
                    self.facts.ask_apt();
                }
                action => {
                    if !touched {
                        eprintln!("not there, installing");
                        touched = true;
                    }
                    carry_out::carry_out(action, self.facts.privilege, &mut self.tried)?;
                    self.facts = Facts::gather()?;
                    if self.asked_apt {
                        self.facts.ask_apt();
                    }
                }
            }
        }
    }

    /// What is missing, what that means and what to type, for every part at once.
    fn verdict(&self) -> ExitCode {
        if self.blocked.is_empty() {
            return ExitCode::SUCCESS;
        }
        let complete = self.blocked.iter().all(|blocked| !blocked.required);
        eprintln!("{}", if complete { "\nset-up is complete but for:" } else { "\nset-up is not complete:" });
        for blocked in &self.blocked {
            eprintln!("\n  missing: {}\n  because: {}\n  type:", blocked.missing, blocked.because);
            blocked.remedy.iter().for_each(|line| eprintln!("      {line}"));
        }
        if complete {
            eprintln!();
            return ExitCode::SUCCESS;
        }
        eprintln!("\nthen (or, if only the network was missing, once it is there): cargo xtask setup");
        ExitCode::from(2)
    }
}

/// `rust-version` of the workspace, which every package of it shares.
fn minimum_rust() -> Result<Version> {
    parse_version(env!("CARGO_PKG_RUST_VERSION")).context("read rust-version of the workspace")
}
