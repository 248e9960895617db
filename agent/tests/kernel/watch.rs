//! The session under test: attached programs, and their events by network namespace.
//!
//! One set of programs serves all tests that have no wishes of their own, so that tests can run at the same time; a
//! thread reads its ring and sorts the events. Everything that depends on how the library attaches and decodes is here.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use agent_ebpf::{Detail, Filter};
use firstfin::{
    kernel::{
        Losses, Programs, Settings, census,
        containers::{self, Containers},
        netns,
        plan::Plan,
        processes::Procfs,
        sock_diag::DumpFilter,
    },
    model::{Census, Connection, Event, Netns, SocketFacts, Task, Timestamp, Transition},
    report::{NetnsTimeWait, ProcessTimeWait, Report},
    session::Session,
    state::{Attribution, Input, Limits, State},
};
use libtest_mimic::Failed;

use crate::{actor::Fork, netns::Net, rung};

/// How the message of a test begins that waited for an event in vain.
pub(crate) const NO_EVENT: &str = "no event";
/// How long an event may take: a limit against hanging. On an idle host it takes milliseconds.
const EVENT_WITHIN: Duration = Duration::from_secs(60);
/// How long a session may take to begin: under emulation, several of them at a time, seconds.
const BEGIN_WITHIN: Duration = Duration::from_secs(90);
/// How often the ring is looked at. A choice of this harness; no test relies on it.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often at most until every timewait socket of a dump has an event.
const SETTLE_ROUNDS: u32 = 20;

/// Attached programs and what they have reported.
pub(crate) struct Watch {
    sorted: Arc<Sorted>,
    programs: Arc<Mutex<Programs>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Sorted {
    events: Mutex<Events>,
    more: Condvar,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Events {
    /// Since when a number has named the namespace it names now: the kernel uses them again
    since: HashMap<Netns, Timestamp>,
    by_netns: HashMap<Netns, Vec<Event>>,
    malformed: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// The one set of programs for tests without wishes of their own, attached when first asked for.
    pub(crate) fn shared() -> Result<&'static Self, Failed> {
        static SHARED: OnceLock<Result<Watch, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| {
                Self::attach(&rung::settings()).map_err(|failed| failed.message().unwrap_or("?").to_owned())
            })
            .as_ref()
            .map_err(Failed::from)
    }

    /// Attaches programs and reads them until dropped.
    pub(crate) fn attach(settings: &Settings) -> Result<Self, Failed> {
        Ok(Self::attach_unread(settings)?.read_on())
    }

    /// The same, by a plan of the test's own.
    pub(crate) fn carry_out(plan: Plan, settings: &Settings) -> Result<Self, Failed> {
        let programs = Programs::carry_out(plan, settings).map_err(|error| format!("attach: {error}"))?;
        Ok(Self::of(programs).read_on())
    }

    fn of(programs: Programs) -> Self {
        Self { sorted: Arc::default(), programs: Arc::new(Mutex::new(programs)), reader: None }
    }

    fn read_on(mut self) -> Self {
        let (sorted, programs) = (Arc::clone(&self.sorted), Arc::clone(&self.programs));
        self.reader = Some(thread::spawn(move || {
            while !sorted.is_over.load(Ordering::Relaxed) {
                sort(&sorted, &programs);
                thread::sleep(LOOK_EVERY);
            }
        }));
        self
    }

    /// Attaches programs that nobody reads until [`Self::read`].
    pub(crate) fn attach_unread(settings: &Settings) -> Result<Self, Failed> {
        let programs = Programs::attach(settings).map_err(|error| format!("attach: {error}"))?;
        Ok(Self::of(programs))
    }

    /// What was attached, and why nothing better.
    pub(crate) fn plan(&self) -> Plan {
        lock(&self.programs).plan().clone()
    }

    /// Begins to watch a namespace that has just been made: what was under its number before is not its own.
    pub(crate) fn begin(&self, netns: Netns) {
        let mut events = lock(&self.sorted.events);
        events.since.insert(netns, now());
        events.by_netns.remove(&netns);
    }

    /// Reads what waits.
    pub(crate) fn read(&self) {
        sort(&self.sorted, &self.programs);
    }

    /// What the kernel could not tell.
    pub(crate) fn losses(&self) -> Result<Losses, Failed> {
        lock(&self.programs).losses().map_err(|error| format!("losses: {error:#}").into())
    }

    /// The events of a namespace so far.
    pub(crate) fn events(&self, netns: Netns) -> Vec<Event> {
        lock(&self.sorted.events).by_netns.get(&netns).cloned().unwrap_or_default()
    }

    /// Waits until the events of a namespace have what is wanted.
    pub(crate) fn wait<T>(&self, netns: Netns, what: &str, pick: impl Fn(&[Event]) -> Option<T>) -> Result<T, Failed> {
        self.wait_for(netns, what, EVENT_WITHIN, pick)
    }

    /// The same, for no longer than `within`.
    pub(crate) fn wait_for<T>(
        &self,
        netns: Netns,
        what: &str,
        within: Duration,
        pick: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T, Failed> {
        let nothing = Vec::new();
        let mut picked = None;
        let guard = lock(&self.sorted.events);
        let waited = self.sorted.more.wait_timeout_while(guard, within, |events| {
            picked = pick(events.by_netns.get(&netns).unwrap_or(&nothing));
            picked.is_none()
        });
        drop(waited);
        picked.ok_or_else(|| format!("{NO_EVENT} within {within:?}: {what}\n{}", self.story(netns)).into())
    }

    /// Waits for the last transition of a connection's end.
    pub(crate) fn end(&self, connection: Connection) -> Result<Transition, Failed> {
        self.wait(connection.netns, &format!("the end of {} -> {}", connection.local, connection.remote), |events| {
            events.iter().find_map(|event| match event {
                Event::Transition(end) if end.connection == connection && end.ending().is_some() => Some(end.clone()),
                _ => None,
            })
        })
    }

    /// The events of a namespace, for the message of a failed test.
    pub(crate) fn story(&self, netns: Netns) -> String {
        let mut story = format!("events of namespace {netns}:\n");
        let events = self.events(netns);
        for event in &events {
            // Writing to a string cannot fail.
            let _ = writeln!(story, "  {}", describe(event));
        }
        if events.is_empty() {
            story.push_str("  none\n");
        }
        for malformed in &lock(&self.sorted.events).malformed {
            let _ = writeln!(story, "  malformed: {malformed}");
        }
        if let Ok(losses) = self.losses() {
            let _ = writeln!(story, "  {losses:?}");
        }
        story
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.sorted.is_over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn sort(sorted: &Sorted, programs: &Mutex<Programs>) {
    let mut programs = lock(programs);
    let (mut batch, mut malformed) = (Vec::new(), Vec::new());
    while let Some(taken) = programs.next_event(&mut batch) {
        malformed.extend(taken.err().map(|error| error.to_string()));
    }
    drop(programs);
    if batch.is_empty() && malformed.is_empty() {
        return;
    }
    let mut events = lock(&sorted.events);
    events.malformed.extend(malformed);
    for event in batch {
        let (netns, at) = match &event {
            Event::Transition(transition) => (transition.connection.netns, transition.at),
            Event::Retraction(retraction) => (retraction.connection.netns, retraction.at),
            Event::Refused(call) => (call.netns, call.at),
            Event::TimeWait(event) => (event.connection.netns, event.at),
            Event::ClosedByPeer(end) => (end.netns, end.at),
            // They belong to no namespace; the sessions are asked about what becomes of them.
            Event::ProcessSeen(_) => continue,
        };
        if events.since.get(&netns).is_none_or(|&since| at >= since) {
            events.by_netns.entry(netns).or_default().push(event);
        }
    }
    drop(events);
    sorted.more.notify_all();
}

/// What a session run by [`session`] is to look at.
pub(crate) struct Wishes {
    netns: Netns,
    settings: Settings,
    names: containers::Config,
}

impl Wishes {
    /// Everything on the host.
    pub(crate) fn of_the_host() -> Result<Self, Failed> {
        let settings = Settings { detail: Detail::Report, ..rung::settings() };
        Ok(Self { netns: netns::current()?, settings, names: containers::Config::default() })
    }

    /// The same, with names of containers from elsewhere.
    pub(crate) fn naming(self, names: containers::Config) -> Self {
        Self { names, ..self }
    }

    /// Every end of a connection, as a recording has them.
    pub(crate) fn every_end(self) -> Self {
        Self { settings: Settings { detail: Detail::Ends, ..self.settings }, ..self }
    }

    /// Everything in this namespace.
    pub(crate) fn of(net: &Net) -> Self {
        let filter = Filter { netns: net.id().0, ..Filter::default() };
        let settings = Settings { filter, detail: Detail::Report, ..rung::settings() };
        Self { netns: net.id(), settings, names: containers::Config::default() }
    }
}

/// What a session saw.
pub(crate) struct Observed {
    /// Its report, of the whole host
    pub(crate) report: Report,
    /// Its events
    pub(crate) events: Vec<Event>,
    /// Every timewait socket of the namespace at its end, and whose it is
    pub(crate) attributions: HashMap<Connection, Attribution>,
}

impl Observed {
    /// What the report says of a namespace.
    pub(crate) fn namespace(&self, net: &Net) -> Result<&NetnsTimeWait, Failed> {
        let found = self.report.time_wait.namespaces.iter().find(|namespace| namespace.netns == net.id());
        found.ok_or_else(|| format!("namespace {} is not in the report", net.id()).into())
    }

    /// What the report says of a process.
    pub(crate) fn process(&self, who: &Fork) -> Result<&ProcessTimeWait, Failed> {
        let found = self.report.time_wait.by_process.iter().find(|process| process.process.pid == who.key.tgid);
        found.ok_or_else(|| format!("{who:?} is not in the report").into())
    }
}

/// Asks a session that is going on for its report.
pub(crate) struct Asking(tokio::sync::mpsc::UnboundedSender<mpsc::Sender<Report>>);

impl Asking {
    /// The report of what it has seen so far.
    pub(crate) fn report(&self) -> Result<Report, Failed> {
        let (answer, answered) = mpsc::channel();
        self.0.send(answer).map_err(|_| "the session is over")?;
        answered.recv_timeout(BEGIN_WITHIN).map_err(|error| format!("no report of the session: {error}").into())
    }
}

/// Runs a real session while `work` is done. The session has the other thread: processes started by `work` end with the
/// thread that started them.
pub(crate) fn session<T>(wishes: &Wishes, work: impl FnOnce() -> Result<T, Failed>) -> Result<(T, Observed), Failed> {
    session_asked(wishes, |_| work())
}

/// The same, with a session that `work` can ask.
pub(crate) fn session_asked<T>(
    wishes: &Wishes,
    work: impl FnOnce(&Asking) -> Result<T, Failed>,
) -> Result<(T, Observed), Failed> {
    let (has_begun, begun) = mpsc::channel();
    let (asking, asked) = tokio::sync::mpsc::unbounded_channel();
    thread::scope(|scope| {
        let observer =
            scope.spawn(|| observe(wishes, &has_begun, asked).map_err(|error| format!("session: {error:#}")));
        let asking = Asking(asking);
        // An error of the session shows when it is joined.
        let done = if begun.recv_timeout(BEGIN_WITHIN).is_ok() { Some(work(&asking)) } else { None };
        drop(asking);
        let observed = observer.join().map_err(|_| "the session panicked")??;
        Ok((done.ok_or("the session did not begin in time")??, observed))
    })
}

fn observe(
    wishes: &Wishes,
    has_begun: &mpsc::Sender<()>,
    mut asked: tokio::sync::mpsc::UnboundedReceiver<mpsc::Sender<Report>>,
) -> anyhow::Result<Observed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let procfs = Procfs::host().naming(Containers::new(&wishes.names));
        let mut session = Session::start_with(&wishes.settings, procfs, None)?;
        has_begun.send(())?;
        let mut events = Vec::new();
        let collect = &mut |event: &Event, _: Option<&_>| {
            events.push(event.clone());
            Ok(())
        };
        // It ends when nobody can ask any more.
        while let Some(answer) = session.observe(asked.recv(), collect).await? {
            answer.send(session.report().await?)?;
        }
        let census = census_of(wishes.netns);
        // What entered between the last event read and the census has its event by now, or in a moment.
        for _ in 0..SETTLE_ROUNDS {
            session.observe(tokio::time::sleep(LOOK_EVERY), collect).await?;
            if !session.state().has_unseen(&census) {
                break;
            }
        }
        let attributions = attributions_of(session.state(), &census, false);
        let report = session.finish(false).await?;
        Ok(Observed { report, events, attributions })
    })
}

/// The time events are stamped with.
pub(crate) fn now() -> Timestamp {
    census::boottime()
}

/// Whose each timewait socket of a namespace is, by these events alone; and how many the kernel counts.
pub(crate) fn attribute(
    net: &Net,
    started: Timestamp,
    events: &[Event],
    has_losses: bool,
) -> Result<(HashMap<Connection, Attribution>, Option<u64>), Failed> {
    let mut state = State::new(started, Limits::default());
    for event in events {
        state.feed(Input::Event(event.clone()));
    }
    let census = census_of(net.id());
    let kernel = census.namespaces.first().ok_or_else(|| format!("{:?}", census.unreachable))?.kernel_time_wait;
    Ok((attributions_of(&state, &census, has_losses), kernel))
}

fn census_of(netns: Netns) -> Census {
    census::take(&Procfs::host(), &DumpFilter::time_wait(), Some(&[netns].into()), &census::boottime)
}

fn attributions_of(state: &State, census: &Census, has_losses: bool) -> HashMap<Connection, Attribution> {
    let timewait = census.namespaces.iter().flat_map(|namespace| state.attributed(namespace, has_losses));
    timewait.map(|(row, attribution)| (row.connection, attribution)).collect()
}

fn describe(event: &Event) -> String {
    let who = |task: &Option<Arc<Task>>| {
        task.as_ref().map_or_else(
            || "-".to_owned(),
            |task| format!("{}[{}]{}", task.comm, task.key.tgid, if task.is_kernel_thread { " (kernel)" } else { "" }),
        )
    };
    match event {
        Event::Transition(transition) => format!(
            "{} -> {}: {} to {}, ending {:?}, opened {:?} by {}, closed by {},{}",
            transition.connection.local,
            transition.connection.remote,
            transition.old,
            transition.new,
            transition.ending(),
            transition.opened,
            who(&transition.opener),
            who(&transition.closer),
            describe_facts(&transition.facts),
        ),
        other => format!("{other:?}"),
    }
}

/// Only what is so.
fn describe_facts(facts: &SocketFacts) -> String {
    let named = [
        (facts.port_bound, "port bound"),
        (facts.established, "established"),
        (facts.fin_first, "FIN first"),
        (facts.fin_second, "FIN second"),
        (facts.fin_received, "FIN received"),
        (facts.reset_received, "RST received"),
        (facts.reset_sent, "RST sent"),
        (facts.syn_rejected, "SYN rejected"),
        (facts.is_shut_down, "shut down"),
        (facts.has_socket, "has a socket"),
        (facts.is_unconnected, "unconnected"),
        (facts.linger_zero, "linger zero"),
        (facts.closer_lost, "closer lost"),
    ];
    let mut text = format!(" errno {}", facts.errno);
    for (_, name) in named.into_iter().filter(|(is_so, _)| *is_so) {
        text.push_str(", ");
        text.push_str(name);
    }
    text
}
