//! Parses the command line, runs the command, turns its result into an exit status.

use std::process::ExitCode;

use env_logger::Target;
use firstfin::{
    cli::{Cli, Command},
    commands::{self, BAD_CONFIGURATION, COULD_NOT_RUN},
    config::ConfigError,
    output,
    top::terminal::Log,
};
use log::LevelFilter;

fn main() -> ExitCode {
    hold_less_memory();
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let level = match cli.global.verbose {
        // A daemon's log is where one looks for what it does.
        0 if matches!(cli.command, Command::Serve(_)) => LevelFilter::Info,
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let mut logger = env_logger::Builder::new();
    logger.filter_level(level).format_target(false);
    // A line amid a view that fills the terminal would tear it.
    if matches!(cli.command, Command::Top(_) | Command::Replay(_)) {
        logger.target(Target::Pipe(Box::new(Log)));
    }
    logger.init();
    match commands::run(cli) {
        Ok(code) => code,
        // `firstfin trace | head` has what it wanted.
        Err(error) if output::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firstfin: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() { BAD_CONFIGURATION } else { COULD_NOT_RUN })
        }
    }
}

/// Has the allocator hold less: left to itself, glibc keeps up to 32 MiB of what was large and freed, and an agent that
/// stays would keep what reading the kernel's types took; and it has a heap for each thread that asks while another does, so
/// that what a look at the sockets has freed is of no use for the report.
#[cfg(target_env = "gnu")]
fn hold_less_memory() {
    /// Bytes from which on the kernel is asked; glibc begins with as many
    const THRESHOLD: libc::c_int = 128 << 10;
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, THRESHOLD), (libc::M_ARENA_MAX, 1)] {
        // SAFETY: the function has no preconditions, and no other thread runs yet.
        let is_set = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(is_set, 1, "a value glibc takes");
    }
}

#[cfg(not(target_env = "gnu"))]
const fn hold_less_memory() {}
