//! The daemon: rounds, what is told of them, signals.
//!
//! The order at the start is what the privileges ask for: listen, attach the programs, give up what only that takes, and
//! only then have threads and an event loop, which begin without it. One thread reads events and makes reports; whoever is
//! told of a report takes it in without waiting for anybody, and has a thread of its own for what takes long.

mod configuration;
mod daemon;
mod manager;
mod outputs;
mod signals;

use std::{sync::Arc, time::Duration};

use agent_ebpf::{Detail, Filter};
use anyhow::Context as _;

pub use self::outputs::Output;
use self::{configuration::Configuration, daemon::Daemon, manager::Manager};
use crate::{
    config::{Config, Listen, Source},
    http::{Server, Shared, listen},
    kernel::{Settings, containers::Containers, host, privileges, processes::Procfs},
    session::{Attached, Session},
};

/// What ends with the daemon gets this long once it is told to stop: with what happens before and after, it is gone within
/// five seconds.
const LAST_THREADS: Duration = Duration::from_millis(300);

/// Watches until it is told to stop. `source` is where `config` is from, and is read again at SIGHUP.
///
/// # Errors
/// It could not begin to; or the event loop broke.
pub fn run(config: Config, source: Source) -> anyhow::Result<()> {
    let started_at = since_epoch();
    // First of all: a port that is taken is found out before anything is attached.
    let listener = match config.http.listen {
        Listen::At(at) => Some(listen(at)?),
        Listen::Off => None,
    };
    let settings = settings(&config);
    let attached = Attached::attach(&settings)?;
    give_up_privileges()?;

    let shared = Arc::new(Shared::new(started_at, config.observe.interval));
    let server = listener.map(|listener| Server::start(listener, Arc::clone(&shared))).transpose();
    let server = server.context("start the thread of the endpoint")?;
    if let Some(server) = &server {
        log::info!("the endpoint listens at http://{}", server.at());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let result = runtime.block_on(async {
        let procfs = Procfs::host().naming(Containers::new(&config.containers));
        let session = Session::begin(attached, &settings, procfs, None)?;
        let configuration = Configuration::new(config, source);
        Daemon::new(session, configuration, Arc::clone(&shared), Manager::from_environment())?.run().await
    });
    // A look at the host that takes long is not waited for.
    runtime.shutdown_timeout(LAST_THREADS);
    if let Some(server) = server {
        server.stop();
    }
    result
}

fn settings(config: &Config) -> Settings {
    let observe = &config.observe;
    Settings {
        detail: Detail::Report,
        filter: Filter::default(),
        ring_bytes: observe.ring_size,
        max_sockets: observe.max_sockets,
        highest_rung: observe.max_rung,
    }
}

/// Gives up what is not needed once the programs are attached. What should be there and is not is in the report: as a
/// namespace that was not looked into, a process that could not be read.
fn give_up_privileges() -> anyhow::Result<()> {
    let needed = privileges::needed_later(&host::release());
    let left = privileges::keep_only(needed).context("give up privileges")?;
    log::info!("capabilities that are left: {}", privileges::names(left).join(" "));
    let missing = privileges::names(needed - left);
    if !missing.is_empty() {
        log::warn!("capabilities that are missing (docs/capabilities.md says what for): {}", missing.join(" "));
    }
    Ok(())
}

/// The wall clock, since 1970.
fn since_epoch() -> Duration {
    jiff::Timestamp::now().as_duration().try_into().unwrap_or_default()
}
