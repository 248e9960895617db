//! `cargo xtask run`: set up, build, and become firstfin.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{privilege::Privilege, setup, workspace};

/// Replaces this process by `cargo run`, which replaces itself by firstfin: the terminal, Ctrl-C and the exit status
/// are firstfin's own.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let ready = setup::setup()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    // Built apart, so that a failure to build is 2 ("could not run") and not cargo's 101.
    let built = workspace::cargo()?
        .args(["build", "--release", "--package", "firstfin"])
        .status()
        .context("run cargo build --release --package firstfin")?;
    if !built.success() {
        bail!("build firstfin: {built}");
    }

    let privilege = Privilege::of_this_process();
    match privilege {
        Privilege::Root => {}
        Privilege::Sudo => eprintln!("firstfin needs root to load its eBPF programs: running it through sudo"),
        Privilege::Neither => eprintln!("firstfin needs root to load its eBPF programs, and sudo is not here"),
    }
    let mut cargo = workspace::cargo()?;
    cargo.args(["run", "--quiet", "--release", "--package", "firstfin", "--bin", "firstfin", "--"]);
    if arguments.is_empty() {
        cargo.arg("--help");
    }
    cargo.args(arguments);
    privilege.run_built_as_root(&mut cargo)?;
    Err(cargo.exec()).with_context(|| format!("run {cargo:?}"))
}
