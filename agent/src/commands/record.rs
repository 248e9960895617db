//! `firstfin record`: a session that is written down.

use std::{fs, future::pending};

use agent_ebpf::{Detail, Filter};
use anyhow::Context as _;
use bytesize::ByteSize;

use super::{Interrupt, report::create_recording, settings};
use crate::{
    cli::{self, Global},
    session::{Session, Unheard},
};

pub(super) async fn run(global: &Global, args: &cli::Record) -> anyhow::Result<()> {
    let recording = create_recording(Some(&args.output), args.redact)?;
    let mut interrupt = Interrupt::listen()?;
    let mut session = Session::start(&settings(global, Detail::Ends, Filter::default()), recording)?;
    let until = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => pending().await,
        }
    };
    let mut unheard = Unheard;
    tokio::select! {
        result = session.observe(until, &mut unheard) => result?,
        () = interrupt.first() => {}
    }
    let report = session.finish(args.duration.is_some() && interrupt.came()).await?;
    let file = fs::metadata(&args.output).with_context(|| format!("look at {}", args.output.display()))?;
    let (events, length) = (report.session.events.received, ByteSize(file.len()));
    eprintln!("{}: {events} events, {length}; `firstfin replay` makes the report", args.output.display());
    Ok(())
}
