//! Parses the command line, runs the command, turns its result into an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use firstfin::{
    cli::Cli,
    commands::{self, COULD_NOT_RUN},
    output,
};
use log::LevelFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.global.verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    env_logger::Builder::new().filter_level(level).format_target(false).init();
    match commands::run(cli) {
        Ok(code) => code,
        // `firstfin trace | head` has what it wanted.
        Err(error) if output::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firstfin: {error:#}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}
