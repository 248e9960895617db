//! `firstfin what-if`: a recording, played with a change.

use anyhow::Context as _;

use super::replay::open;
use crate::{
    cli::{Format, Global, WhatIf},
    output,
    what_if::{self, workload},
};

pub(super) fn run(global: &Global, args: &WhatIf) -> anyhow::Result<()> {
    let workload = workload::read(open(&args.file)?).with_context(|| format!("play {}", args.file.display()))?;
    let changes = args.changes();
    if let Some(who) = &changes.process {
        anyhow::ensure!(
            workload.programs.iter().any(|program| who.is(program)),
            "{who} has no connection in the recording"
        );
    }
    let answer = what_if::answer(&workload, &changes, args.all);
    output::write_stdout(&match args.format {
        Format::Text => output::text::what_if(&answer, output::terminal_width(), output::is_coloured(global.color)),
        Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
    })?;
    Ok(())
}
