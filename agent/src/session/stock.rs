//! Taking stock: a look at every socket from time to time, and the report that is made of the last one.

use std::{collections::HashSet, time::Duration};

use anyhow::Context as _;
use tokio::{task::JoinHandle, time::Instant};

use super::{Session, Unheard, counted::Counted};
use crate::{
    course::Course,
    kernel::{
        Losses,
        census::{self, boottime},
        held,
        processes::Procfs,
        sock_diag::DumpFilter,
    },
    model::{Census, Name, ProcessKey, Timestamp},
    recording::Played,
    report::{Host, Report, SessionFacts, build, retain_relevant, sockets_to_name},
    state::Input,
};

/// A timewait socket is in a dump some microseconds before its event is in the ring buffer; longer if that CPU is taken
/// from a virtual machine in between. Rows without an event are waited for this long, this often.
const SETTLE: Duration = Duration::from_millis(20);
const SETTLE_ROUNDS: u32 = 10;

impl Session {
    /// Takes a census and makes the report of what was seen since the session began or, if there were
    /// [windows](Self::window), since the last one.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub async fn report(&mut self) -> anyhow::Result<Report> {
        let census = self.take_stock().await?;
        let facts = self.facts(boottime(), &self.counted()?, &HashSet::new());
        Ok(build(&self.state, &census, &facts))
    }

    /// Takes the last census, makes the report as [`report`](Self::report) does, and ends the recording. `interrupted`: the
    /// session was ended before its time.
    ///
    /// # Errors
    /// The kernel's counters cannot be read, or the recording not be written.
    pub async fn finish(self, interrupted: bool) -> anyhow::Result<Report> {
        Ok(self.end(interrupted).await?.0.report())
    }

    /// The same; what the report is made from, and the course of the session if it was [followed](Self::follow).
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish).
    pub async fn end(mut self, interrupted: bool) -> anyhow::Result<(Played, Option<Course>)> {
        let mut census = self.take_stock().await?;
        let facts = self.facts(boottime(), &self.counted()?, &HashSet::new());
        let mut facts = SessionFacts { interrupted, ..facts };
        self.name_sockets(&mut census, &mut facts);
        if let Some(recording) = self.recording.take() {
            recording.end(&census, &facts).context("write the recording")?;
        }
        if let Some(course) = &mut self.course {
            course.end(&self.state, &census, &facts);
        }
        Ok((Played { state: self.state, census, facts }, self.course))
    }

    /// Takes in what has come, takes a census, and takes in what came meanwhile.
    pub(super) async fn take_stock(&mut self) -> anyhow::Result<Census> {
        self.drain(&mut Unheard)?;
        self.finish_lookups().await;
        if let Some(census) = self.reconciling.take()
            && let Ok(census) = census.await
        {
            self.feed(Input::Census(census));
        }
        let procfs = self.procfs.clone();
        let census = self.meanwhile(tokio::task::spawn_blocking(move || take_census(&procfs))).await?;
        for _ in 0..SETTLE_ROUNDS {
            tokio::time::sleep(SETTLE).await;
            self.drain(&mut Unheard)?;
            if !self.state.has_unseen(&census) {
                break;
            }
        }
        Ok(census)
    }

    /// Takes in what comes until `task` has its answer, so that the ring buffer does not fill up.
    pub(super) async fn meanwhile<T>(&mut self, mut task: JoinHandle<T>) -> anyhow::Result<T> {
        loop {
            match tokio::time::timeout(SETTLE, &mut task).await {
                Ok(answer) => return answer.context("look at the host"),
                Err(_) => self.drain(&mut Unheard)?,
            }
        }
    }

    /// What a report of the time until `at` says of its session, by which so much was `counted`. `gone`: processes that are
    /// known not to run any more.
    pub(super) fn facts(&self, at: Timestamp, counted: &Counted, gone: &HashSet<ProcessKey>) -> SessionFacts {
        let counted = counted.since(&self.told);
        let Losses { lost, sockets_not_followed, calls_not_followed, details_missed, read_faults } = counted.losses;
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
        blind_spots.extend(self.procfs.containers().blind_spot());
        let mentioned = self.state.mentioned().into_iter();
        let alive = mentioned.filter(|key| !gone.contains(key) && self.procfs.is_alive(*key)).collect();
        SessionFacts {
            host: host(),
            started_at: format!("{:.3}", self.window_at),
            duration: at.since(self.state.window_began()),
            interrupted: false,
            hooks: self.plan().hooks(),
            blind_spots,
            lost,
            sockets_not_followed,
            malformed: counted.malformed,
            bytes: counted.bytes,
            alive,
            socket_owners: Vec::new(),
            port_searches: counted.port_searches,
            handshakes: counted.handshakes,
            is_window: false,
            lost_before: self.told.has_losses(),
        }
    }

    /// What was counted since the session began.
    pub(super) fn counted(&self) -> anyhow::Result<Counted> {
        let programs = self.programs.get_ref();
        Ok(Counted {
            losses: programs.losses()?,
            malformed: self.malformed,
            bytes: programs.bytes(),
            port_searches: programs.port_searches()?,
            handshakes: programs.handshakes()?,
        })
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
            self.reconciled = Instant::now();
            self.has_reconciled = true;
            self.found_no_port = false;
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
