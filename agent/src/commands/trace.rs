//! `firstfin trace`: events as they happen.

use std::{io, os::linux::fs::MetadataExt as _, path::Path, process::ExitCode, time::Duration};

use agent_ebpf::{Detail, Filter};
use anyhow::{Context as _, bail};
use tokio::sync::Notify;

use super::{Interrupt, settings};
use crate::{
    cli::{CgroupArg, Format, Global, NetnsArg, Trace},
    kernel::netns,
    model::{Event, Process},
    output::{self, Clock, lines::Lines},
    session::{Session, Sink},
};

/// Longer than any trace.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub(super) async fn run(global: &Global, args: &Trace) -> anyhow::Result<ExitCode> {
    let filter = filter(args)?;
    let mut interrupt = Interrupt::listen()?;
    let detail = if args.states { Detail::States } else { Detail::Ends };
    let mut session = Session::start(&settings(global, detail, filter), None)?;
    session.only_tell();
    for spot in session.blind_spots() {
        log::warn!("{spot}");
    }
    let (wall, boot) = session.started();
    let lines = Lines {
        clock: Clock::new(wall, boot, jiff::tz::TimeZone::system()),
        with_states: args.states,
        host_netns: netns::current().ok(),
    };
    if args.format == Format::Text {
        output::write_stdout(lines.header())?;
    }
    let mut printer = Printer {
        lines,
        format: args.format,
        left: args.count.map(std::num::NonZeroU64::get),
        pending: Vec::new(),
        enough: &Notify::new(),
    };
    let enough = printer.enough;
    let until = async {
        tokio::select! {
            () = tokio::time::sleep(args.duration.unwrap_or(FOREVER)) => {}
            () = interrupt.first() => {}
            () = enough.notified() => {}
        }
    };
    session.observe(until, &mut printer).await?;
    let losses = session.losses()?;
    if losses.lost.total() + losses.sockets_not_followed > 0 {
        eprintln!(
            "firstfin: {} events were lost and {} sockets not followed: this trace is incomplete",
            losses.lost.total(),
            losses.sockets_not_followed
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints lines, as many as are wanted. Those that come together are written together.
struct Printer<'a> {
    lines: Lines,
    format: Format,
    /// How many are wanted still; none: all
    left: Option<u64>,
    pending: Vec<u8>,
    enough: &'a Notify,
}

/// What a pipe takes at once: more lines are not kept back.
const PENDING: usize = 1 << 16;

impl Sink for Printer<'_> {
    fn event(&mut self, event: &Event, owner: Option<&Process>) -> io::Result<()> {
        if self.left == Some(0) {
            return Ok(());
        }
        let is_shown = match self.format {
            Format::Text => self.lines.write_text(event, owner, &mut self.pending),
            Format::Json => self.lines.write_json(event, owner, &mut self.pending).map_err(io::Error::from)?,
        };
        if is_shown && let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.enough.notify_one();
            }
        }
        if self.pending.len() >= PENDING { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            output::write_stdout(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

/// What was typed, as the programs compare it.
fn filter(args: &Trace) -> anyhow::Result<Filter> {
    let mut filter = Filter {
        tgid: args.pid.unwrap_or_default(),
        port: args.port.map(u32::from).unwrap_or_default(),
        ..Filter::default()
    };
    if let Some(comm) = &args.comm {
        filter.has_comm = 1;
        for (to, from) in filter.comm.iter_mut().zip(comm.bytes()) {
            *to = from;
        }
    }
    filter.netns = match &args.netns {
        None => 0,
        Some(NetnsArg::Inode(inode)) => *inode,
        Some(NetnsArg::Path(path)) => {
            u32::try_from(inode(path)?).with_context(|| format!("{} is no namespace", path.display()))?
        }
    };
    filter.cgroup = match &args.cgroup {
        None => 0,
        Some(CgroupArg::Id(id)) => *id,
        Some(CgroupArg::Path(path)) => cgroup_id(path)?,
    };
    Ok(filter)
}

fn inode(path: &Path) -> anyhow::Result<u64> {
    Ok(path.metadata().with_context(|| format!("look up {}", path.display()))?.st_ino())
}

/// The id of a cgroup is the inode number of its folder in the v2 hierarchy.
fn cgroup_id(path: &Path) -> anyhow::Result<u64> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let candidates = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|root| Path::new(root).join(relative));
    // CGROUP2_SUPER_MAGIC, include/uapi/linux/magic.h
    let is_v2 = |path: &Path| rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == 0x6367_7270);
    match [path.to_owned()].into_iter().chain(candidates).find(|path| is_v2(path)) {
        Some(found) => inode(&found),
        None => bail!(
            "{} is not a cgroup of the v2 hierarchy: give a path as /proc/PID/cgroup shows it after `0::`, or its folder",
            path.display()
        ),
    }
}
