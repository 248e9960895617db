//! Inputs of a recording -> ends of connections.

use std::{io::BufRead, net::SocketAddr, time::Duration};

use super::{Close, Gaps, Lingering, Look, OlderTimeWait, PortBy, Program, Sample, Workload, finish};
use crate::{
    hash::{FastMap, FastSet},
    model::{
        Census, ConnectFailure, Connection, Ending, Event, Leaving, Netns, NetnsCensus, OpenKind, ProcessKey,
        SocketHolders, SocketId, Task, TcpState, TimeWaitChange, TimeWaitEvent, TimeWaitId, TimeWaitMade,
        TimeWaitSubstate, Timestamp, Transition,
    },
    ports::accounting::is_connection,
    recording::{Played, ReplayError, play},
    state::{Input, State},
};

/// Routes of a dump whose ports are compared with the model's.
const ROUTES_A_SAMPLE: usize = 64;

/// Reads the workload of a recording.
///
/// # Errors
/// Those of [`play`].
pub fn read(recording: impl BufRead) -> Result<Workload, ReplayError> {
    let mut collector = Collector::default();
    let played = play(recording, &mut |state, input| collector.take_in(state, input))?;
    Ok(collector.finish(&played))
}

/// An end of a connection as an event told it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) connection: Connection,
    pub(super) opened: OpenKind,
    pub(super) program: Option<usize>,
    pub(super) begun: Option<Timestamp>,
    /// None: it has not
    pub(super) ended: Option<Timestamp>,
    pub(super) close: Close,
    pub(super) port: PortBy,
}

/// A connect() that found no port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) at: Timestamp,
    pub(super) connection: Connection,
    pub(super) program: Option<usize>,
}

/// Takes in a recording, input by input.
#[derive(Debug, Default)]
pub struct Collector {
    pub(super) begun: Option<Timestamp>,
    pub(super) programs: Vec<Program>,
    places: FastMap<ProcessKey, usize>,
    pub(super) told: Vec<Told>,
    pub(super) attempts: Vec<Attempt>,
    /// Connections that were there at the beginning and have not ended yet
    pub(super) stock: FastMap<Connection, Told>,
    pub(super) older: FastMap<Connection, OlderTimeWait>,
    /// The end that left a timewait socket
    timewaits: FastMap<TimeWaitId, usize>,
    by_socket: FastMap<SocketId, usize>,
    /// When a dump first showed a connection, and when its end was told
    pub(super) seen: FastMap<Connection, Timestamp>,
    pub(super) last_end: FastMap<Connection, Timestamp>,
    served: FastSet<(Netns, u16)>,
    pub(super) looks: Vec<Look>,
    pub(super) samples: Vec<Sample>,
    /// How long TIME_WAITs lasted that ran out by themselves
    pub(super) lengths: Vec<Duration>,
    pub(super) gaps: Gaps,
}

impl Collector {
    /// Takes in an input, given what was known before it.
    pub fn take_in(&mut self, state: &State, input: &Input) {
        self.begun.get_or_insert(state.started());
        match input {
            Input::Begin { census, holders } => self.begin(census, holders),
            Input::Event(event) => self.event(event),
            Input::Census(census) | Input::Window { census, .. } => self.census(state, census),
            Input::Process(process) => {
                self.program(process.key, &process.comm);
            }
            Input::Holders { .. } => {}
        }
    }

    /// The workload, with what is known at the recording's end.
    #[must_use]
    pub fn finish(mut self, played: &Played) -> Workload {
        self.census(&played.state, &played.census);
        finish::finish(self, played)
    }

    fn program(&mut self, key: ProcessKey, comm: &crate::model::Name) -> usize {
        let programs = &mut self.programs;
        let place = *self.places.entry(key).or_insert_with(|| {
            programs.push(Program { key, comm: comm.clone() });
            programs.len() - 1
        });
        // A process names itself anew after exec().
        if let Some(program) = programs.get_mut(place) {
            program.comm = comm.clone();
        }
        place
    }

    fn task(&mut self, task: Option<&Task>) -> Option<usize> {
        task.filter(|task| !task.is_bystander()).map(|task| self.program(task.key, &task.comm))
    }

    fn begin(&mut self, census: &Census, holders: &SocketHolders) {
        for namespace in &census.namespaces {
            self.look(namespace);
            let served = namespace.served_ports();
            let is_outbound = |port: u16| {
                let in_range = namespace.settings.port_range.is_none_or(|(low, high)| (low..=high).contains(&port));
                in_range && !served.contains(&port)
            };
            for row in namespace.rows.iter() {
                let connection = row.connection;
                let is_outbound = is_outbound(connection.local.port());
                if let (Some(left), Some(substate)) = (row.time_wait_left, row.substate()) {
                    let since = self.begun.unwrap_or(namespace.at);
                    let until = namespace.at.plus(left);
                    self.older.insert(connection, OlderTimeWait { connection, since, until, substate, is_outbound });
                } else if is_connection(row.state) {
                    let holder = row.inode.and_then(|inode| holders.by_inode.get(&inode)?.first());
                    let program = holder.map(|process| self.program(process.key, &process.comm));
                    let opened = if is_outbound { OpenKind::Active } else { OpenKind::Passive };
                    self.stock.insert(
                        connection,
                        Told {
                            connection,
                            opened,
                            program,
                            begun: self.begun,
                            ended: None,
                            close: Close::Neither,
                            port: PortBy::Fixed,
                        },
                    );
                }
            }
        }
    }

    /// Keeps the settings of a namespace, and the sockets that take ports out, if they are not what they were.
    fn look(&mut self, namespace: &NetnsCensus) {
        let takes_out = |state| matches!(state, TcpState::Listen | TcpState::BoundInactive);
        let look = Look {
            netns: namespace.netns,
            at: namespace.at,
            rows: namespace.rows.iter().filter(|row| takes_out(row.state)).collect(),
            kernel_time_wait: namespace.kernel_time_wait,
            time_wait_overflow: namespace.time_wait_overflow,
            settings: namespace.settings.clone(),
        };
        for port in namespace.served_ports() {
            self.served.insert((namespace.netns, port));
        }
        let known = self.looks.iter().rev().find(|known| known.netns == look.netns);
        let is_same = known.is_some_and(|known| known.settings == look.settings && known.rows == look.rows);
        if !is_same {
            self.looks.push(look);
        }
    }

    fn census(&mut self, state: &State, census: &Census) {
        for namespace in &census.namespaces {
            self.look(namespace);
            let mut used: Vec<_> =
                state.account(namespace).routes.into_iter().map(|(route, used)| (route, used.used())).collect();
            used.sort_unstable_by_key(|(route, used)| (std::cmp::Reverse(*used), *route));
            used.truncate(ROUTES_A_SAMPLE);
            let mut time_wait = 0;
            for row in namespace.rows.iter() {
                if row.time_wait_left.is_some() {
                    time_wait += 1;
                } else if is_connection(row.state) {
                    self.seen.entry(row.connection).or_insert(namespace.at);
                }
            }
            self.samples.push(Sample { at: namespace.at, netns: namespace.netns, time_wait, used });
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Transition(transition) => self.transition(transition),
            Event::ClosedByPeer(end) => {
                self.gaps.anonymous += 1;
                self.told.push(Told {
                    connection: Connection {
                        netns: end.netns,
                        local: SocketAddr::new(end.local, 0),
                        remote: end.remote,
                    },
                    opened: OpenKind::Active,
                    program: None,
                    begun: None,
                    ended: Some(end.at),
                    close: Close::Second,
                    port: PortBy::Connect,
                });
            }
            Event::Retraction(retraction) => {
                let told = self.by_socket.get(&retraction.socket).and_then(|place| self.told.get_mut(*place));
                if let Some(told) = told.filter(|told| told.connection == retraction.connection) {
                    told.close = Close::Neither;
                }
            }
            Event::TimeWait(event) => self.timewait(event),
            Event::Refused(_) | Event::ProcessSeen(_) => {}
        }
    }

    fn transition(&mut self, transition: &Transition) {
        let Some(ending) = transition.ending() else {
            if transition.new == TcpState::Listen {
                self.served.insert((transition.connection.netns, transition.connection.local.port()));
            }
            return;
        };
        let connection = transition.connection;
        let opener = self.task(transition.opener.as_deref().or(transition.accepter.as_deref()));
        let closer = self.task(transition.closer.as_deref());
        if ending == Ending::ConnectFailed(ConnectFailure::NoFreePort) {
            self.attempts.push(Attempt { at: transition.at, connection, program: opener.or(closer) });
            return;
        }
        let is_none = matches!(
            ending,
            Ending::ListenerClosed
                | Ending::ConnectFailed(ConnectFailure::TupleInUse | ConnectFailure::HandshakeBroken)
        );
        if is_none || connection.local.port() == 0 {
            return;
        }
        let stock = self.stock.remove(&connection);
        let opened = transition.opened.or(stock.as_ref().map(|stock| stock.opened)).unwrap_or_else(|| {
            self.gaps.direction += 1;
            let is_served = self.served.contains(&(connection.netns, connection.local.port()));
            if is_served { OpenKind::Passive } else { OpenKind::Active }
        });
        let begun = transition.born.or_else(|| self.begun.filter(|_| stock.is_some() || transition.is_older()));
        let close = self.close(ending, transition);
        let port = match () {
            () if transition.facts.port_bound && opened == OpenKind::Active => PortBy::Bind,
            // Its port was in use before anything can be changed.
            () if transition.is_older() => PortBy::Fixed,
            () => PortBy::Connect,
        };
        let program = opener.or(stock.and_then(|stock| stock.program)).or(closer);
        self.last_end.insert(connection, transition.at);
        self.by_socket.insert(transition.socket, self.told.len());
        if let Some(TimeWaitMade::Made { id, .. }) = transition.timewait {
            self.timewaits.insert(id, self.told.len());
            // A dump that was begun before may show it already.
            self.older.remove(&connection);
        }
        self.told.push(Told { connection, opened, program, begun, ended: Some(transition.at), close, port });
    }

    fn close(&mut self, ending: Ending, transition: &Transition) -> Close {
        match ending {
            Ending::TimeWait { substate: TimeWaitSubstate::TimeWait, .. } | Ending::TimeWaitRefused { .. } => {
                Close::FIRST
            }
            Ending::TimeWait { substate: TimeWaitSubstate::FinWait2, .. } if transition.timewait.is_some() => {
                Close::First(Lingering { becomes: None, cut: None })
            }
            Ending::TimeWait { .. } => {
                self.gaps.becoming += 1;
                Close::FIRST
            }
            Ending::PassiveClose => Close::Second,
            // The other side's FIN or RST came first, or nobody's did.
            Ending::Reset(_) | Ending::ConnectFailed(_) | Ending::GaveUp { .. } | Ending::ListenerClosed => {
                Close::Neither
            }
        }
    }

    fn timewait(&mut self, event: &TimeWaitEvent) {
        let told = self.timewaits.get(&event.id).and_then(|place| self.told.get_mut(*place));
        let told = told.filter(|told| told.connection == event.connection);
        match (told, event.change) {
            (Some(Told { ended: Some(ended), close: Close::First(lingering), .. }), change) => {
                let after = event.at.since(*ended);
                match change {
                    TimeWaitChange::Became => lingering.becomes = Some(after),
                    TimeWaitChange::Left(why) => {
                        if is_unforeseen(why) {
                            lingering.cut = Some(after);
                        }
                        if let (Leaving::Expired, Some(becomes)) = (why, lingering.becomes) {
                            self.lengths.push(after.saturating_sub(becomes));
                        }
                        self.timewaits.remove(&event.id);
                    }
                    TimeWaitChange::SynRejected => {}
                }
            }
            (_, TimeWaitChange::Became) => {
                if let Some(older) = self.older.get_mut(&event.connection) {
                    older.substate = TimeWaitSubstate::TimeWait;
                    older.until = event.at.plus(crate::ports::accounting::TIME_WAIT_LENGTH);
                }
            }
            (_, TimeWaitChange::Left(why)) => {
                if let Some(older) = self.older.get_mut(&event.connection)
                    && (is_unforeseen(why) || event.at > older.until)
                {
                    older.until = event.at;
                }
            }
            (_, TimeWaitChange::SynRejected) => {}
        }
    }
}

/// What the model does not bring about by itself.
const fn is_unforeseen(why: Leaving) -> bool {
    !matches!(why, Leaving::Expired | Leaving::FinNeverCame | Leaving::Reused | Leaving::NewSyn | Leaving::Unseen)
}
