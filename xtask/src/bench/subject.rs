//! What can be attached: nothing, an empty program, firstfin in its forms, other tools.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{floor::Floor, process};
use crate::{debian::Tree, workspace};

/// How long a tool may take to begin, and to end when it is asked to.
const BEGIN_WITHIN: Duration = Duration::from_secs(20);
const END_WITHIN: Duration = Duration::from_secs(20);
/// From the first program that is seen to the last one that is attached.
const SETTLE: Duration = Duration::from_millis(700);

/// Other tools want tracefs where it usually is: mounted for them alone.
const WITH_TRACEFS: &str = "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"";

// What the subjects of the budgets are called.
pub(super) const FLOOR: &str = "empty program";
pub(super) const REPORT: &str = "firstfin report";
pub(super) const STATES: &str = "firstfin trace --states";
pub(super) const FLOOR_EXCHANGE: &str = "empty, with an exchange";
pub(super) const REPORT_EXCHANGE: &str = "report, with an exchange";

/// Something that watches.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) is_ours: bool,
    /// Options of the load it is measured under
    pub(super) load: &'static [&'static str],
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

/// An HTTP request to a service nearby, and its answer.
const EXCHANGE: &[&str] = &["--exchange", "500"];

impl Subject {
    /// The floor, and firstfin, under connections that carry nothing.
    pub(super) fn ours(results: &Path) -> Result<Vec<Self>> {
        Ok(vec![
            Self::new(FLOOR, false, What::Floor, results),
            Self::report(REPORT, &[], results)?,
            Self::firstfin(STATES, &["trace", "--states", "--format", "text"], results)?,
        ])
    }

    /// The floor, and `firstfin report`, under connections that carry something.
    pub(super) fn with_exchange(results: &Path) -> Result<Vec<Self>> {
        let subjects =
            [Self::new(FLOOR_EXCHANGE, false, What::Floor, results), Self::report(REPORT_EXCHANGE, &[], results)?];
        Ok(subjects.map(|subject| Self { load: EXCHANGE, ..subject }).into())
    }

    /// A session of `firstfin report` that lasts until it is ended, with these options besides.
    pub(super) fn report(name: &str, options: &[&str], results: &Path) -> Result<Self> {
        Self::firstfin(name, &[&["report", "--duration", "1h", "--format", "json"], options].concat(), results)
    }

    fn firstfin(name: &str, arguments: &[&str], results: &Path) -> Result<Self> {
        Ok(Self::new(name, true, What::Ours(firstfin()?, owned(arguments)), results))
    }

    /// Another tool.
    pub(super) fn peer(name: &str, tree: &Rc<Tree>, program: &str, arguments: &[&str], results: &Path) -> Self {
        Self::new(name, false, What::Peer(Rc::clone(tree), program.to_owned(), owned(arguments)), results)
    }

    fn new(name: &str, is_ours: bool, what: What, results: &Path) -> Self {
        Self {
            name: name.to_owned(),
            is_ours,
            load: &[],
            what,
            output: results.join(format!("{}.out", name.replace(' ', "-"))),
        }
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
        let mut tool = Tool::start(&mut command)?;
        let has_begun =
            tool.wait_until(BEGIN_WITHIN, Duration::from_millis(20), |pid| !process::programs_of(pid).is_empty());
        if let Err(error) = has_begun {
            let said = fs::read_to_string(self.output.with_extension("err")).unwrap_or_default();
            return Err(error.context(format!("{} has no eBPF program: {}", self.name, said.trim())));
        }
        thread::sleep(SETTLE);
        Ok(Running::Tool(tool))
    }

    /// What it has written.
    pub(super) fn said(&self) -> String {
        fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

/// The very file that is shipped.
pub(super) fn firstfin() -> Result<PathBuf> {
    Ok(workspace::target()?.join("release/firstfin"))
}

/// Something attached.
pub(super) enum Running {
    /// By this process, until it is dropped
    Here {
        _floor: Floor,
    },
    Tool(Tool),
}

impl Running {
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Here { .. } => None,
            Self::Tool(tool) => Some(tool.pid()),
        }
    }

    /// Detaches it.
    pub(super) fn end(self) -> Result<Ended> {
        match self {
            Self::Here { .. } => Ok(Ended::default()),
            Self::Tool(tool) => tool.end(),
        }
    }
}

/// How a tool came to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    /// From Ctrl-C until it was gone
    pub(super) took: Duration,
    /// The most memory it had until then, in MiB
    pub(super) peak_mib: f64,
}

/// A process that watches. It does not outlive what measures it.
pub(super) struct Tool(Child);

impl Tool {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("start {command:?}"))?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What it writes, where its output is a pipe.
    pub(super) fn output(&mut self) -> Result<ChildStdout> {
        self.0.stdout.take().context("its output is no pipe")
    }

    /// Asks `is_so` of its process id `each` so often until it is.
    pub(super) fn wait_until(&mut self, within: Duration, each: Duration, is_so: impl Fn(u32) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !is_so(self.pid()) {
            if let Some(status) = self.0.try_wait().context("look after it")? {
                bail!("it ended at once, {status}");
            }
            if begun.elapsed() > within {
                bail!("nothing came of it within {} s", within.as_secs());
            }
            thread::sleep(each);
        }
        Ok(())
    }

    /// Ends it as Ctrl-C would.
    pub(super) fn end(mut self) -> Result<Ended> {
        let pid = self.pid();
        let asked = Instant::now();
        let interrupted = Command::new("kill").args(["-INT", &pid.to_string()]).status().context("run kill")?;
        if !interrupted.success() {
            bail!("process {pid} could not be interrupted");
        }
        let mut peak_mib: f64 = 0.0;
        while self.0.try_wait().context("look after it")?.is_none() {
            // One that has ended and was not waited for yet says nothing of its memory.
            peak_mib = peak_mib.max(process::peak_mib(pid).unwrap_or_default());
            if asked.elapsed() > END_WITHIN {
                bail!("it did not end within {} s", END_WITHIN.as_secs());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Ended { took: asked.elapsed(), peak_mib })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // As a rule it has ended, and then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
