//! The command line.
//!
//! What is typed becomes typed values here, and what cannot be meant is refused with the form that would do. Parsing
//! touches neither files nor the kernel: a path stays a path until the command that needs it looks it up. It can
//! therefore be tested whole, and the manual pages, the completions and `docs/generated/cli.md` are made from it.

mod history;
pub(crate) mod values;
mod what_if;

use std::{ffi::OsString, fmt, net::SocketAddr, num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    parser::ValueSource,
};

use self::values::{cgroup, comm, destination, netns, place};
pub(crate) use self::values::{duration, ring_size};
pub use self::{
    history::{By, History, HistoryFormat, When},
    values::{CgroupArg, NetnsArg, Place},
    what_if::WhatIf,
};
use crate::{config::Listen, kernel::plan::Rung, report::Severity};

/// What the help of the program, and of the commands that make a report, ends with.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  done, and there are findings at or above --fail-on
  2  could not run: bad usage, a missing privilege, a kernel that lacks something";

const EXIT_STATUS_TRACE: &str = "\
Exit status:
  0  done
  2  could not run: bad usage, a missing privilege, a kernel that lacks something";

const EXIT_STATUS_REPLAY: &str = "\
Exit status:
  0  done
  1  done, and there are findings at or above --fail-on
  2  could not run: bad usage, a file that cannot be read or is no recording";

const EXIT_STATUS_SERVE: &str = "\
Exit status:
  0   stopped by a signal; the configuration is fine
  2   could not run: bad usage, a missing privilege, a kernel that lacks something, a port that is taken
  78  the configuration cannot be used";

const EXIT_STATUS_DOCTOR: &str = "\
Exit status:
  0  firstfin can observe here
  2  it cannot, or the usage was bad";

/// Which process is behind TIME_WAIT, a refused bind(), an exhausted port range
///
/// Attributes TCP TIME_WAIT, bind conflicts and the exhaustion of ephemeral ports to processes, with eBPF tracepoints
/// and sock_diag. Observing needs root; `firstfin doctor` says what is missing on this host.
#[derive(Clone, Debug, Parser)]
#[command(name = "firstfin", version, after_help = EXIT_STATUS, max_term_width = 100)]
pub struct Cli {
    /// Options of every command
    #[command(flatten)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses a command line; the first word is the program.
    ///
    /// # Errors
    /// What clap says of it, help and version among it.
    pub fn read<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.global.given = Given::of(&matches);
        Ok(cli)
    }
}

/// Which options were typed, as opposed to being the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// `--ring-size`
    pub ring_size: bool,
    /// `--max-sockets`
    pub max_sockets: bool,
    /// `--max-rung`
    pub max_rung: bool,
}

impl Given {
    fn of(matches: &ArgMatches) -> Self {
        let below = matches.subcommand().map(|(_, below)| below);
        let is_given = |id: &str| {
            let typed = |matches: &ArgMatches| {
                matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
            };
            typed(matches) || below.is_some_and(typed)
        };
        Self { ring_size: is_given("ring_size"), max_sockets: is_given("max_sockets"), max_rung: is_given("max_rung") }
    }
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Which of them were typed
    #[arg(skip)]
    pub given: Given,

    /// Use colours
    ///
    /// `auto` uses them on a terminal, and heeds NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM=dumb.
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,

    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Size of the ring buffer that carries events from the kernel (advanced)
    ///
    /// A power of two from 4KiB to 1GiB, in bytes or with the suffix KiB, MiB or GiB. A larger one survives longer
    /// bursts; what does not fit is lost, counted and reported.
    #[arg(long, global = true, value_name = "BYTES", default_value = "8MiB", value_parser = ring_size)]
    pub ring_size: u32,

    /// Use no better means than this (advanced)
    ///
    /// Each thing is observed by the best means that works on this kernel: fentry programs, else kprobes, else
    /// tracepoints. For hosts where the better ones are in doubt; `doctor` says what is lost.
    #[arg(long, global = true, value_name = "RUNG", default_value_t = MaxRung::Fentry)]
    pub max_rung: MaxRung,

    /// Number of sockets that can be followed at the same time (advanced)
    ///
    /// Costs about 230 bytes of kernel memory each, whether used or not. Sockets beyond it are counted and reported.
    #[arg(
        long, global = true, value_name = "N", default_value_t = 131_072,
        value_parser = clap::value_parser!(u32).range(1..=1 << 24),
    )]
    pub max_sockets: u32,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say what this host allows, and what is missing
    ///
    /// For each thing firstfin observes: by which means it can on this kernel, why not by a better one, what is lost by
    /// that, and what to change. Works without root, and says what it could not see then.
    Doctor(Doctor),

    /// Say who has a port now, and what bind() or connect() would say
    ///
    /// In every network namespace: the sockets that have the port, their processes and options, TIME_WAIT and how long it
    /// lasts, and whether a bind() would be granted, with which options, by the kernel's own rule. With --connect: how
    /// many ephemeral ports are left towards a destination, here. Looks once, attaches nothing and binds nothing.
    Why(Why),

    /// Print ends of connections and failures as they happen
    ///
    /// One line for each connection that ends, each bind(), listen() or connect() that fails; with --states one for
    /// each change of state. All filters have to match.
    Trace(Trace),

    /// Watch this host for a while, then say who causes what
    ///
    /// TIME_WAIT by process, refused bind() and listen() with the holder of the port, failed connect() by cause,
    /// resets, and findings with a remedy. Ctrl-C ends it early and still prints the report.
    Report(Report),

    /// Watch this host and look at it as it happens
    ///
    /// A view that fills the terminal and is drawn twice a second: TIME_WAIT by process and the kernel's limit, ephemeral
    /// ports by destination and how long they last, refused calls with the holder of the port, one process with its findings.
    /// `?` shows the keys, `q` quits. For a page to keep, or without a terminal, use `firstfin report`.
    Top(Top),

    /// Watch this host and write down what is seen, to look into it later or elsewhere
    ///
    /// A recording holds every end of a connection and every failure, with the sockets and the processes behind them:
    /// `firstfin replay` makes the report of it, on any machine and without root. Ctrl-C ends it; what a kill leaves can be
    /// replayed, too. It names processes, paths and addresses of this host: only its owner may read the file.
    Record(Record),

    /// Make the report of a recording
    ///
    /// The same report as the recorded session gave, or would have given. Needs neither root nor eBPF, and looks at nothing
    /// on this host.
    Replay(Replay),

    /// Say what a change would have made of a recording
    ///
    /// Plays a recording through a model of the kernel's choice of ports and of TIME_WAIT, as it was and with a change:
    /// TIME_WAIT, ports by destination, connect() calls that find no port, until when the ports last. Changes can be
    /// combined; --all tries each by itself. Needs neither root nor eBPF.
    WhatIf(WhatIf),

    /// Watch this host for good: metrics, alerts, a history
    ///
    /// Serves /metrics in the formats of Prometheus, /healthz, /readyz and the last report as JSON; sends alerts; keeps what
    /// `firstfin history` reads. Configured by a file, by flags and by environment variables; SIGHUP reads the file again,
    /// SIGTERM stops.
    Serve(Serve),
    /// Say what was seen in the past: last night, at 03:12
    ///
    /// Reads what `firstfin serve` keeps: findings with their evidence, TIME_WAIT by process and destination, ephemeral ports
    /// and failures, minute by minute. Works while it is written, and on a copy, without root.
    History(History),

    /// Watch a small misbehaving workload and report on it
    ///
    /// Starts processes with well-known mistakes in network namespaces of their own, and runs a real session against
    /// them. Nothing outside of these namespaces is touched, and nothing is left behind.
    Demo(Demo),

    /// Write the manual pages, completions, schemas and the command-line reference
    #[command(hide = true)]
    Generate(Generate),

    /// Be a process of the demo's workload
    #[command(hide = true)]
    DemoRole(DemoRole),
}

/// `firstfin doctor`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_DOCTOR)]
pub struct Doctor {
    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

/// `firstfin why`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_TRACE)]
pub struct Why {
    /// The port, or address and port: 8080, 10.0.0.1:8080, [::1]:8080
    #[arg(value_name = "PORT|ADDRESS:PORT", value_parser = place, required_unless_present = "connect")]
    pub place: Option<Place>,

    /// Say what connect() to this address and port would say, too
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = destination)]
    pub connect: Option<SocketAddr>,

    /// Form of the output; JSON is "firstfin.why/1"
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

/// `firstfin trace`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_TRACE)]
pub struct Trace {
    /// Print every change of state, not only the ends of connections
    #[arg(long)]
    pub states: bool,

    /// Only sockets of the process with this id
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// Only sockets of processes with this name, as the kernel keeps it (15 bytes at most)
    #[arg(long, value_name = "NAME", value_parser = comm)]
    pub comm: Option<String>,

    /// Only sockets with this local or remote port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Only sockets of this network namespace
    ///
    /// Its inode number, as `lsns -t net` shows it, or a path that leads to it: /run/netns/blue, /proc/PID/ns/net.
    #[arg(long, value_name = "INODE|PATH", value_parser = netns)]
    pub netns: Option<NetnsArg>,

    /// Only sockets of processes in this cgroup (v2)
    ///
    /// Its path, as /proc/PID/cgroup or the file system shows it, or its id.
    #[arg(long, value_name = "PATH|ID", value_parser = cgroup)]
    pub cgroup: Option<CgroupArg>,

    /// Form of the output; JSON is one object a line, "firstfin.event/1"
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,

    /// Stop after this time: 30s, 5m, 1h30m, 500ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Stop after this many lines
    #[arg(long, value_name = "N")]
    pub count: Option<NonZeroU64>,
}

/// `firstfin report`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct Report {
    /// How long to watch: 30s, 5m, 1h30m, 500ms
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub duration: Duration,

    /// Print a report of the session so far every TIME, too
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,

    /// Form of the output; JSON is "firstfin.report/1", with --interval one object a line
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,

    /// Exit with status 1 if there is a finding of this severity or a worse one
    #[arg(long, value_name = "SEVERITY")]
    pub fail_on: Option<Severity>,

    /// How many entries of each list to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,

    /// Write what was observed to this file, too: a recording for `firstfin replay`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Write the report as a page to this file, too: charts over time, and all of it in one file that loads nothing
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `firstfin top`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_TRACE)]
pub struct Top {
    /// Write what was observed to this file, too: a recording for `firstfin replay`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// `firstfin record`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_TRACE)]
pub struct Record {
    /// The file to write; what it held is replaced
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Stop after this time: 30s, 5m, 1h30m, 500ms. Without it, a signal ends it
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Replace every name and address, each by the same one everywhere
    #[arg(long)]
    pub redact: bool,
}

/// `firstfin replay`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_REPLAY)]
pub struct Replay {
    /// The recording, as `record`, or `report` and `demo` with --record, wrote it; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Make no report, but a copy in which every name and address is replaced, each by the same one everywhere
    #[arg(long, value_name = "COPY", conflicts_with_all = ["format", "fail_on", "top", "html"])]
    pub redact: Option<PathBuf>,

    /// Form of the output; JSON is "firstfin.report/1"
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,

    /// Exit with status 1 if there is a finding of this severity or a worse one
    #[arg(long, value_name = "SEVERITY")]
    pub fail_on: Option<Severity>,

    /// How many entries of each list to show [default: 10]; without N: play it in the live view of `firstfin top`
    ///
    /// Without N it stands behind FILE. The view stays when the recording has ended.
    #[arg(long, value_name = "N", num_args = 0..=1, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: Option<Option<u16>>,

    /// How much faster than it happened the live view plays it: 1 to 1000
    #[arg(
        long, value_name = "FACTOR", default_value_t = 1, requires = "top",
        value_parser = clap::value_parser!(u16).range(1..=1000),
    )]
    pub speed: u16,

    /// Write the report as a page to this file, too: charts over time, and all of it in one file that loads nothing
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `firstfin serve`
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = EXIT_STATUS_SERVE)]
pub struct Serve {
    /// The configuration. Without it: /etc/firstfin/firstfin.toml, if that is there
    #[arg(long, value_name = "FILE", env = "FIRSTFIN_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// Where the endpoint listens: 127.0.0.1:19293, [::1]:19293, off (http.listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<Listen>,

    /// How long a round is: 10s, 1m (observe.interval)
    #[arg(long, value_name = "TIME")]
    pub interval: Option<String>,

    /// Groups of processes that have series of their own (metrics.top)
    #[arg(long, value_name = "N")]
    pub top: Option<u16>,

    /// Set any key of the configuration; may be given more than once
    ///
    /// The value is TOML, or a string without quotes: --set metrics.top=20 --set 'metrics.labels=["process","netns"]'.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,

    /// Read the configuration, say what is wrong with it, and stop
    #[arg(long)]
    pub check_config: bool,

    /// Print the default configuration with its documentation, and stop
    #[arg(long, conflicts_with = "check_config")]
    pub print_default_config: bool,
}

/// `firstfin demo`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct Demo {
    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,

    /// Exit with status 1 if there is a finding of this severity or a worse one
    #[arg(long, value_name = "SEVERITY")]
    pub fail_on: Option<Severity>,

    /// Write what was observed to this file, too: a recording for `firstfin replay`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Write the report as a page to this file, too: charts over time, and all of it in one file that loads nothing
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `firstfin generate`
#[derive(Clone, Debug, Args)]
pub struct Generate {
    /// Folder to write into; made if it is not there
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// `firstfin demo-role`
#[derive(Clone, Debug, Args)]
pub struct DemoRole {
    /// Which one
    pub role: String,
    /// What it needs to know
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// The best means of observation that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MaxRung {
    /// fentry and fexit programs, and everything below
    Fentry,
    /// kprobes and kretprobes, and tracepoints
    Kprobe,
    /// Tracepoints
    Tracepoint,
}

impl MaxRung {
    /// As the plan has it.
    #[must_use]
    pub const fn rung(self) -> Rung {
        match self {
            Self::Fentry => Rung::Fentry,
            Self::Kprobe => Rung::Kprobe,
            Self::Tracepoint => Rung::Tracepoint,
        }
    }
}

impl fmt::Display for MaxRung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.rung().name())
    }
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests;
