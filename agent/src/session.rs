//! A running session: the only place with a clock and an event loop.
//!
//! One task reads the ring buffer and feeds the state; there is no second writer and no lock. What takes long (a census,
//! the search for the holders of a port) runs on a thread of its own, and its result is fed in like an event.

use std::{collections::HashSet, io, net::IpAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    kernel::{
        Losses, Programs, Settings, StartError,
        census::{self, boottime},
        held,
        plan::{Plan, Rung},
        processes::Procfs,
        sock_diag::DumpFilter,
    },
    model::{
        Call, Census, ConnectFailure, Ending, Event, HeldSocket, Name, Process, ProcessKey, RefusedCall, SocketHolders,
        TcpState, Timestamp, errno,
    },
    recording,
    report::{Host, Report, SessionFacts, build, retain_relevant, sockets_to_name},
    rules,
    state::{
        Attribution, Input, Limits, State,
        failures::{HolderSeen, HoldersSeen, RefusedKey},
    },
};

/// How often the ring buffer is looked at when nothing wakes the agent: what a reader of `trace` waits at most.
const POLL: Duration = Duration::from_millis(100);
/// How often the ledger is cleaned of timewait sockets that are gone, and the ports in use are counted. A dump of 30,000
/// sockets takes some 10 ms, so this is about a thousandth of a CPU, and a sixth of the 60 s an entry lives.
const RECONCILE: Duration = Duration::from_secs(10);
/// How soon after the last census one is taken because a call found no port: what took the ports is there now, and may be
/// gone at the next one's turn.
const RECONCILE_EARLY: Duration = Duration::from_secs(5);
/// A timewait socket is in a dump some microseconds before its event is in the ring buffer; longer if that CPU is taken
/// from a virtual machine in between. Rows without an event are waited for this long, this often.
const SETTLE: Duration = Duration::from_millis(20);
const SETTLE_ROUNDS: u32 = 10;
/// Refusals whose holders are being looked for or wait for it. One that finds no room is looked for at its next time.
const MAX_PENDING_LOOKUPS: usize = 64;

/// A session that observes.
pub struct Session {
    programs: AsyncFd<Programs>,
    state: State,
    procfs: Procfs,
    recording: Option<recording::Writer>,
    started_at: jiff::Timestamp,
    blind_spots: Vec<String>,
    malformed: u64,
    pending: Vec<RefusedCall>,
    lookup: Option<JoinHandle<Vec<(RefusedCall, Found)>>>,
    reconciling: Option<JoinHandle<Census>>,
    /// When the last one was begun
    reconciled: Option<Instant>,
    /// Only certain processes are asked for
    wants_owners: bool,
}

/// What a search for the holders of a port brings back.
type Found = Result<Vec<HeldSocket>, String>;

impl Session {
    /// Attaches the programs and takes stock of what is there. Needs a tokio runtime.
    ///
    /// # Errors
    /// The host lacks something; nothing is left attached.
    pub fn start(settings: &Settings, recording: Option<Box<dyn io::Write>>) -> Result<Self, StartError> {
        let started = boottime();
        let started_at = jiff::Timestamp::now();
        let programs = Programs::attach(settings)?;
        let blind_spots = programs.plan().blind_spots();
        let setup_failed = |what: &str, error: &dyn std::fmt::Display| StartError {
            missing: format!("{what}: {error}"),
            meaning: "the session cannot be run".to_owned(),
            remedy: "make room for it: descriptors (ulimit -n), memory, disk space".to_owned(),
            source: None,
        };
        let mut session = Self {
            // SAFETY: the descriptor is that of the ring buffer, which `programs` owns and neither closes nor replaces
            // before it is dropped; and `AsyncFd` drops it only after it has deregistered the descriptor.
            programs: unsafe { AsyncFd::register_with_interest(programs, Interest::READABLE) }
                .map_err(|error| setup_failed("the ring buffer cannot be waited for", &error))?,
            state: State::new(started, Limits::default()),
            procfs: Procfs::host(),
            recording: recording
                .map(|out| recording::Writer::begin(out, started))
                .transpose()
                .map_err(|error| setup_failed("the recording cannot be written", &error))?,
            started_at,
            blind_spots,
            malformed: 0,
            pending: Vec::new(),
            lookup: None,
            reconciling: None,
            reconciled: None,
            wants_owners: settings.filter.names_a_process(),
        };
        let unseen = session.plan().steps.iter().filter(|step| step.rung == Rung::None);
        let unseen: Vec<String> = unseen
            .map(|step| {
                let why = step.not_higher.last().map_or("", |(_, why)| why.as_str());
                format!("{}: not seen at all: {why}", step.observed.name())
            })
            .collect();
        session.blind_spots.extend(unseen);
        // After attaching, so that nothing falls between: what ends from here on has an event.
        let census = census::take(&session.procfs, &DumpFilter::all(), None, &boottime);
        let holders = session.procfs.socket_holders();
        if holders.unreadable > 0 {
            session.blind_spots.push(format!(
                "the open files of {} process(es) could not be read: sockets older than the session may lack an owner",
                holders.unreadable
            ));
        }
        session.feed(Input::Begin { census, holders });
        Ok(session)
    }

    /// What was carried out.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.programs.get_ref().plan()
    }

    /// What the session has to do without, in words.
    #[must_use]
    pub fn blind_spots(&self) -> &[String] {
        &self.blind_spots
    }

    /// Since when it observes, on the wall clock and as events are stamped.
    #[must_use]
    pub const fn started(&self) -> (jiff::Timestamp, Timestamp) {
        (self.started_at, self.state.started())
    }

    /// What is known so far.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Observes until `until` is done, handing every event to `sink` before the state takes it in, and the owner of the
    /// timewait socket it is about.
    ///
    /// # Errors
    /// `sink` fails; or the event loop does.
    pub async fn observe<F: Future>(
        &mut self,
        until: F,
        sink: &mut dyn FnMut(&Event, Option<&Process>) -> io::Result<()>,
    ) -> anyhow::Result<F::Output> {
        tokio::pin!(until);
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reconcile = tokio::time::interval_at(Instant::now() + RECONCILE, RECONCILE);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                result = &mut until => {
                    self.drain(sink)?;
                    return Ok(result);
                }
                ready = self.programs.readable_mut() => ready.context("wait for the ring buffer")?.clear_ready(),
                _ = poll.tick() => {}
                _ = reconcile.tick() => self.begin_reconciliation(),
            }
            self.drain(sink)?;
            self.collect().await;
        }
    }

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

    /// What the kernel could not tell so far.
    ///
    /// # Errors
    /// Its counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<Losses> {
        self.programs.get_ref().losses()
    }

    async fn take_stock(&mut self, interrupted: bool) -> anyhow::Result<(Census, SessionFacts)> {
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
            alive,
            socket_owners: Vec::new(),
            port_searches: self.programs.get_ref().port_searches()?,
        };
        Ok((census, facts))
    }

    /// Looks for who has the sockets open that a report names, and for those that take ports and are not listed. It is a
    /// walk over the open files of every process, so it is done once, at the end, and where there is a reason.
    fn name_sockets(&mut self, census: &mut Census, facts: &mut SessionFacts) {
        let is_out_of_ports = self.state.has_run_out_of_ports();
        if !is_out_of_ports && sockets_to_name(&self.state, census).is_empty() {
            return;
        }
        let holders = self.procfs.socket_holders();
        if is_out_of_ports {
            held::add_bound_only(&self.procfs, &holders, census);
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

    fn feed(&mut self, input: Input) {
        if let Some(recording) = &mut self.recording
            && let Err(error) = recording.input(&input)
        {
            log::error!("the recording ends here: {error}");
            self.blind_spots.push(format!("the recording is cut off: {error}"));
            self.recording = None;
        }
        self.state.feed(input);
    }

    fn drain(&mut self, sink: &mut dyn FnMut(&Event, Option<&Process>) -> io::Result<()>) -> io::Result<()> {
        let mut events = Vec::new();
        let mut malformed = 0;
        self.programs.get_mut().drain(&mut |decoded| match decoded {
            Ok(event) => events.push(event),
            Err(error) => {
                log::debug!("record not understood: {error}");
                malformed += 1;
            }
        });
        self.malformed += malformed;
        if events.iter().any(found_no_port) && self.reconciled.is_none_or(|at| at.elapsed() >= RECONCILE_EARLY) {
            self.begin_reconciliation();
        }
        for event in events {
            let owner = match &event {
                Event::TimeWait(event) => self.state.owner_of(event),
                _ => None,
            };
            // Whose a timewait socket is the kernel does not know, so this part of a filter is applied here.
            let is_foreign = self.wants_owners && owner.is_none() && matches!(event, Event::TimeWait(_));
            if !is_foreign {
                sink(&event, owner)?;
            }
            match &event {
                Event::ProcessSeen(task) if !task.is_kernel_thread => {
                    let process = self.procfs.describe(task);
                    self.feed(Input::Process(process));
                    self.feed(Input::Event(event));
                }
                Event::Refused(call) => {
                    let call = call.clone();
                    self.feed(Input::Event(event));
                    self.want_holders(call);
                }
                _ => self.feed(Input::Event(event)),
            }
        }
        self.begin_lookup();
        Ok(())
    }

    fn want_holders(&mut self, call: RefusedCall) {
        let key = RefusedKey::of(&call);
        if key.is_about_a_holder()
            && self.pending.len() < MAX_PENDING_LOOKUPS
            && self.state.wants_holders(&call)
            && !self.pending.iter().any(|pending| RefusedKey::of(pending) == key)
        {
            self.pending.push(call);
        }
    }

    fn begin_lookup(&mut self) {
        if self.lookup.is_some() || self.pending.is_empty() {
            return;
        }
        let calls = std::mem::take(&mut self.pending);
        let procfs = self.procfs.clone();
        self.lookup = Some(tokio::task::spawn_blocking(move || {
            // Before the rows: what is listed then and not here yet has no process, and is not put behind another one.
            let holders = procfs.socket_holders();
            calls
                .into_iter()
                .map(|call| {
                    let found = look_for_holders(&procfs, &holders, &call);
                    (call, found)
                })
                .collect()
        }));
    }

    fn begin_reconciliation(&mut self) {
        if self.reconciling.is_none() {
            let procfs = self.procfs.clone();
            self.reconciled = Some(Instant::now());
            self.reconciling = Some(tokio::task::spawn_blocking(move || take_census(&procfs)));
        }
    }

    /// Takes in what the other threads have finished.
    async fn collect(&mut self) {
        if let Some(census) = self.reconciling.take_if(|task| task.is_finished())
            && let Ok(census) = census.await
        {
            self.feed(Input::Census(census));
        }
        if let Some(lookup) = self.lookup.take_if(|task| task.is_finished()) {
            self.take_holders(lookup).await;
        }
    }

    async fn finish_lookups(&mut self) {
        while let Some(lookup) = self.lookup.take() {
            self.take_holders(lookup).await;
            self.begin_lookup();
        }
    }

    async fn take_holders(&mut self, lookup: JoinHandle<Vec<(RefusedCall, Found)>>) {
        let answers = match lookup.await {
            Ok(answers) => answers,
            Err(error) => return log::error!("the search for holders failed: {error}"),
        };
        for (call, found) in answers {
            let holders = match found {
                Ok(sockets) => self.name_holders(&call, sockets),
                Err(why) => HoldersSeen::Failed(why),
            };
            self.feed(Input::Holders { call, holders });
        }
    }

    fn name_holders(&mut self, call: &RefusedCall, sockets: Vec<HeldSocket>) -> HoldersSeen {
        let dumped = boottime();
        let mut seen = Vec::with_capacity(sockets.len());
        for HeldSocket { row, processes, options } in sockets {
            let mut keys: Vec<ProcessKey> = processes.iter().map(|process| process.key).collect();
            for process in processes {
                self.feed(Input::Process(process));
            }
            let (owner, options) = if keys.is_empty() {
                let owner = match self.state.attribute(&row, dumped, false) {
                    Attribution::Process(key, _) => Some(key),
                    Attribution::Unknown(_) => None,
                };
                (owner, self.state.options_kept(&row, dumped))
            } else {
                (Some(keys.remove(0)), options)
            };
            // The socket whose listen() was refused is bound to the port itself.
            let is_refused_one =
                call.call == Call::Listen && row.state == TcpState::BoundInactive && owner == Some(call.task.key);
            if !is_refused_one {
                seen.push(HolderSeen { row, owner, others: keys, options });
            }
        }
        if seen.is_empty() {
            return HoldersSeen::Failed(
                "no socket that has this address and port was found in its namespace any more: it was let go in the \
                 meantime, or (before Linux 6.8, which lists no socket that is bound and nothing else) its process may \
                 not be looked at"
                    .to_owned(),
            );
        }
        HoldersSeen::Found(seen)
    }
}

/// A connect(), a bind() to port 0 or a listen() without bind() found no port.
fn found_no_port(event: &Event) -> bool {
    match event {
        Event::Transition(end) => end.ending() == Some(Ending::ConnectFailed(ConnectFailure::NoFreePort)),
        Event::Refused(call) => call.errno == errno::EADDRINUSE && call.local.is_some_and(|local| local.port() == 0),
        _ => false,
    }
}

/// Every timewait socket, and what else tells about ephemeral ports.
fn take_census(procfs: &Procfs) -> Census {
    let mut census = census::take(procfs, &DumpFilter::all(), None, &boottime);
    census.namespaces.iter_mut().for_each(retain_relevant);
    census
}

/// Every socket of the namespace that has what the call asked for. A socket whose bind() was refused has no port.
fn look_for_holders(procfs: &Procfs, holders: &SocketHolders, call: &RefusedCall) -> Found {
    let Some(asked) = call.local else { return Err("what it asked for could not be read".to_owned()) };
    let is_overlap = |held: IpAddr| rules::is_overlap(asked.ip(), call.options.v6_only, held, false);
    let mut found = held::at_port(procfs, holders, asked.port(), Some(call.netns));
    let Some(namespace) = found.namespaces.pop() else {
        let why = found.unreachable.pop().map_or_else(|| "its namespace was not found".to_owned(), |(_, why)| why);
        return Err(why);
    };
    let mut sockets = namespace.sockets;
    sockets.retain(|socket| is_overlap(socket.row.connection.local.ip()));
    Ok(sockets)
}

fn host() -> Host {
    let uname = rustix::system::uname();
    Host {
        name: Name::from_bytes(uname.nodename().to_bytes()),
        kernel: Name::from_bytes(uname.release().to_bytes()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
