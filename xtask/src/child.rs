//! Running other programs so that a person sees what goes on and none can hang us.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How much of a failed command's output is shown when it was not streamed.
const KEPT_LINES: usize = 40;
/// Longer lines would wrap, and a line that wraps cannot be written over.
const STATUS_COLUMNS: usize = 64;
/// What a program's own children may still write after it ended.
const DRAIN: Duration = Duration::from_secs(1);

pub(crate) enum Stream {
    Out,
    Error,
}

/// Runs a command to its end and hands over every line it writes, as it is written.
pub(crate) fn each_line(command: &mut Command, mut line: impl FnMut(Stream, &str)) -> Result<ExitStatus> {
    let (mut child, lines) = start(command)?;
    // The channel closes when the program and all that inherited its output are done.
    for (stream, text) in lines {
        line(stream, &text);
    }
    child.wait().with_context(|| format!("wait for {command:?}"))
}

/// Runs a command, showing one moving line on a terminal and every line elsewhere. When it does not end well, `Err` says
/// in one line how it ended and what it said last; what it said before has been shown by then.
pub(crate) fn watch(command: &mut Command, limit: Option<Duration>) -> Result<(), String> {
    let started = Instant::now();
    let (mut child, lines) = start(command).map_err(|error| format!("{error:#}"))?;
    let live = io::stderr().is_terminal();
    let mut kept = VecDeque::new();
    let mut latest = String::new();
    let mut show = |line: Option<String>| {
        if let Some(line) = line {
            if !live {
                eprintln!("    | {line}");
            }
            latest.clone_from(&line);
            kept.push_back(line);
            if kept.len() > KEPT_LINES {
                kept.pop_front();
            }
        }
        if live {
            let shown: String = latest.trim().chars().filter(|c| !c.is_control()).take(STATUS_COLUMNS).collect();
            eprint!("\r\x1b[K    {:>3} s  {shown}", started.elapsed().as_secs());
            let _ = io::stderr().flush();
        }
    };

    let ended = loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok((_, line)) => show(Some(line)),
            Err(RecvTimeoutError::Timeout) => show(None),
            // Both its outputs are closed: it has ended or is about to.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(20)),
        }
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(status.to_string()),
            Ok(None) if limit.is_some_and(|limit| started.elapsed() > limit) => {
                let _ = child.kill();
                let _ = child.wait();
                break Err(format!("no end in sight after {} s, stopped", started.elapsed().as_secs()));
            }
            Ok(None) => {}
            Err(error) => break Err(error.to_string()),
        }
    };
    let drained = Instant::now();
    while let Ok((_, line)) = lines.recv_timeout(DRAIN.saturating_sub(drained.elapsed())) {
        show(Some(line));
    }
    if live {
        eprint!("\r\x1b[K");
        if ended.is_err() {
            kept.iter().for_each(|line| eprintln!("    | {line}"));
        }
    }
    let last = kept.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty());
    ended.map_err(|how| last.map_or_else(|| how.clone(), |last| format!("{how}: {last}")))
}

fn start(command: &mut Command) -> Result<(Child, Receiver<(Stream, String)>)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let (sender, lines) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || read_lines(out, |line| sender.send((Stream::Out, line)).is_ok()));
    }
    if let Some(error) = child.stderr.take() {
        thread::spawn(move || read_lines(error, |line| sender.send((Stream::Error, line)).is_ok()));
    }
    Ok((child, lines))
}

/// Hands over lines until the end or until nobody takes them. Bytes that are no UTF-8 are replaced, not fatal.
fn read_lines(source: impl Read, mut take: impl FnMut(String) -> bool) {
    for line in BufReader::new(source).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line);
        if !take(line.trim_end_matches('\r').to_owned()) {
            return;
        }
    }
}
