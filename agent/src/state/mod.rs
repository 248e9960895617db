//! Events and censuses in, attribution out. Pure: no clock, no I/O, one writer.
//!
//! Events say who did what; a census (a dump of all sockets) says what is there. [`State`] joins them: it never counts
//! up what it was told to say what is there, and it never guesses an owner it was not told.

mod ahead;
mod answers;
pub mod failures;
mod key;
mod ledger;
mod limits;
mod listeners;
mod older;
mod ports;
mod processes;
mod turnover;
mod window;

use serde::{Deserialize, Serialize};

pub use ahead::LOOK_AHEAD;
pub use answers::{Attribution, Reason};
pub(crate) use ledger::TIME_WAIT_LENGTH;
pub use limits::{Limits, Sizes};
pub use ports::Peak;
pub use turnover::{Closes, Left, Turnover};

use self::{
    failures::{ConnectKey, HoldersSeen, Place, RefusedKey, RefusedTally, RejectedSynKey, ResetKey, Tally},
    ledger::{Entry, Ledger},
    listeners::Listeners,
    older::{Older, OlderSocket},
    ports::PortHistory,
    processes::{Place as ProcessPlace, Processes},
    turnover::{Owner, OwnerId},
    window::Window,
};
use crate::{
    model::{
        Census, ClosedByPeer, Connection, Ending, Event, OpenKind, Process, ProcessKey, RefusedCall, Retraction,
        SocketHolders, Task, TcpState, TimeWaitChange, TimeWaitEvent, TimeWaitMade, Timestamp, Transition,
    },
    ports::Route,
};

/// Anything [`State`] takes in: what a session feeds it, and what a recording holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// What was there when the session began. Events that came before stand: they are newer.
    Begin {
        /// The sockets
        census: Census,
        /// And who had them open
        holders: SocketHolders,
    },
    /// A record of the ring buffer
    Event(Event),
    /// What was found out about a process
    Process(Process),
    /// Who held a port right after a refusal
    Holders {
        /// The refusal
        call: RefusedCall,
        /// The answer
        holders: HoldersSeen,
    },
    /// A later census: what it does not show any more is forgotten
    Census(Census),
    /// A report of the time until now was made, and the next one is of the time from now on
    Window {
        /// When
        at: Timestamp,
        /// What that report was made from
        census: Census,
        /// Of the processes that [`State::processes`] tells, those that do not run any more
        gone: Vec<ProcessKey>,
    },
}

/// Everything that is known.
#[derive(Debug)]
pub struct State {
    limits: Limits,
    started: Timestamp,
    ledger: Ledger,
    listeners: Listeners,
    older: Older,
    processes: Processes,
    turnover: Turnover,
    refused: Tally<RefusedKey, RefusedTally>,
    connects: Tally<ConnectKey, u64>,
    resets: Tally<ResetKey, u64>,
    rejected_syns: Tally<RejectedSynKey, u64>,
    ports: PortHistory,
    received: u64,
    window: Window,
}

impl Input {
    /// When it came about; none of a description, which has no time of its own.
    #[must_use]
    pub const fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Begin { census, .. } | Self::Census(census) => Some(census.at),
            Self::Event(event) => event.at(),
            Self::Holders { call, .. } => Some(call.at),
            Self::Window { at, .. } => Some(*at),
            Self::Process(_) => None,
        }
    }
}

impl State {
    /// A session that began at `started`.
    #[must_use]
    pub fn new(started: Timestamp, limits: Limits) -> Self {
        Self {
            limits,
            started,
            ledger: Ledger::new(limits.timewait_sockets),
            listeners: Listeners::new(limits.listeners),
            older: Older::default(),
            processes: Processes::new(limits.processes),
            turnover: Turnover::default(),
            refused: Tally::new(limits.failures),
            connects: Tally::new(limits.failures),
            resets: Tally::new(limits.failures),
            rejected_syns: Tally::new(limits.failures),
            ports: PortHistory::new(limits.routes),
            received: 0,
            window: Window::first(started),
        }
    }

    /// Takes in whatever came next.
    pub fn feed(&mut self, input: Input) {
        match input {
            Input::Begin { census, holders } => self.begin(&census, &holders),
            Input::Event(event) => self.apply(&event),
            Input::Process(process) => {
                self.processes.describe(process);
            }
            Input::Holders { call, holders } => self.note_holders(&call, holders),
            Input::Census(census) => self.reconcile(&census),
            Input::Window { at, census, gone } => {
                self.begin_window(at, &census, &gone);
                self.reconcile(&census);
            }
        }
    }

    fn begin(&mut self, census: &Census, holders: &SocketHolders) {
        for process in holders.by_inode.values().flatten() {
            self.processes.describe(process.clone());
        }
        self.older = Older::new(census, holders, &mut self.listeners, self.limits.older_sockets);
    }

    fn reconcile(&mut self, census: &Census) {
        for namespace in &census.namespaces {
            let account = self.account(namespace);
            self.ports.note(namespace, &account);
        }
        self.ledger.reconcile(census, &mut self.turnover);
    }

    /// Takes in an event: as [`Input::Event`], without handing it over.
    pub fn apply(&mut self, event: &Event) {
        self.received += 1;
        match event {
            Event::Transition(transition) => self.transition(transition),
            Event::ClosedByPeer(end) => self.closed_by_peer(end),
            Event::Retraction(retraction) => self.retract(retraction),
            Event::Refused(call) => self.refuse(call),
            Event::ProcessSeen(task) => {
                self.processes.know(task);
            }
            Event::TimeWait(event) => self.timewait(event),
        }
    }

    /// The first answer stands: later the holder may be another.
    fn note_holders(&mut self, call: &RefusedCall, holders: HoldersSeen) {
        if let Some(tally) = self.refused.entry(RefusedKey::of(call))
            && tally.holders == HoldersSeen::NotLooked
        {
            tally.holders = holders;
            tally.looked = Some(call.at);
        }
    }

    fn transition(&mut self, transition: &Transition) {
        if !tells_something(transition) {
            return;
        }
        let mut known: Option<(&Task, Option<ProcessPlace>)> = None;
        for task in [&transition.opener, &transition.accepter, &transition.closer].into_iter().flatten() {
            let task: &Task = task;
            // As a rule it is one process from the beginning to the end.
            let is_known = |known: &Task| std::ptr::eq(known, task) || known.key == task.key && known.comm == task.comm;
            if !known.is_some_and(|(known, _)| is_known(known)) {
                known = Some((task, self.processes.know(task)));
            }
        }
        let connection = &transition.connection;
        if transition.new == TcpState::Listen {
            let owner = transition.opener.as_ref().map(|task| task.key);
            self.listeners.open(connection.netns, connection.local, Some(transition.socket), owner, transition.at);
        }
        let Some(ending) = transition.ending() else { return };
        if ending == Ending::ListenerClosed {
            self.listeners.close(connection.netns, connection.local, transition.socket);
            return;
        }
        let older = if transition.is_older() { self.older.take(connection) } else { None };
        let opened = self.opened(transition, older);
        // The ports of the others are none that connect() chose here.
        if opened == Some(OpenKind::Active) && connection.local.port() != 0 {
            let has_entered = matches!(ending, Ending::TimeWait { .. });
            self.ports.rates.note(Route::of(connection), transition.at, has_entered);
        }
        let owner = self.owner(transition, older.and_then(|older| older.owner));
        if transition.facts.syn_rejected {
            self.syn_rejected(self.holder_of(owner, transition, opened), connection, opened, true);
        }
        let is_simultaneous = matches!(
            ending,
            Ending::TimeWait { simultaneous: true, .. } | Ending::TimeWaitRefused { simultaneous: true }
        );
        let closed_first = matches!(owner, Owner::Process(_)) && transition.facts.fin_first && !is_simultaneous;
        // As a rule it is the last of those above, who has been looked up already.
        let place = known.filter(|(task, _)| owner.process() == Some(task.key)).and_then(|(_, place)| place);
        if closed_first {
            let id = self.number(owner, place);
            self.turnover.of(id).closed_first += 1;
        }
        match ending {
            Ending::TimeWait { .. } => {
                let timewait = match transition.timewait {
                    Some(TimeWaitMade::Made { id, .. }) => Some(id),
                    _ => None,
                };
                let owner = self.number(owner, place);
                self.turnover.of(owner).entered += 1;
                let (socket, entered, options) = (transition.socket, transition.at, transition.facts.options);
                let entry = Entry { socket, timewait, owner, opened, entered, options };
                self.ledger.enter(connection, &entry, &mut self.turnover);
            }
            Ending::TimeWaitRefused { .. } => {
                let owner = self.number(owner, place);
                self.turnover.of(owner).refused += 1;
            }
            Ending::Reset(kind) => {
                let key = ResetKey {
                    process: self.holder_of(owner, transition, opened),
                    netns: connection.netns,
                    place: Place::of(connection, opened),
                    kind,
                };
                if let Some(count) = self.resets.entry(key) {
                    *count += 1;
                }
            }
            Ending::ConnectFailed(cause) => {
                let key = ConnectKey {
                    process: self.holder_of(owner, transition, opened),
                    netns: connection.netns,
                    remote: Place::of(connection, opened),
                    cause,
                    errno: ending.connect_errno(transition),
                };
                if let Some(count) = self.connects.entry(key) {
                    *count += 1;
                }
            }
            Ending::PassiveClose | Ending::GaveUp { .. } | Ending::ListenerClosed => {}
        }
    }

    /// The number of an owner in the turnover. `place`: where the process is, if that is known.
    fn number(&mut self, owner: Owner, place: Option<ProcessPlace>) -> OwnerId {
        match owner {
            Owner::Process(key) => self.processes.owner(key, place, || self.turnover.add(key)),
            Owner::KernelThread => OwnerId::KERNEL_THREAD,
            Owner::Agent => OwnerId::AGENT,
            Owner::Lost => OwnerId::LOST,
            Owner::ClosedBefore => OwnerId::CLOSED_BEFORE,
        }
    }

    /// Which way a connection was opened, as far as that is known.
    fn opened(&self, transition: &Transition, older: Option<OlderSocket>) -> Option<OpenKind> {
        let connection = &transition.connection;
        let is_served = || self.listeners.serves(connection.netns, connection.local).then_some(OpenKind::Passive);
        transition.opened.or(older.map(|older| older.opened)).or_else(is_served)
    }

    /// Whose the end of a connection is: who ended its sending side, else who opened it.
    fn owner(&self, transition: &Transition, older: Option<ProcessKey>) -> Owner {
        match &transition.closer {
            Some(closer) if !closer.is_bystander() => Owner::Process(closer.key),
            // It closed for someone (an MPTCP subflow, a late release): whoever connected or accepted, if that was seen.
            Some(closer) => {
                let nobody = if closer.is_agent { Owner::Agent } else { Owner::KernelThread };
                let nobody = if transition.facts.opener_lost { Owner::Lost } else { nobody };
                opener(transition).or(older).map_or(nobody, Owner::Process)
            }
            None if transition.facts.closer_lost => Owner::Lost,
            None => older.map_or(Owner::ClosedBefore, Owner::Process),
        }
    }

    /// The process on this side of a connection that was cut off, or never made.
    fn holder_of(&self, owner: Owner, transition: &Transition, opened: Option<OpenKind>) -> Option<ProcessKey> {
        if let Owner::Process(key) = owner {
            return Some(key);
        }
        opener(transition).or_else(|| match opened {
            Some(OpenKind::Passive) => self.listeners.owner(transition.connection.netns, transition.connection.local),
            _ => None,
        })
    }

    fn closed_by_peer(&mut self, end: &ClosedByPeer) {
        let route = Route { netns: end.netns, local: end.local, remote: end.remote };
        self.ports.rates.note(route, end.at, false);
    }

    fn retract(&mut self, retraction: &Retraction) {
        let Some(entry) = self.ledger.retract(&retraction.connection, retraction.socket) else { return };
        self.turnover.take_back(entry.owner);
        self.ports.rates.take_back(&Route::of(&retraction.connection));
    }

    fn timewait(&mut self, event: &TimeWaitEvent) {
        match event.change {
            TimeWaitChange::Became => {
                if let Some(entry) = self.ledger.get(&event.connection, event.id) {
                    self.turnover.of(entry.owner).became += 1;
                }
            }
            TimeWaitChange::SynRejected => {
                if let Some(entry) = self.ledger.get(&event.connection, event.id) {
                    let process = self.turnover.owner(entry.owner).process();
                    self.syn_rejected(process, &event.connection, entry.opened, false);
                }
            }
            TimeWaitChange::Left(why) => match self.ledger.leave(&event.connection, event.id, why) {
                Some(entry) => self.turnover.left(entry.owner, why),
                None if self.older.forget_timewait(&event.connection) => self.turnover.older_left(why),
                // Not one of this session's filter, or its entry is still to come.
                None => {}
            },
        }
    }

    /// A SYN met an earlier connection of its four numbers.
    fn syn_rejected(
        &mut self,
        process: Option<ProcessKey>,
        connection: &Connection,
        opened: Option<OpenKind>,
        is_sent: bool,
    ) {
        let place = Place::of(connection, opened);
        let key = RejectedSynKey { process, netns: connection.netns, place, is_sent };
        if let Some(count) = self.rejected_syns.entry(key) {
            *count += 1;
        }
    }

    fn refuse(&mut self, call: &RefusedCall) {
        self.processes.know(&call.task);
        let key = RefusedKey::of(call);
        let known = if self.refused.get(&key).is_none() { self.window.holders(&key, call.at) } else { None };
        if let Some(tally) = self.refused.entry(key) {
            if let Some((looked, holders)) = known {
                (tally.looked, tally.holders) = (Some(looked), holders);
            }
            tally.count += 1;
            tally.when = Some((tally.when.map_or(call.at, |(first, _)| first), call.at));
            tally.last = Some(call.task.key);
            tally.options = call.options;
            tally.asker = call.asker;
            if tally.processes.len() < RefusedTally::MAX_PROCESSES {
                tally.processes.insert(call.task.key);
            }
        }
    }
}

/// Whether a transition is taken in: what goes on in the middle of a connection tells nothing that its end does not tell
/// again, and its process was announced.
const fn tells_something(transition: &Transition) -> bool {
    matches!(transition.new, TcpState::Close | TcpState::Listen)
}

/// The process that connected, else the one that accepted. A kernel thread is none.
fn opener(transition: &Transition) -> Option<ProcessKey> {
    let openers = [&transition.opener, &transition.accepter].into_iter().flatten();
    openers.filter(|task| !task.is_kernel_thread).map(|task| task.key).next()
}
