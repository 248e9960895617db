//! Taking stock: a look at every socket from time to time, and the report that is made of the last one.

use std::{collections::HashSet, time::Duration};

use anyhow::Context as _;
use tokio::time::Instant;

use super::Session;
use crate::{
    kernel::{
        Losses,
        census::{self, boottime},
        held,
        processes::Procfs,
        sock_diag::DumpFilter,
    },
    model::{Census, Name},
    report::{Host, Report, SessionFacts, build, retain_relevant, sockets_to_name},
    state::Input,
};

/// A timewait socket is in a dump some microseconds before its event is in the ring buffer; longer if that CPU is taken
/// from a virtual machine in between. Rows without an event are waited for this long, this often.
const SETTLE: Duration = Duration::from_millis(20);
const SETTLE_ROUNDS: u32 = 10;

impl Session {
    /// Takes a census and makes the report of what was seen so far.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub async fn report(&mut self) -> anyhow::Result<Report> {
        let (census, facts) = self.take_stock(false).await?;
        Ok(build(&self.state, &census, &facts))
    }

    /// Takes the last census, makes the report of the session, and ends the recording. `interrupted`: it was ended
    /// before its time.
    ///
    /// # Errors
    /// The kernel's counters cannot be read, or the recording not be written.
    pub async fn finish(mut self, interrupted: bool) -> anyhow::Result<Report> {
        let (mut census, mut facts) = self.take_stock(interrupted).await?;
        self.name_sockets(&mut census, &mut facts);
        if let Some(recording) = self.recording.take() {
            recording.end(&census, &facts).context("write the recording")?;
        }
        Ok(build(&self.state, &census, &facts))
    }

    pub(super) async fn take_stock(&mut self, interrupted: bool) -> anyhow::Result<(Census, SessionFacts)> {
        self.drain(&mut |_, _| Ok(()))?;
        self.finish_lookups().await;
        if let Some(census) = self.reconciling.take()
            && let Ok(census) = census.await
        {
            self.feed(Input::Census(census));
        }
        let procfs = self.procfs.clone();
        let census = tokio::task::spawn_blocking(move || take_census(&procfs)).await.context("take a census")?;
        for _ in 0..SETTLE_ROUNDS {
            tokio::time::sleep(SETTLE).await;
            self.drain(&mut |_, _| Ok(()))?;
            if !self.state.has_unseen(&census) {
                break;
            }
        }
        let Losses { lost, sockets_not_followed, calls_not_followed, details_missed, read_faults } = self.losses()?;
        let mut blind_spots = self.blind_spots.clone();
        if calls_not_followed > 0 {
            blind_spots.push(format!("{calls_not_followed} bind() or listen() calls could not be followed"));
        }
        if details_missed > 0 {
            blind_spots.push(format!(
                "{details_missed} times a detail of a connection was not seen (who accepted it, or why its connect() found \
                 no port)"
            ));
        }
        if read_faults > 0 {
            blind_spots.push(format!("{read_faults} reads of kernel memory failed"));
        }
        let alive: HashSet<_> = self.state.mentioned().into_iter().filter(|&key| self.procfs.is_alive(key)).collect();
        let facts = SessionFacts {
            host: host(),
            started_at: format!("{:.3}", self.started_at),
            duration: boottime().since(self.state.started()),
            interrupted,
            hooks: self.plan().hooks(),
            blind_spots,
            lost,
            sockets_not_followed,
            malformed: self.malformed,
            bytes: self.programs.get_ref().bytes(),
            alive,
            socket_owners: Vec::new(),
            port_searches: self.programs.get_ref().port_searches()?,
        };
        Ok((census, facts))
    }

    /// Looks for who has the sockets open that a report names, and for those that take ports and are not listed. It is a
    /// walk over the open files of every process, so it is done once, at the end, and where there is a reason.
    pub(super) fn name_sockets(&mut self, census: &mut Census, facts: &mut SessionFacts) {
        let is_out_of_ports = self.state.has_run_out_of_ports();
        if !is_out_of_ports && sockets_to_name(&self.state, census).is_empty() {
            return;
        }
        let holders = self.procfs.socket_holders();
        if is_out_of_ports {
            held::add_bound_only(&self.procfs, || &holders, None, census);
        }
        let wanted = sockets_to_name(&self.state, census);
        for (inode, processes) in holders.by_inode.into_iter().filter(|(inode, _)| wanted.contains(inode)) {
            if let Some(process) = processes.first() {
                facts.socket_owners.push((inode, process.key));
                facts.alive.insert(process.key);
                self.feed(Input::Process(process.clone()));
            }
        }
        facts.socket_owners.sort_unstable_by_key(|(inode, _)| *inode);
    }

    pub(super) fn begin_reconciliation(&mut self) {
        if self.reconciling.is_none() {
            let procfs = self.procfs.clone();
            self.reconciled = Some(Instant::now());
            self.reconciling = Some(tokio::task::spawn_blocking(move || take_census(&procfs)));
        }
    }
}

/// Every timewait socket, and what else tells about ephemeral ports.
fn take_census(procfs: &Procfs) -> Census {
    let mut census = census::take(procfs, &DumpFilter::all(), None, &boottime);
    census.namespaces.iter_mut().for_each(retain_relevant);
    census
}

fn host() -> Host {
    let uname = rustix::system::uname();
    Host {
        name: Name::from_bytes(uname.nodename().to_bytes()),
        kernel: Name::from_bytes(uname.release().to_bytes()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
