//! `firstfin why`: who has a port now, and what bind() or connect() would say.

use std::net::SocketAddr;

use crate::{
    cli::{Format, Global, Place, Why},
    kernel::{
        addresses::is_local,
        census::{self, boottime},
        held::{self, HeldInNetns},
        netns,
        processes::Procfs,
        sock_diag::DumpFilter,
    },
    model::Netns,
    output,
    why::{self, Answer, BindAnswer, ConnectAnswer, Found, Question, SCHEMA},
};

pub(super) fn run(global: &Global, args: &Why) -> anyhow::Result<()> {
    let procfs = Procfs::host();
    let own = netns::current().ok();
    let mut blind_spots = Vec::new();
    let answer = Answer {
        schema: SCHEMA.to_owned(),
        bind: args.place.map(|place| bind(&procfs, own, place, &mut blind_spots)),
        connect: args.connect.and_then(|remote| connect(&procfs, own, remote, &mut blind_spots)),
        blind_spots,
    };
    output::write_stdout(&match args.format {
        Format::Text => output::text::why(&answer, output::terminal_width(), output::is_coloured(global.color)),
        Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
    })?;
    Ok(())
}

fn bind(procfs: &Procfs, own: Option<Netns>, place: Place, blind_spots: &mut Vec<String>) -> BindAnswer {
    let held = held::at_port(procfs, &procfs.socket_holders(), place.port, None);
    blind_spots.extend(held.unreachable.iter().map(|(netns, why)| format!("network namespace {netns}: {why}")));
    if held.unreadable > 0 {
        blind_spots.push(format!("the open files of {} process(es) could not be read", held.unreadable));
    }
    let places = place.address.map(|address| (address, netns::discover(procfs.root()).namespaces));
    let found = held.namespaces.into_iter().map(|HeldInNetns { netns, sockets, settings }| {
        let is_local = places.as_ref().and_then(|(address, places)| {
            let handle = places.iter().find(|handle| handle.netns == netns)?;
            netns::enter(handle, || is_local(*address)).ok().flatten()
        });
        Found { netns, sockets, settings, is_local }
    });
    let question = Question { port: place.port, address: place.address, uid: rustix::process::geteuid().as_raw() };
    why::bind(&question, own, found.collect())
}

fn connect(
    procfs: &Procfs,
    own: Option<Netns>,
    remote: SocketAddr,
    blind_spots: &mut Vec<String>,
) -> Option<ConnectAnswer> {
    let only = own.into_iter().collect();
    let mut census = census::take(procfs, &DumpFilter::all(), Some(&only), &boottime);
    held::add_bound_only(procfs, || procfs.socket_holders(), None, &mut census);
    blind_spots.extend(census.unreachable.iter().map(|(netns, why)| format!("network namespace {netns}: {why}")));
    census.namespaces.first().map(|namespace| why::connect(remote, namespace))
}
