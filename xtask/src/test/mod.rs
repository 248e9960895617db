//! `cargo xtask test`: every test of the workspace, and an account of what was skipped and why.
//!
//! cargo runs the tests, this reads along: what was not run must be seen, and the kernel tests need root while building
//! does not. Nothing is judged here, cargo's exit status and the harnesses' own counts are.

mod browser;
mod servers;
mod targets;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{
    child::{self, Stream},
    outcome::{self, Outcome},
    privilege::Privilege,
    setup,
    test::servers::Servers,
    workspace,
};

/// The test target that needs root and a real kernel.
const KERNEL: &str = "kernel";

/// One run of cargo and what came of it.
struct Group {
    title: &'static str,
    outcome: Outcome,
    /// Set when cargo failed without any test having failed, or when nothing ran at all.
    broken: Option<String>,
    seconds: u64,
}

pub(crate) fn test(filter: Option<&str>) -> Result<ExitCode> {
    let ready = setup::setup()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }

    let servers = servers::bring();
    let browser = browser::bring();
    section("build");
    let mut built = Vec::new();
    let status = read_along(cargo_test()?.arg("--no-run"), |line| built.extend(targets::integration_test(line)))?;
    if !status.success() {
        eprintln!("error: the tests do not build, see above");
        return Ok(ExitCode::from(1));
    }
    kernel_among(&built)?;

    let mut unprivileged = cargo_test()?;
    unprivileged.args(["--lib", "--bins"]);
    for target in built.iter().filter(|target| target.name != KERNEL) {
        unprivileged.args(["--test", &target.name]);
    }
    servers.lend(&mut unprivileged);
    browser.lend(&mut unprivileged);
    let mut groups = vec![
        group("unprivileged tests", unprivileged, filter)?,
        group("documentation tests", with(cargo_test()?, &["--doc"]), filter)?,
    ];
    groups.push(kernel_tests(filter, &servers)?);

    Ok(account(&groups))
}

/// Builds the kernel tests, and the firstfin they run, without running them. `None`: they do not build.
pub(crate) fn build_kernel_tests() -> Result<Option<PathBuf>> {
    let mut built = Vec::new();
    let mut cargo = with(cargo_test()?, &["--test", KERNEL, "--no-run"]);
    let status = read_along(&mut cargo, |line| built.extend(targets::integration_test(line)))?;
    if !status.success() {
        return Ok(None);
    }
    let binary = workspace::root()?.join(&kernel_among(&built)?.binary);
    Ok(Some(binary))
}

fn kernel_among(built: &[targets::Target]) -> Result<&targets::Target> {
    let kernel = built.iter().find(|target| target.name == KERNEL);
    kernel.with_context(|| format!("cargo built no test target `{KERNEL}`, or no longer says so: {built:?}"))
}

/// As root; where that cannot be, every one of them counts as skipped.
fn kernel_tests(filter: Option<&str>, servers: &Servers) -> Result<Group> {
    let title = "kernel tests";
    let privilege = Privilege::of_this_process();
    let mut cargo = with(cargo_test()?, &["--test", KERNEL]);
    // sudo passes no variable on; tests that need root and a server are skipped then.
    servers.lend(&mut cargo);
    if privilege == Privilege::Neither {
        section(title);
        eprintln!("not run: they need root, and sudo is not here");
        let mut outcome = Outcome::default();
        cargo.args(["--", "--list"]).args(filter);
        let status = read_along(&mut cargo, |line| {
            if let Some(name) = line.strip_suffix(": test") {
                outcome.skip(name, "needs root, and sudo is not here");
            }
        })?;
        let broken = (!status.success()).then(|| format!("cannot list them: {status}"));
        return Ok(Group { title, outcome, broken, seconds: 0 });
    }
    if privilege == Privilege::Sudo {
        eprintln!("\nthe kernel tests load eBPF programs, which needs root: running them through sudo");
        privilege.ask_now();
    }
    privilege.run_built_as_root(&mut cargo)?;
    group(title, cargo, filter)
}

fn group(title: &'static str, mut cargo: Command, filter: Option<&str>) -> Result<Group> {
    section(title);
    let started = Instant::now();
    let mut outcome = Outcome::default();
    let status = read_along(cargo.args(["--no-fail-fast", "--"]).args(filter), |line| outcome.read(line))?;
    // A crash leaves no count; a harness that stopped reporting must not pass for one without failures.
    let broken = match (status.success(), outcome.failed, outcome.suites) {
        (_, _, 0) => Some(format!("no test harness reported a result ({status})")),
        (false, 0, _) => Some(format!("cargo test ended with {status}, though no test is reported as failed")),
        (true, 1.., _) => Some("tests failed, yet cargo test ended well".to_owned()),
        _ => None,
    };
    Ok(Group { title, outcome, broken, seconds: started.elapsed().as_secs() })
}

/// One selection of packages for every run: with another one cargo would choose other features and build anew.
fn cargo_test() -> Result<Command> {
    let mut cargo = workspace::cargo()?;
    cargo.args(["test", "--workspace"]);
    if io::stderr().is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    Ok(cargo)
}

fn with(mut cargo: Command, arguments: &[&str]) -> Command {
    cargo.args(arguments);
    cargo
}

/// Passes everything on as it comes, and lets `read` see it without colours.
fn read_along(command: &mut Command, mut read: impl FnMut(&str)) -> Result<ExitStatus> {
    child::each_line(command, |stream, line| {
        match stream {
            Stream::Out => println!("{line}"),
            Stream::Error => eprintln!("{line}"),
        }
        read(&outcome::without_colours(line));
    })
}

fn section(title: &str) {
    eprintln!("\n== {title}");
}

/// The last lines of the run, on stdout: what ran, what failed, what was skipped and why.
fn account(groups: &[Group]) -> ExitCode {
    println!("\n== summary");
    let mut total = Outcome::default();
    for Group { title, outcome, broken, seconds } in groups {
        println!(
            "{title:<20} {:>4} passed {:>3} failed {:>3} skipped   {seconds} s",
            outcome.passed, outcome.failed, outcome.ignored
        );
        if let Some(broken) = broken {
            println!("{:<20} BROKEN: {broken}", "");
        }
        total.add(outcome);
    }
    println!("{:<20} {:>4} passed {:>3} failed {:>3} skipped", "all", total.passed, total.failed, total.ignored);
    list("failed", &total.failed_names.iter().map(String::as_str).collect::<Vec<_>>());
    list("passed with a lesser answer", &total.lesser().iter().map(String::as_str).collect::<Vec<_>>());
    list("skipped", &total.skipped().iter().map(String::as_str).collect::<Vec<_>>());
    let bad = total.failed > 0 || groups.iter().any(|group| group.broken.is_some());
    ExitCode::from(u8::from(bad))
}

fn list(what: &str, lines: &[&str]) {
    if !lines.is_empty() {
        println!("\n{what}:");
        lines.iter().for_each(|line| println!("  {line}"));
    }
}
