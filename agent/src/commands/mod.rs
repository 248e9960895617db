//! One file a subcommand: wiring, no decisions.

mod demo;
mod doctor;
mod generate;
mod history;
mod page;
mod record;
mod replay;
mod report;
mod serve;
mod top;
mod trace;
mod what_if;
mod why;

use std::process::ExitCode;

use agent_ebpf::{Detail, Filter};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{Cli, Command, Global},
    kernel::Settings,
    report::{Report, Severity},
};

/// There are findings at or above `--fail-on`.
const HAS_FINDINGS: u8 = 1;
/// It could not be run.
pub const COULD_NOT_RUN: u8 = 2;
/// The configuration cannot be used: `EX_CONFIG` of sysexits.h, which a service manager can be told not to restart on.
pub const BAD_CONFIGURATION: u8 = 78;

/// Runs the command.
///
/// # Errors
/// It could not be run, or its output not be written.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Doctor(args) => doctor::run(global, &args),
        Command::Why(args) => why::run(global, &args).map(|()| ExitCode::SUCCESS),
        Command::Trace(args) => runtime()?.block_on(trace::run(global, &args)),
        Command::Report(args) => runtime()?.block_on(report::run(global, &args)),
        Command::Top(args) => top::run(global, &args).map(|()| ExitCode::SUCCESS),
        Command::Record(args) => runtime()?.block_on(record::run(global, &args)).map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => replay::run(global, &args),
        Command::WhatIf(args) => what_if::run(global, &args).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(global, &args).map(|()| ExitCode::SUCCESS),
        Command::History(args) => history::run(global, &args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => runtime()?.block_on(demo::run(global, &args)),
        Command::Generate(args) => generate::run(&args.folder).map(|()| ExitCode::SUCCESS),
        Command::DemoRole(args) => demo::play(&args.role, &args.arguments).map(|()| ExitCode::SUCCESS),
    }
}

/// One thread for the event loop: there is one ring buffer and one writer of the state.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")
}

const fn settings(global: &Global, detail: Detail, filter: Filter) -> Settings {
    Settings {
        detail,
        filter,
        ring_bytes: global.ring_size,
        max_sockets: global.max_sockets,
        highest_rung: global.max_rung.rung(),
    }
}

fn exit_code(report: &Report, fail_on: Option<Severity>) -> ExitCode {
    let fails = fail_on.is_some_and(|limit| report.findings.iter().any(|finding| finding.severity >= limit));
    if fails { ExitCode::from(HAS_FINDINGS) } else { ExitCode::SUCCESS }
}

/// SIGINT or SIGTERM. The first one ends the session and its report is still printed; the second one ends at once.
struct Interrupt {
    received: tokio::sync::watch::Receiver<bool>,
}

impl Interrupt {
    fn listen() -> anyhow::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        let (sender, received) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            for is_second in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if is_second {
                    // 128 + SIGINT, as a shell has it. What is attached goes with the process.
                    std::process::exit(130);
                }
                // Nobody waits any more: the session is over anyway.
                let _ = sender.send(true);
            }
        });
        Ok(Self { received })
    }

    /// Done when the first signal came, also if that was before.
    async fn first(&mut self) {
        // The sender lives in the task above until the process ends.
        let _ = self.received.wait_for(|received| *received).await;
    }

    fn came(&self) -> bool {
        *self.received.borrow()
    }
}
