//! An event as a record of its own, for scripts: `firstfin.event/1`.
//!
//! Within a version fields are added, never renamed, removed or given another meaning. What does not apply to an event,
//! or is not known of it, is left out; only `process` is always there, and null if no process is known. Addresses of
//! kernel objects are left out on purpose: they would tell where the kernel's memory lies.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::{
    model::{
        Call, ConnectFailure, Connection, Ending, Event, Leaving, Name, Netns, Process, RefusedCall, Reset, Retraction,
        SocketOptions, Task, TcpState, TimeWaitChange, TimeWaitEvent, TimeWaitSubstate, Timestamp, Transition, errno,
    },
    output::clock::{Clock, Milliseconds, milliseconds},
    report::Direction,
};

/// Version of the JSON form.
pub const EVENT_SCHEMA: &str = "firstfin.event/1";

/// One line of `firstfin trace --format json`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct EventRecord<'a> {
    /// `firstfin.event/1`
    pub schema: &'static str,
    /// What happened
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When, RFC 3339 in UTC with milliseconds
    pub at: Milliseconds,
    /// Who ended the sending side of the connection, else who opened it; for a call, who made it. Null if unknown
    pub process: Option<EventProcess<'a>>,
    /// Who opened the connection, if that was another process
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opener: Option<EventProcess<'a>>,
    /// Who accepted the connection, if that was another process than the one that closed it, and is observed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepter: Option<EventProcess<'a>>,
    /// Inode number of the socket's network namespace
    pub netns: Netns,
    /// Address and port here; port 0 if none was chosen
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub local: Option<&'a SocketAddr>,
    /// Address and port there
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub remote: Option<&'a SocketAddr>,
    /// Which way the connection was opened; left out if that was before the trace began
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// `transition`, `listen`: state before, by Linux's name
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "by_linux_name")]
    #[schemars(with = "Option<String>")]
    pub from: Option<TcpState>,
    /// `transition`, `listen`: state after, by Linux's name
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "by_linux_name")]
    #[schemars(with = "Option<String>")]
    pub to: Option<TcpState>,
    /// How the connection ended, if it did
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<EndingKind>,
    /// `ending` `time_wait`: both sides sent their FIN before either saw the other's
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub simultaneous: bool,
    /// `ending` `reset` and `connect_failed`: how, and why
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// `time_wait_left`: why
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Leaving>,
    /// This side sent the first FIN; left out if that is not known, or nobody sent one
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_first: Option<bool>,
    /// `refused`: which call
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// `refused`: the options of the socket
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<SocketOptions>,
    /// The errno the process got, or the connection died of
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
    /// Its name: `EADDRINUSE`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'static, str>>,
    /// Milliseconds since the socket began to connect, was created by an incoming SYN, or began to listen; left out if
    /// that was before the trace began
    #[serde(rename = "duration_ms", skip_serializing_if = "Option::is_none", serialize_with = "in_milliseconds")]
    #[schemars(with = "Option<f64>")]
    pub duration: Option<Duration>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A connection ended, or could not be made
    ConnectionEnd,
    /// A socket began to listen, or was closed after it had
    Listen,
    /// bind() or listen() was refused
    Refused,
    /// A socket changed its state (`--states`)
    Transition,
    /// The connection that was said to have entered TIME_WAIT did not
    Retraction,
    /// A FIN_WAIT2 minisocket became TIME_WAIT (`--states`, where it is observed)
    TimeWaitBegan,
    /// A timewait socket left, where that is observed
    TimeWaitLeft,
    /// A SYN came for a timewait socket that it may not have the four numbers of, and was answered for the old connection;
    /// where that is observed
    SynRejected,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndingKind {
    /// This side closed first and keeps a timewait socket
    TimeWait,
    /// The same, but the FIN of the other side is still to come
    FinWait2,
    /// This side closed first, but got no timewait socket: `tcp_max_tw_buckets` was reached
    TimeWaitRefused,
    /// The other side closed first; nothing is left here
    PassiveClose,
    /// It was cut off, see `cause`
    Reset,
    /// It was never made, see `cause`
    ConnectFailed,
    /// The kernel gave up on it; `errno` says why if it had one
    GaveUp,
    /// A listener was closed
    ListenerClosed,
}

/// How a connection was cut off, or why it was never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Cause {
    /// With `ending` `reset`
    Reset(Reset),
    /// With `ending` `connect_failed`
    Connect(ConnectFailure),
}

/// A process as the kernel saw it in the moment of its call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EventProcess<'a> {
    /// Process id
    pub pid: u32,
    /// Name of the thread group leader
    pub comm: &'a Name,
    /// User id, in the initial user namespace
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// cgroup v2 id; left out where it is about a timewait socket
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// A kernel thread, which closed the connection on someone else's behalf
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub kernel_thread: bool,
}

impl<'a> From<&'a Task> for EventProcess<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            pid: task.key.tgid,
            comm: &task.comm,
            uid: Some(task.uid),
            cgroup_id: Some(task.cgroup_id),
            kernel_thread: task.is_kernel_thread,
        }
    }
}

impl<'a> From<&'a Process> for EventProcess<'a> {
    fn from(process: &'a Process) -> Self {
        Self { pid: process.key.tgid, comm: &process.comm, uid: process.uid, cgroup_id: None, kernel_thread: false }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::ref_option, reason = "serde asks for a reference")]
fn in_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(milliseconds).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde asks for a reference")]
fn by_linux_name<S: Serializer>(state: &Option<TcpState>, serializer: S) -> Result<S::Ok, S::Error> {
    state.map(TcpState::name).serialize(serializer)
}

impl<'a> EventRecord<'a> {
    /// The record of an event; none for what a trace does not show: announcements of processes and, without
    /// `with_states`, transitions that neither end a connection nor concern a listener. `owner`: of the timewait socket an
    /// [`Event::TimeWait`] is about, which does not say it itself.
    #[must_use]
    pub fn of(event: &'a Event, owner: Option<&'a Process>, clock: &Clock, with_states: bool) -> Option<Self> {
        match event {
            Event::Transition(transition) => Self::of_transition(transition, clock, with_states),
            Event::Refused(call) => Some(Self::of_refused(call, clock)),
            Event::Retraction(retraction) => Some(Self::of_retraction(retraction, clock)),
            Event::TimeWait(event) => Self::of_timewait(event, owner, clock, with_states),
            // Only a report's session is told of an end in so few words.
            Event::ProcessSeen(_) | Event::ClosedByPeer(_) => None,
        }
    }

    fn of_timewait(
        event: &'a TimeWaitEvent,
        owner: Option<&'a Process>,
        clock: &Clock,
        with_states: bool,
    ) -> Option<Self> {
        let (kind, left) = match event.change {
            TimeWaitChange::Became if with_states => (EventType::TimeWaitBegan, None),
            TimeWaitChange::Became => return None,
            TimeWaitChange::SynRejected => (EventType::SynRejected, None),
            TimeWaitChange::Left(why) => (EventType::TimeWaitLeft, Some(why)),
        };
        let process = owner.map(EventProcess::from);
        Some(Self { process, left, ..Self::of_connection(kind, event.at, clock, &event.connection) })
    }

    #[inline]
    fn of_transition(transition: &'a Transition, clock: &Clock, with_states: bool) -> Option<Self> {
        let is_listener = transition.old == TcpState::Listen || transition.new == TcpState::Listen;
        let ending = transition.ending();
        let kind = match ending {
            _ if with_states => EventType::Transition,
            _ if is_listener => EventType::Listen,
            Some(_) => EventType::ConnectionEnd,
            None => return None,
        };
        let owner = transition.closer.as_deref().or(transition.opener.as_deref()).or(transition.accepter.as_deref());
        let is_another = |task: &&Task| owner.is_some_and(|owner| owner.key != task.key);
        let opener = transition.opener.as_deref().filter(is_another);
        let accepter = transition.accepter.as_deref().filter(is_another);
        let states = (with_states || is_listener).then_some((transition.old, transition.new));
        let errno = ending.map(|ending| ending_errno(ending, transition)).filter(|&errno| errno != 0);
        let facts = &transition.facts;
        Some(Self {
            process: owner.map(EventProcess::from),
            opener: opener.map(EventProcess::from),
            accepter: accepter.map(EventProcess::from),
            // A listener's other side is the unspecified address, which says nothing.
            local: Some(&transition.connection.local),
            remote: (!is_listener).then_some(&transition.connection.remote),
            direction: transition.opened.filter(|_| !is_listener).map(Direction::from),
            from: states.map(|(from, _)| from),
            to: states.map(|(_, to)| to),
            ending: ending.map(EndingKind::from),
            simultaneous: matches!(
                ending,
                Some(Ending::TimeWait { simultaneous: true, .. } | Ending::TimeWaitRefused { simultaneous: true })
            ),
            cause: ending.and_then(Cause::of),
            closed_first: ending.and((facts.fin_first || facts.fin_second).then_some(facts.fin_first)),
            errno,
            error: errno.map(errno::name),
            duration: transition.born.map(|born| transition.at.since(born)),
            ..Self::bare(kind, transition.at, clock, transition.connection.netns)
        })
    }

    fn of_refused(refused: &'a RefusedCall, clock: &Clock) -> Self {
        Self {
            process: Some(EventProcess::from(&refused.task)),
            local: refused.local.as_ref(),
            call: Some(refused.call),
            options: Some(refused.options),
            errno: Some(refused.errno),
            error: Some(errno::name(refused.errno)),
            ..Self::bare(EventType::Refused, refused.at, clock, refused.netns)
        }
    }

    fn of_retraction(retraction: &'a Retraction, clock: &Clock) -> Self {
        Self::of_connection(EventType::Retraction, retraction.at, clock, &retraction.connection)
    }

    fn of_connection(kind: EventType, at: Timestamp, clock: &Clock, connection: &'a Connection) -> Self {
        let (local, remote) = (Some(&connection.local), Some(&connection.remote));
        Self { local, remote, ..Self::bare(kind, at, clock, connection.netns) }
    }

    #[inline]
    fn bare(kind: EventType, at: Timestamp, clock: &Clock, netns: Netns) -> Self {
        Self {
            schema: EVENT_SCHEMA,
            kind,
            at: clock.wall(at),
            process: None,
            opener: None,
            accepter: None,
            netns,
            local: None,
            remote: None,
            direction: None,
            from: None,
            to: None,
            ending: None,
            simultaneous: false,
            cause: None,
            left: None,
            closed_first: None,
            call: None,
            options: None,
            errno: None,
            error: None,
            duration: None,
        }
    }
}

const fn ending_errno(ending: Ending, transition: &Transition) -> u32 {
    match ending {
        Ending::GaveUp { errno } => errno,
        _ => ending.connect_errno(transition),
    }
}

impl From<Ending> for EndingKind {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::TimeWait { substate: TimeWaitSubstate::TimeWait, .. } => Self::TimeWait,
            Ending::TimeWait { substate: TimeWaitSubstate::FinWait2, .. } => Self::FinWait2,
            Ending::TimeWaitRefused { .. } => Self::TimeWaitRefused,
            Ending::PassiveClose => Self::PassiveClose,
            Ending::Reset(_) => Self::Reset,
            Ending::ConnectFailed(_) => Self::ConnectFailed,
            Ending::GaveUp { .. } => Self::GaveUp,
            Ending::ListenerClosed => Self::ListenerClosed,
        }
    }
}

impl Cause {
    const fn of(ending: Ending) -> Option<Self> {
        match ending {
            Ending::Reset(reset) => Some(Self::Reset(reset)),
            Ending::ConnectFailed(failure) => Some(Self::Connect(failure)),
            _ => None,
        }
    }
}
