//! `firstfin top`: the live view.

use agent_ebpf::{Detail, Filter};

use super::{report::create_recording, runtime, settings};
use crate::{
    cli::{self, Global},
    output,
    session::Session,
    top::{
        screens::Palette,
        source::{Live, Source},
        terminal::{Screen, ensure_terminal},
        watch::watch,
    },
};

pub(super) fn run(global: &Global, args: &cli::Top) -> anyhow::Result<()> {
    // Before anything is attached.
    ensure_terminal()?;
    let recording = create_recording(args.record.as_deref(), false)?;
    let runtime = runtime()?;
    let session = {
        let _entered = runtime.enter();
        Session::start(&settings(global, Detail::Report, Filter::default()), recording)?
    };
    let mut live = Live::of(session);
    show(&runtime, global, &mut live, "this host")?;
    // Else it would be one that was cut off.
    if args.record.is_some() { runtime.block_on(live.end()) } else { Ok(()) }
}

/// Shows what comes from a source until its user has seen enough.
pub(super) fn view(global: &Global, mut source: impl Source, title: &str) -> anyhow::Result<()> {
    ensure_terminal()?;
    show(&runtime()?, global, &mut source, title)
}

fn show(
    runtime: &tokio::runtime::Runtime,
    global: &Global,
    source: &mut impl Source,
    title: &str,
) -> anyhow::Result<()> {
    let is_coloured = output::is_coloured(global.color);
    let mut screen = Screen::open(is_coloured)?;
    runtime.block_on(watch(source, &mut screen, Palette { is_coloured }, title))
}
