//! How connections ended: who sent the first FIN, by process, and which way through the states of RFC 9293 they took.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    model::{Ending, Event, Name, ProcessKey, Reset, TcpState, TimeWaitSubstate, Transition},
    report::SessionFacts,
    state::State,
};

/// Processes that are told apart; those beyond are in the total alone.
const MAX_PROCESSES: usize = 4_096;

/// Connections by who ended them. Each counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// This side sent the first FIN
    pub here: u64,
    /// The other side did
    pub there: u64,
    /// Both at once
    pub both: u64,
    /// Cut off by a RST from here
    pub reset_here: u64,
    /// Cut off by a RST from the other side
    pub reset_there: u64,
    /// The kernel gave up on it: no answer
    pub gave_up: u64,
}

impl Sides {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.here + self.there + self.both + self.reset_here + self.reset_there + self.gave_up
    }

    /// Counts an end; false if it was not that of a connection.
    const fn add(&mut self, ending: Ending) -> bool {
        let count = match ending {
            Ending::TimeWait { simultaneous: true, .. } | Ending::TimeWaitRefused { simultaneous: true } => {
                &mut self.both
            }
            Ending::TimeWait { .. } | Ending::TimeWaitRefused { .. } => &mut self.here,
            Ending::PassiveClose => &mut self.there,
            Ending::Reset(Reset::Received) => &mut self.reset_there,
            Ending::Reset(_) => &mut self.reset_here,
            Ending::GaveUp { .. } => &mut self.gave_up,
            Ending::ConnectFailed(_) | Ending::ListenerClosed => return false,
        };
        *count += 1;
        true
    }
}

/// Connections by the way that they took from ESTABLISHED to CLOSED.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// FIN_WAIT1, FIN_WAIT2, TIME_WAIT
    pub time_wait: u64,
    /// FIN_WAIT1, then a FIN_WAIT2 minisocket
    pub fin_wait2: u64,
    /// FIN_WAIT1, CLOSING, TIME_WAIT
    pub simultaneous: u64,
    /// FIN_WAIT2, and no timewait socket because there were too many
    pub refused: u64,
    /// CLOSING, and no timewait socket because there were too many
    pub refused_simultaneous: u64,
    /// Of `time_wait`: came to no timewait socket after all
    pub retracted: u64,
    /// CLOSE_WAIT, LAST_ACK
    pub passive: u64,
    /// Cut off by a RST in this state
    pub reset: BTreeMap<TcpState, u64>,
    /// Given up in this state
    pub gave_up: BTreeMap<TcpState, u64>,
}

impl Paths {
    /// Connections that ended in this state without the last segments of RFC 9293.
    #[must_use]
    pub fn broken_off(&self, state: TcpState) -> u64 {
        [&self.reset, &self.gave_up].into_iter().filter_map(|by_state| by_state.get(&state)).sum()
    }

    fn add(&mut self, ending: Ending, old: TcpState) {
        let count = match ending {
            Ending::TimeWait { simultaneous: true, .. } => &mut self.simultaneous,
            Ending::TimeWait { substate: TimeWaitSubstate::TimeWait, .. } => &mut self.time_wait,
            Ending::TimeWait { substate: TimeWaitSubstate::FinWait2, .. } => &mut self.fin_wait2,
            Ending::TimeWaitRefused { simultaneous: true } => &mut self.refused_simultaneous,
            Ending::TimeWaitRefused { .. } => &mut self.refused,
            Ending::PassiveClose => &mut self.passive,
            Ending::Reset(_) => self.reset.entry(old).or_default(),
            Ending::GaveUp { .. } => self.gave_up.entry(old).or_default(),
            Ending::ConnectFailed(_) | Ending::ListenerClosed => return,
        };
        *count += 1;
    }
}

/// A process and how its connections ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedBy {
    /// Which; none: not known
    pub process: Option<(u32, Name)>,
    /// It is gone
    pub exited: bool,
    /// How
    pub sides: Sides,
}

/// How connections ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closings {
    by_process: BTreeMap<Option<ProcessKey>, Sides>,
    /// Everybody's
    pub total: Sides,
    /// The ways they took
    pub paths: Paths,
    /// Connections opened here that the other side closed, and of which nothing else was recorded
    pub closed_by_peer: u64,
    /// Connections of processes beyond those that are told apart
    pub beyond: u64,
    /// By process, most connections first, once the session is over
    pub ranking: Vec<ClosedBy>,
}

impl Closings {
    /// Notes an event before the state takes it in; whether a connection ended by it.
    pub(super) fn note(&mut self, state: &State, event: &Event) -> bool {
        match event {
            Event::Transition(transition) => self.transition(state, transition),
            Event::ClosedByPeer(_) => {
                self.closed_by_peer += 1;
                true
            }
            Event::Retraction(_) => {
                self.paths.retracted += 1;
                false
            }
            Event::Refused(_) | Event::ProcessSeen(_) | Event::TimeWait(_) => false,
        }
    }

    fn transition(&mut self, state: &State, transition: &Transition) -> bool {
        let Some(ending) = transition.ending() else { return false };
        if !self.total.add(ending) {
            return false;
        }
        self.paths.add(ending, transition.old);
        let owner = state.owner_of_end(transition);
        if self.by_process.len() < MAX_PROCESSES || self.by_process.contains_key(&owner) {
            self.by_process.entry(owner).or_default().add(ending);
        } else {
            self.beyond += 1;
        }
        true
    }

    /// The session is over: who is who.
    pub(super) fn end(&mut self, state: &State, facts: &SessionFacts) {
        let name = |key: ProcessKey| {
            let comm = state.process(key).map_or_else(|| Name::from("?"), |process| process.comm.clone());
            (key.tgid, comm)
        };
        let all = self.by_process.iter().map(|(key, sides)| ClosedBy {
            process: key.map(name),
            exited: key.is_some_and(|key| !facts.alive.contains(&key)),
            sides: *sides,
        });
        self.ranking = all.collect();
        // By key before, and stable: the same every time.
        self.ranking.sort_by_key(|it| Reverse(it.sides.total()));
    }
}
