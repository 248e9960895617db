//! What can be attached: nothing, an empty program, firstfin in its forms, other tools.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::floor::Floor;
use crate::{debian::Tree, workspace};

/// How long a tool may take to begin, and to end when it is asked to.
const BEGIN_WITHIN: Duration = Duration::from_secs(20);
const END_WITHIN: Duration = Duration::from_secs(20);
/// From the first program that is seen to the last one that is attached.
const SETTLE: Duration = Duration::from_millis(700);

/// Other tools want tracefs where it usually is: mounted for them alone.
const WITH_TRACEFS: &str = "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"";

/// Something that watches.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) is_ours: bool,
    what: What,
    /// Where its output goes: a file, as somebody would who keeps it
    output: PathBuf,
}

enum What {
    /// An empty program, attached by this process
    Floor,
    /// A program of this workspace
    Ours(PathBuf, Vec<String>),
    /// One that was unpacked, with its arguments
    Peer(Rc<Tree>, String, Vec<String>),
}

impl Subject {
    /// The floor, and firstfin.
    pub(super) fn ours(results: &Path) -> Result<Vec<Self>> {
        let firstfin = workspace::root()?.join("target/release/firstfin");
        let ours = |name: &str, arguments: &[&str]| {
            Self::new(name, true, What::Ours(firstfin.clone(), owned(arguments)), results)
        };
        Ok(vec![
            Self::new("empty program", false, What::Floor, results),
            ours("firstfin report", &["report", "--duration", "1h", "--format", "json"]),
            ours("firstfin trace --states", &["trace", "--states", "--format", "text"]),
        ])
    }

    /// Another tool.
    pub(super) fn peer(name: &str, tree: &Rc<Tree>, program: &str, arguments: &[&str], results: &Path) -> Self {
        Self::new(name, false, What::Peer(Rc::clone(tree), program.to_owned(), owned(arguments)), results)
    }

    fn new(name: &str, is_ours: bool, what: What, results: &Path) -> Self {
        Self { name: name.to_owned(), is_ours, what, output: results.join(format!("{}.out", name.replace(' ', "-"))) }
    }

    /// Attaches it, and returns when it is.
    pub(super) fn begin(&self) -> Result<Running> {
        let (mut command, arguments) = match &self.what {
            What::Floor => return Ok(Running::Here { _floor: Floor::attach()? }),
            What::Ours(program, arguments) => (Command::new(program), arguments),
            What::Peer(tree, program, arguments) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]);
                tree.let_start(&mut command, program);
                (command, arguments)
            }
        };
        let output = File::create(&self.output).with_context(|| format!("create {}", self.output.display()))?;
        let errors = self.output.with_extension("err");
        let errors = File::create(&errors).with_context(|| format!("create {}", errors.display()))?;
        command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut child = command.spawn().with_context(|| format!("start {}", self.name))?;
        let begun = Instant::now();
        while programs_of(child.id()).is_empty() {
            if let Some(status) = child.try_wait().context("look after it")? {
                let said = fs::read_to_string(self.output.with_extension("err")).unwrap_or_default();
                bail!("{} ended at once, {status}: {}", self.name, said.trim());
            }
            if begun.elapsed() > BEGIN_WITHIN {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{} has no eBPF program after {} s", self.name, BEGIN_WITHIN.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(SETTLE);
        Ok(Running::Tool(child))
    }

    /// What it has written.
    pub(super) fn said(&self) -> String {
        fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

/// Something attached.
pub(super) enum Running {
    /// By this process, until it is dropped
    Here {
        _floor: Floor,
    },
    Tool(Child),
}

impl Running {
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Here { .. } => None,
            Self::Tool(child) => Some(child.id()),
        }
    }

    /// Detaches it, as Ctrl-C would.
    pub(super) fn end(self) -> Result<()> {
        let Self::Tool(mut child) = self else { return Ok(()) };
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().context("run kill")?;
        if !interrupted.success() {
            bail!("process {} could not be interrupted", child.id());
        }
        let asked = Instant::now();
        while child.try_wait().context("look after it")?.is_none() {
            if asked.elapsed() > END_WITHIN {
                child.kill().context("end it")?;
                child.wait().context("wait for it")?;
                bail!("it did not end within {} s", END_WITHIN.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// What the kernel says of each eBPF program a process has (`/proc/PID/fdinfo`).
pub(super) fn programs_of(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let infos = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos.filter(|info| info.contains("prog_tag:") && !info.contains("link_type:")).collect()
}
