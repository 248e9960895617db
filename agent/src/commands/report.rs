//! `firstfin report`: the session.

use std::{
    fs::File,
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use agent_ebpf::{Detail, Filter};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{Interrupt, exit_code, page, settings};
use crate::{
    cli::{self, Format, Global},
    output::{self, json, text},
    recording::Destination,
    report::Report,
    session::{Session, Unheard},
};

pub(super) async fn run(global: &Global, args: &cli::Report) -> anyhow::Result<ExitCode> {
    let recording = create_recording(args.record.as_deref(), false)?;
    let page = page::create(args.html.as_deref())?;
    let mut interrupt = Interrupt::listen()?;
    let mut session = Session::start(&settings(global, detail(page.is_some()), Filter::default()), recording)?;
    if page.is_some() {
        session.follow();
    }
    let layout = if args.interval.is_some() { json::Layout::Line } else { json::Layout::Document };
    let options = options(global, usize::from(args.top));
    let end = Instant::now() + args.duration;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let round = args.interval.map_or(left, |interval| interval.min(left));
        let progress = progress(round);
        let mut unheard = Unheard;
        tokio::select! {
            result = session.observe(tokio::time::sleep(round), &mut unheard) => result?,
            () = interrupt.first() => {}
        }
        progress.finish_and_clear();
        let is_last = interrupt.came() || end <= Instant::now();
        if is_last {
            let (played, course) = session.end(interrupt.came()).await?;
            let report =
                page::tell(&played, page, course.as_ref(), |report| print(report, args.format, layout, &options))?;
            return Ok(exit_code(&report, args.fail_on));
        }
        print(&session.report().await?, args.format, layout, &options)?;
    }
}

/// A page shows what a report does not need: connections that the other side closed first.
pub(super) const fn detail(has_page: bool) -> Detail {
    if has_page { Detail::Ends } else { Detail::Report }
}

pub(super) fn create_recording(path: Option<&Path>, is_redacted: bool) -> anyhow::Result<Option<Destination>> {
    let Some(path) = path else { return Ok(None) };
    let out = create_file(path).with_context(|| format!("create the recording {}", path.display()))?;
    Ok(Some(Destination { out: Box::new(out), is_redacted }))
}

/// Only its owner may read it: a recording holds names, paths and addresses of everything on the host.
pub(super) fn create_file(path: &Path) -> io::Result<BufWriter<File>> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(BufWriter::new(file))
}

pub(super) fn options(global: &Global, top: usize) -> text::Options {
    text::Options { width: output::terminal_width(), colour: output::is_coloured(global.color), top }
}

pub(super) fn print(
    report: &Report,
    format: Format,
    layout: json::Layout,
    options: &text::Options,
) -> anyhow::Result<()> {
    let page = match format {
        Format::Text => text::render(report, options),
        Format::Json => json::render(report, layout)?,
    };
    Ok(output::write_stdout(&page)?)
}

/// A line on standard error, on a terminal only.
fn progress(length: Duration) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // The template is a constant; if it were wrong, the plain spinner would do.
    if let Ok(style) = ProgressStyle::with_template("observing for {msg}, {elapsed} so far; Ctrl-C ends it and reports")
    {
        bar.set_style(style);
    }
    bar.set_message(format!("{} s", length.as_secs_f64().round()));
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
