//! `firstfin why`: who has a port now, and what bind() would say.

use crate::{
    cli::{Format, Global, Why},
    kernel::{
        addresses::is_local,
        held::{self, HeldInNetns},
        netns,
        processes::Procfs,
    },
    model::Netns,
    output,
    why::{Found, Question, answer},
};

pub(super) fn run(global: &Global, args: &Why) -> anyhow::Result<()> {
    let procfs = Procfs::host();
    let held = held::at_port(&procfs, args.place.port, None);
    let mut blind_spots: Vec<String> =
        held.unreachable.iter().map(|(netns, why)| format!("network namespace {netns}: {why}")).collect();
    if held.unreadable > 0 {
        blind_spots.push(format!("the open files of {} process(es) could not be read", held.unreadable));
    }
    let places = netns::discover(procfs.root()).namespaces;
    let found = held.namespaces.into_iter().map(|HeldInNetns { netns, sockets, settings }| {
        let is_local = args.place.address.and_then(|address| {
            let handle = places.iter().find(|handle| handle.netns == netns)?;
            netns::enter(handle, || is_local(address)).ok().flatten()
        });
        Found { netns, sockets, settings, is_local }
    });
    let question =
        Question { port: args.place.port, address: args.place.address, uid: rustix::process::geteuid().as_raw() };
    let own: Option<Netns> = netns::current().ok();
    let answer = answer(&question, own, found.collect(), blind_spots);
    output::write_stdout(&match args.format {
        Format::Text => output::text::why(&answer, output::terminal_width(), output::is_coloured(global.color)),
        Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
    })?;
    Ok(())
}
