//! What a newcomer and CI type: `cargo xtask setup | run | test | vm | bench | runtimes | docs | package`.
//!
//! It exists because the eBPF programs need things cargo does not bring (the sources of `core`, LLVM, bpf-linker), and
//! it must work before they are there: it depends on nothing of this workspace and compiles in seconds.

mod bench;
mod child;
mod debian;
mod docs;
mod outcome;
mod package;
mod privilege;
mod run;
mod runtimes;
mod setup;
mod test;
mod vm;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Set up, run and test firstfin", version)]
enum Task {
    /// Make everything present that the build and the tests need. Safe to run twice.
    Setup,
    /// Set up, build in release mode, and run firstfin, through sudo when not root.
    Run {
        /// What firstfin gets, after `--`. Without any it prints its help.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, then run every test of the workspace, the kernel tests as root, and count what was skipped.
    Test {
        /// Run only the tests whose name contains this.
        filter: Option<String>,
    },
    /// Set up, then run the kernel tests on other kernels, in emulated machines that need neither root nor KVM.
    Vm(vm::Wishes),
    /// Set up, then measure what watching costs: against nothing, an empty eBPF program, and other tools. As root.
    Bench(bench::Wishes),
    /// Bring the container runtimes that some kernel tests start, from Debian, into target/runtimes. Installs nothing.
    Runtimes,
    /// What the bench measures with
    #[command(hide = true)]
    Load(bench::load::Load),
    /// What the bench overloads with
    #[command(hide = true)]
    Scan(bench::scan::Scan),
    /// Write docs/generated: manual page, completions, JSON schema, command reference.
    Docs {
        /// Change nothing; fail when docs/generated is not what the program would write.
        #[arg(long)]
        check: bool,
    },
    /// Set up, build the Debian package, and look at it: what it holds, what it installs, what systemd says of its unit.
    Package {
        /// Package what `target/release` holds, as it is.
        #[arg(long)]
        no_build: bool,
    },
}

/// 0: done. 1: a test failed, the documents drifted, or the package is not right. 2: it could not be done.
fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Setup => setup::setup(),
        Task::Run { arguments } => run::run(&arguments),
        Task::Test { filter } => test::test(filter.as_deref()),
        Task::Vm(wishes) => vm::vm(&wishes),
        Task::Bench(wishes) => bench::bench(&wishes),
        Task::Runtimes => runtimes::runtimes(),
        Task::Load(wishes) => bench::load::load(&wishes),
        Task::Scan(wishes) => bench::scan::scan(&wishes),
        Task::Docs { check } => docs::docs(check),
        Task::Package { no_build } => package::package(no_build),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
