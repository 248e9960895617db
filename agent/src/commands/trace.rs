//! `firstfin trace`: events as they happen.

use std::{cell::Cell, io, os::linux::fs::MetadataExt as _, path::Path, process::ExitCode, time::Duration};

use agent_ebpf::Filter;
use anyhow::{Context as _, bail};
use tokio::sync::Notify;

use super::{Interrupt, settings};
use crate::{
    cli::{CgroupArg, Format, Global, NetnsArg, Trace},
    kernel::netns,
    model::{Event, Process},
    output::{self, Clock, lines::Lines},
    session::Session,
};

/// Longer than any trace.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub(super) async fn run(global: &Global, args: &Trace) -> anyhow::Result<ExitCode> {
    let filter = filter(args)?;
    let mut interrupt = Interrupt::listen()?;
    let mut session = Session::start(&settings(global, args.states, filter), None)?;
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
        output::write_stdout(&lines.header())?;
    }
    let left = Cell::new(args.count.map(std::num::NonZeroU64::get));
    let enough = Notify::new();
    let mut print = |event: &Event, owner: Option<&Process>| -> io::Result<()> {
        if left.get() == Some(0) {
            return Ok(());
        }
        let line = match args.format {
            Format::Text => lines.text(event, owner),
            Format::Json => lines.json(event, owner).map_err(io::Error::from)?,
        };
        let Some(line) = line else { return Ok(()) };
        output::write_stdout(&line)?;
        left.set(left.get().map(|count| count - 1));
        if left.get() == Some(0) {
            enough.notify_one();
        }
        Ok(())
    };
    let until = async {
        tokio::select! {
            () = tokio::time::sleep(args.duration.unwrap_or(FOREVER)) => {}
            () = interrupt.first() => {}
            () = enough.notified() => {}
        }
    };
    session.observe(until, &mut print).await?;
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
