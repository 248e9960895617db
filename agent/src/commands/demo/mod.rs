//! `firstfin demo`: a small misbehaving workload, and a real session against it.
//!
//! The workload is this program again, started with `demo-role`: processes with names of their own in two network
//! namespaces made for them. Everything stays on their loopback devices, is bounded, and ends by itself.

mod roles;
mod workload;

use std::process::ExitCode;

use agent_ebpf::Filter;
use anyhow::Context as _;

use self::workload::Workload;
use super::{Interrupt, exit_code, page, report, settings};
use crate::{
    cli::{self, Global},
    output::json,
    session::{Session, Unheard},
};

pub(super) use roles::play;

/// Entries shown of each list: the demo has few processes.
const TOP: usize = 10;

pub(super) async fn run(global: &Global, args: &cli::Demo) -> anyhow::Result<ExitCode> {
    let recording = report::create_recording(args.record.as_deref(), false)?;
    let page = page::create(args.html.as_deref())?;
    let mut interrupt = Interrupt::listen()?;
    let mut session = Session::start(&settings(global, report::detail(page.is_some()), Filter::default()), recording)?;
    if page.is_some() {
        session.follow();
    }
    let started = tokio::task::spawn_blocking(Workload::run);
    // The processes that stay are held until the report is made: with the last one, a namespace and its sockets go.
    let mut unheard = Unheard;
    let workload = tokio::select! {
        done = session.observe(started, &mut unheard) => Some(done?.context("run the workload")??),
        () = interrupt.first() => None,
    };
    let (played, course) = session.end(interrupt.came()).await?;
    drop(workload);
    let report = page::tell(&played, page, course.as_ref(), |report| {
        report::print(report, args.format, json::Layout::Document, &report::options(global, TOP))
    })?;
    Ok(exit_code(&report, args.fail_on))
}
