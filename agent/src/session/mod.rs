//! A running session: the only place with a clock and an event loop.
//!
//! One task reads the ring buffer and feeds the state; there is no second writer and no lock. What takes long (a census,
//! the search for the holders of a port) runs on a thread of its own, and its result is fed in like an event.

mod counted;
mod holders;
mod stock;
mod window;

use std::{collections::HashSet, io, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{counted::Counted, holders::Found, window::Walk};
use crate::{
    course::Course,
    kernel::{
        Losses, Programs, Settings, StartError,
        census::{self, boottime},
        plan::{Observed, Plan, Rung},
        processes::Procfs,
        sock_diag::DumpFilter,
    },
    model::{Census, ConnectFailure, Ending, Event, Process, RefusedCall, Timestamp, errno},
    recording,
    state::{Input, LOOK_AHEAD, Limits, State},
};

/// How often the ring buffer is looked at when nothing wakes the agent: what a reader of `trace` waits at most.
const POLL: Duration = Duration::from_millis(100);
/// How often the ledger is cleaned of timewait sockets that are gone, and the ports in use are counted. A dump of 30,000
/// sockets takes some 10 ms, so this is about a thousandth of a CPU, and a sixth of the 60 s an entry lives.
const RECONCILE: Duration = Duration::from_secs(10);
/// How often what was recorded is written out: what a recording lacks if its session is killed.
const SETTLE_RECORDING: Duration = Duration::from_secs(1);
/// How soon after the last census one is taken because a call found no port: what took the ports is there now, and may be
/// gone at the next one's turn.
const RECONCILE_EARLY: Duration = Duration::from_secs(5);

/// Who is told of events as they come.
pub trait Sink {
    /// An event, before the state takes it in; and the owner of the timewait socket it is about.
    ///
    /// # Errors
    /// It cannot be told; the session ends.
    fn event(&mut self, event: &Event, owner: Option<&Process>) -> io::Result<()>;

    /// No more wait: what was kept back can go.
    ///
    /// # Errors
    /// It cannot be told; the session ends.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For those who keep nothing back.
impl<F: FnMut(&Event, Option<&Process>) -> io::Result<()>> Sink for F {
    fn event(&mut self, event: &Event, owner: Option<&Process>) -> io::Result<()> {
        self(event, owner)
    }
}

/// Nobody: the state is all that is wanted.
pub struct Unheard;

impl Sink for Unheard {
    fn event(&mut self, _: &Event, _: Option<&Process>) -> io::Result<()> {
        Ok(())
    }
}

/// Programs that are attached, and since when: a session before it has begun. Needs no runtime, so that an agent can give
/// up what only attaching takes before it has any other thread.
pub struct Attached {
    programs: Programs,
    started: Timestamp,
    started_at: jiff::Timestamp,
}

impl Attached {
    /// Attaches the programs.
    ///
    /// # Errors
    /// The host lacks something; nothing is left attached.
    pub fn attach(settings: &Settings) -> Result<Self, StartError> {
        // Before, so that no event is older than its session.
        let (started, started_at) = (boottime(), jiff::Timestamp::now());
        Ok(Self { programs: Programs::attach(settings)?, started, started_at })
    }
}

/// A session that observes.
pub struct Session {
    programs: AsyncFd<Programs>,
    state: State,
    procfs: Procfs,
    recording: Option<recording::Writer>,
    course: Option<Course>,
    started_at: jiff::Timestamp,
    /// When the window began
    window_at: jiff::Timestamp,
    /// What was counted before it
    told: Counted,
    /// The last look at who has which socket open, for the reports of windows
    walk: Option<Walk>,
    blind_spots: Vec<String>,
    malformed: u64,
    pending: Vec<RefusedCall>,
    lookup: Option<JoinHandle<Vec<(RefusedCall, Found)>>>,
    reconciling: Option<JoinHandle<Census>>,
    /// When the last one was begun, or the session
    reconciled: Instant,
    /// There has been one: until then, what finds no port is looked into at once
    has_reconciled: bool,
    /// A call found no port, and nobody has looked since
    found_no_port: bool,
    /// Only certain processes are asked for
    wants_owners: bool,
    asked: Asked,
}

/// What is asked of a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    /// So it takes nothing in
    Nothing,
    /// Whose a timewait socket is
    Owners,
    /// Everything
    Report,
}

impl Session {
    /// Attaches the programs and takes stock of what is there. Needs a tokio runtime.
    ///
    /// # Errors
    /// The host lacks something; nothing is left attached.
    pub fn start(settings: &Settings, recording: Option<recording::Destination>) -> Result<Self, StartError> {
        Self::start_with(settings, Procfs::host(), recording)
    }

    /// The same, with a procfs that has the names of containers from elsewhere ([`Procfs::naming`]).
    ///
    /// # Errors
    /// Those of [`Self::start`].
    pub fn start_with(
        settings: &Settings,
        procfs: Procfs,
        recording: Option<recording::Destination>,
    ) -> Result<Self, StartError> {
        Self::begin(Attached::attach(settings)?, settings, procfs, recording)
    }

    /// Takes stock of what is there, with programs that are attached already. Needs a tokio runtime. `settings` are those
    /// they were attached with.
    ///
    /// # Errors
    /// The host lacks something; nothing is left attached.
    pub fn begin(
        attached: Attached,
        settings: &Settings,
        procfs: Procfs,
        recording: Option<recording::Destination>,
    ) -> Result<Self, StartError> {
        let Attached { programs, started, started_at } = attached;
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
            procfs,
            recording: recording
                .map(|to| recording::Writer::begin(to, started))
                .transpose()
                .map_err(|error| setup_failed("the recording cannot be written", &error))?,
            course: None,
            started_at,
            window_at: started_at,
            told: Counted::default(),
            walk: None,
            blind_spots,
            malformed: 0,
            pending: Vec::new(),
            lookup: None,
            reconciling: None,
            reconciled: Instant::now(),
            has_reconciled: false,
            found_no_port: false,
            wants_owners: settings.filter.names_a_process(),
            asked: Asked::Report,
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
        session.record_facts();
        session.record(recording::Writer::settle);
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

    /// Keeps the course of the session from now on: right after its beginning, it is that of the whole session. Not for one
    /// that is asked for [windows](Self::window), which count anew each time.
    pub fn follow(&mut self) {
        self.course = Some(Course::default());
    }

    /// For those who only listen, and never ask for a report: from now on nobody looks for what that alone would say, what a
    /// process runs and who holds a port. Nor does the state take anything in where it is not asked whose a timewait socket
    /// is, because nothing is told of those.
    pub fn only_tell(&mut self) {
        let are_owners_told = self.plan().rung(Observed::TimeWaitLeft) < Rung::SockDiag;
        self.asked = if are_owners_told { Asked::Owners } else { Asked::Nothing };
    }

    /// Observes until `until` is done, telling `sink` of every event.
    ///
    /// # Errors
    /// `sink` fails; or the event loop does.
    pub async fn observe<F: Future>(&mut self, until: F, sink: &mut dyn Sink) -> anyhow::Result<F::Output> {
        tokio::pin!(until);
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settle = interval(SETTLE_RECORDING);
        settle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Since the last one, even if this is called again and again for less than that.
        let due = (self.reconciled + RECONCILE).max(Instant::now());
        let mut reconcile = tokio::time::interval_at(due, RECONCILE);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                result = &mut until => {
                    self.drain(sink)?;
                    return Ok(result);
                }
                ready = self.programs.readable_mut() => ready.context("wait for the ring buffer")?.clear_ready(),
                _ = poll.tick() => {}
                _ = reconcile.tick(), if self.asked > Asked::Nothing => self.begin_reconciliation(),
                _ = settle.tick(), if self.recording.is_some() => self.record(recording::Writer::settle),
            }
            self.drain(sink)?;
            self.collect().await;
        }
    }

    /// What the kernel could not tell so far.
    ///
    /// # Errors
    /// Its counters cannot be read.
    pub fn losses(&self) -> anyhow::Result<Losses> {
        self.programs.get_ref().losses()
    }

    fn feed(&mut self, input: Input) {
        self.record(|recording| recording.input(&input));
        if let Some(course) = &mut self.course {
            course.hear(&self.state, &input);
        }
        self.state.feed(input);
    }

    /// Writes something down, if there is a recording. One that cannot be written ends, and the session goes on.
    fn record(&mut self, write: impl FnOnce(&mut recording::Writer) -> io::Result<()>) {
        if let Some(recording) = &mut self.recording
            && let Err(error) = write(recording)
        {
            log::error!("the recording ends here: {error}");
            self.blind_spots.push(format!("the recording is cut off: {error}"));
            self.recording = None;
        }
    }

    /// Writes down what a report would say besides the state, if there is a recording.
    fn record_facts(&mut self) {
        if self.recording.is_none() {
            return;
        }
        match self.counted() {
            Ok(counted) => {
                let facts = self.facts(boottime(), &counted, &HashSet::new());
                self.record(|recording| recording.facts(&facts));
            }
            Err(error) => log::warn!("the kernel's counters cannot be read: {error:#}"),
        }
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        let mut ahead = Vec::with_capacity(LOOK_AHEAD);
        loop {
            while ahead.len() < LOOK_AHEAD
                && let Some(decoded) = self.programs.get_mut().next_event(&mut ahead)
            {
                if let Err(error) = decoded {
                    log::debug!("record not understood: {error}");
                    self.malformed += 1;
                }
            }
            if ahead.is_empty() {
                break;
            }
            if self.asked > Asked::Nothing {
                self.state.look_ahead(&ahead);
            }
            for event in &ahead {
                self.found_no_port |= self.asked == Asked::Report && found_no_port(event);
                self.take_in(event, sink)?;
            }
            ahead.clear();
        }
        sink.flush()?;
        if self.found_no_port && (!self.has_reconciled || self.reconciled.elapsed() >= RECONCILE_EARLY) {
            self.begin_reconciliation();
        }
        self.begin_lookup();
        Ok(())
    }

    fn take_in(&mut self, event: &Event, sink: &mut dyn Sink) -> io::Result<()> {
        let owner = match event {
            Event::TimeWait(event) => self.state.owner_of(event),
            _ => None,
        };
        // Whose a timewait socket is the kernel does not know, so this part of a filter is applied here.
        let is_foreign = self.wants_owners && owner.is_none() && matches!(event, Event::TimeWait(_));
        if !is_foreign {
            sink.event(event, owner)?;
        }
        match event {
            _ if self.asked < Asked::Report => {}
            Event::ProcessSeen(task) if !task.is_kernel_thread => {
                let process = self.procfs.describe(task);
                self.feed(Input::Process(process));
            }
            Event::Refused(call) if self.state.process(call.task.key).is_none() => {
                let process = self.procfs.describe(&call.task);
                self.feed(Input::Process(process));
            }
            _ => {}
        }
        if self.recording.is_some() || self.course.is_some() {
            self.feed(Input::Event(event.clone()));
        } else if self.asked > Asked::Nothing {
            self.state.apply(event);
        }
        if self.asked == Asked::Report
            && let Event::Refused(call) = event
        {
            self.want_holders(call.clone());
        }
        Ok(())
    }

    /// Takes in what the other threads have finished.
    async fn collect(&mut self) {
        if let Some(census) = self.reconciling.take_if(|task| task.is_finished())
            && let Ok(census) = census.await
        {
            self.feed(Input::Census(census));
            self.record_facts();
        }
        if let Some(lookup) = self.lookup.take_if(|task| task.is_finished()) {
            self.take_holders(lookup).await;
        }
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
