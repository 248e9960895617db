//! How long it takes until firstfin watches, and until it says the first thing.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    measure::Spread,
    namespace::{Load, Purpose},
    process,
    subject::{Running, Subject, Tool, firstfin},
    table,
};

/// How long a start may take before it counts as failed.
const START_WITHIN: Duration = Duration::from_secs(20);

pub(super) struct Start {
    /// From before exec of `firstfin report` until the last program is attached, milliseconds
    pub(super) attached_ms: Spread,
    /// From before exec of `firstfin trace` until the first byte of its output, while connections are made
    pub(super) first_event_ms: Spread,
    /// Descriptors by which programs are attached, in a session that has begun
    attachments: usize,
}

impl Start {
    pub(super) fn measure(times: u32, results: &Path) -> Result<Self> {
        // firstfin says nothing when it is ready, and need not: the kernel knows. How many attachments are all of them on
        // this kernel is what a session has that had time enough.
        let running: Running = Subject::report("start", &[], results)?.begin()?;
        let attachments = running.pid().map_or(0, process::attachments);
        running.end()?;
        if attachments == 0 {
            bail!("a session of firstfin has no link and no perf event");
        }
        let errors = results.join("start.err");
        let mut attached = Vec::new();
        for _ in 0..times {
            attached.push(until_attached(attachments, &errors)?);
        }
        // A thousand connections a second: there is always one to be told, and the processors have time left.
        let arguments = ["load", "--seconds", "600", "--threads", "1", "--pause", "1000"];
        let load = Load::start(Purpose::Churn, &arguments)?;
        let mut first_event = Vec::new();
        for _ in 0..times {
            first_event.push(until_first_event(&errors)?);
        }
        drop(load);
        let spread = |numbers: Vec<Duration>| {
            Spread::of(numbers.iter().map(|it| it.as_secs_f64() * 1e3)).context("firstfin was not started once")
        };
        Ok(Self { attached_ms: spread(attached)?, first_event_ms: spread(first_event)?, attachments })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "attached_ms": table::spread(self.attached_ms),
            "first_event_ms": table::spread(self.first_event_ms),
            "attachments": self.attachments,
        })
    }
}

fn command(arguments: &[&str], errors: &Path) -> Result<Command> {
    let errors = File::create(errors).with_context(|| format!("create {}", errors.display()))?;
    let mut command = Command::new(firstfin()?);
    command.args(arguments).stdin(Stdio::null()).stderr(errors);
    Ok(command)
}

fn until_attached(attachments: usize, errors: &Path) -> Result<Duration> {
    let mut command = command(&["report", "--duration", "1h"], errors)?;
    command.stdout(Stdio::null());
    let started = Instant::now();
    let mut tool = Tool::start(&mut command)?;
    tool.wait_until(START_WITHIN, Duration::from_millis(1), |pid| process::attachments(pid) >= attachments)
        .with_context(|| format!("wait for {attachments} attachments (see {})", errors.display()))?;
    let took = started.elapsed();
    tool.end()?;
    Ok(took)
}

fn until_first_event(errors: &Path) -> Result<Duration> {
    let limit = format!("{}s", START_WITHIN.as_secs());
    let mut command = command(&["trace", "--duration", &limit], errors)?;
    command.stdout(Stdio::piped());
    let started = Instant::now();
    let mut tool = Tool::start(&mut command)?;
    let mut output = tool.output()?;
    let length = output.read(&mut [0]).context("read from firstfin trace")?;
    let took = started.elapsed();
    // It must not wait for somebody to read the rest.
    drop(output);
    if length == 0 {
        bail!("firstfin trace ended without a line while connections were made (see {})", errors.display());
    }
    tool.end()?;
    Ok(took)
}
