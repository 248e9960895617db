//! `firstfin replay`: the report of a recording, or a look at it as it is played.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};

use super::{exit_code, page, report};
use crate::{
    cli::{self, Format, Global},
    course::Course,
    model::Name,
    output::json,
    recording::{self, Player},
    state::{Input, State},
    top::source::Recorded,
};

/// Entries of each list, unless told otherwise.
const ENTRIES: u16 = 10;

pub(super) fn run(global: &Global, args: &cli::Replay) -> anyhow::Result<ExitCode> {
    if let Some(copy) = &args.redact {
        redact(&args.file, copy)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.speed != 1 && args.top != Some(None) {
        bail!("--speed is of the live view: it wants --top without a number, behind FILE");
    }
    let top = match args.top {
        None => ENTRIES,
        Some(Some(entries)) => entries,
        Some(None) => return view(global, args),
    };
    let page = page::create(args.html.as_deref())?;
    let mut course = page.is_some().then(Course::default);
    let mut hear = |state: &State, input: &Input| {
        if let Some(course) = &mut course {
            course.hear(state, input);
        }
    };
    let played =
        recording::play(open(&args.file)?, &mut hear).with_context(|| format!("replay {}", args.file.display()))?;
    if let Some(course) = &mut course {
        course.end(&played.state, &played.census, &played.facts);
    }
    let report = page::tell(&played, page, course.as_ref(), |report| {
        report::print(report, args.format, json::Layout::Document, &report::options(global, usize::from(top)))
    })?;
    Ok(exit_code(&report, args.fail_on))
}

/// Plays it in the live view.
fn view(global: &Global, args: &cli::Replay) -> anyhow::Result<ExitCode> {
    if args.fail_on.is_some() || args.format != Format::Text || args.html.is_some() {
        bail!("--top without a number shows a live view, which has no --format, --fail-on or --html");
    }
    let name = Name::from(args.file.display().to_string().as_str());
    let player = Player::of(open(&args.file)?);
    let recorded = Recorded::open(player, args.speed).with_context(|| format!("replay {name}"))?;
    let title = Name::from(args.file.file_name().unwrap_or_default().to_string_lossy().as_ref());
    let speed = if args.speed == 1 { String::new() } else { format!(", {} times as fast", args.speed) };
    super::top::view(global, recorded, &format!("the recording {title}{speed}"))
        .with_context(|| format!("replay {name}"))?;
    Ok(ExitCode::SUCCESS)
}

/// What is there of a copy that could not be made is removed: it looks like one that was cut off.
fn redact(file: &Path, copy: &Path) -> anyhow::Result<()> {
    let recording = open(file)?;
    let is_itself = || Some(fs::canonicalize(file).ok()? == fs::canonicalize(copy).ok()?);
    ensure!(is_itself() != Some(true), "{} is the recording itself", copy.display());
    let out = report::create_file(copy).with_context(|| format!("create {}", copy.display()))?;
    recording::redact(recording, Box::new(out))
        .inspect_err(|_| drop(fs::remove_file(copy)))
        .with_context(|| format!("redact {} into {}", file.display(), copy.display()))
}

pub(super) fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}
