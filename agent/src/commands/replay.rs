//! `firstfin replay`: the report of a recording.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;

use super::{exit_code, report};
use crate::{
    cli::{self, Global},
    output::json,
    recording,
};

pub(super) fn run(global: &Global, args: &cli::Replay) -> anyhow::Result<ExitCode> {
    let report = recording::replay(open(&args.file)?).with_context(|| format!("replay {}", args.file.display()))?;
    report::print(&report, args.format, json::Layout::Document, &report::options(global, usize::from(args.top)))?;
    Ok(exit_code(&report, args.fail_on))
}

fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}
