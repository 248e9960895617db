//! What most tests begin with, namespace and programs, and what they assert.

use std::{cell::RefCell, net::SocketAddr};

use firstfin::{
    model::{
        Call, Connection, Ending, Event, Name, OpenKind, RefusedCall, SocketOptions, Task, TimeWaitChange,
        TimeWaitSubstate, Timestamp, Transition,
    },
    report::{Finding, Report},
};
use libtest_mimic::Failed;

use crate::{
    actor::{Actor, Conn, Family, Fork, SocketOption},
    case::Outcome,
    netns::Net,
    watch::{self, Watch},
};

/// A namespace under watch.
pub(crate) struct Scene<'a> {
    /// The namespace
    pub(crate) net: Net,
    watch: &'a Watch,
    /// Where the markers of [`Scene::mark`] listened, and since when: ports are used again
    markers: RefCell<Vec<(SocketAddr, Timestamp)>>,
}

/// Whether somebody is taken for a closer only because he looked at the open files just then, see [`Task::is_bystander`]:
/// this process, which is the agent here, or a firstfin that another test has started.
pub(crate) fn looks_at_files(closer: &Task) -> bool {
    closer.is_agent || closer.comm == Name::from("firstfin")
}

/// A user without rights.
pub(crate) const NOBODY: u32 = 65_534;

/// How the end of a connection is to be reported.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// How it ended
    pub(crate) ending: Wanted,
    /// Which way it was opened
    pub(crate) opened: Option<OpenKind>,
    /// Who connected
    pub(crate) opener: Option<&'a Fork>,
    /// Who ended the sending side
    pub(crate) closer: Option<&'a Fork>,
}

/// The ending wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// This one
    Exactly(Ending),
    /// TIME_WAIT, one side having closed first. Whether it begins as FIN_WAIT2 is the kernel's luck: close() leaves a
    /// full socket if the ACK of its FIN arrives while it still holds the lock (`sock_owned_by_user()` in
    /// tcp_rcv_state_process()), and a minisocket otherwise.
    TimeWait,
}

impl Wanted {
    fn is_met_by(self, ending: Option<Ending>) -> bool {
        match self {
            Self::Exactly(wanted) => ending == Some(wanted),
            Self::TimeWait => matches!(ending, Some(Ending::TimeWait { simultaneous: false, .. })),
        }
    }
}

impl From<Ending> for Wanted {
    fn from(ending: Ending) -> Self {
        Self::Exactly(ending)
    }
}

/// The end of an outbound connection.
pub(crate) fn outbound<'a>(ending: impl Into<Wanted>, opener: &'a Fork, closer: Option<&'a Fork>) -> Expected<'a> {
    Expected { ending: ending.into(), opened: Some(OpenKind::Active), opener: Some(opener), closer }
}

/// The end of an inbound connection, which has no opener: the kernel answered the SYN.
pub(crate) fn inbound(ending: impl Into<Wanted>, closer: Option<&Fork>) -> Expected<'_> {
    Expected { ending: ending.into(), opened: Some(OpenKind::Passive), opener: None, closer }
}

/// Orphaned FIN_WAIT2: the process closed, the other side has not yet. Certain only after
/// [`Actor::close_in_fin_wait2`].
pub(crate) const FIN_WAIT2: Ending = Ending::TimeWait { substate: TimeWaitSubstate::FinWait2, simultaneous: false };
/// TIME_WAIT at once: the other side's FIN came while the socket was still a full one.
pub(crate) const TIME_WAIT: Ending = Ending::TimeWait { substate: TimeWaitSubstate::TimeWait, simultaneous: false };

/// Whether a connection is said to be in TIME_WAIT from then on.
pub(crate) fn claims_time_wait(event: &Event) -> bool {
    matches!(event, Event::Transition(end) if matches!(end.ending(), Some(Ending::TimeWait { .. })))
}

impl Scene<'static> {
    /// A namespace watched by the programs all tests share.
    pub(crate) fn new() -> Result<Self, Failed> {
        Self::with(Watch::shared()?)
    }
}

impl<'a> Scene<'a> {
    /// A namespace watched by these programs.
    pub(crate) fn with(watch: &'a Watch) -> Result<Self, Failed> {
        let net = Net::new()?;
        watch.begin(net.id());
        Ok(Self { net, watch, markers: RefCell::default() })
    }

    /// The programs.
    pub(crate) const fn watch(&self) -> &'a Watch {
        self.watch
    }

    /// Starts a workload process.
    pub(crate) fn actor(&self, comm: &str) -> Result<Actor, Failed> {
        self.net.actor(comm).map_err(|error| format!("start actor {comm}: {error}").into())
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.watch.events(self.net.id())
    }

    /// The events so far, for a message.
    pub(crate) fn story(&self) -> String {
        self.watch.story(self.net.id())
    }

    /// Waits for the end of this connection and compares.
    pub(crate) fn ended(&self, conn: &Conn, expected: Expected<'_>) -> Result<Transition, Failed> {
        self.ended_as(conn.connection(&self.net), expected)
    }

    /// The same, for a connection that never had both ends.
    pub(crate) fn ended_as(&self, connection: Connection, expected: Expected<'_>) -> Result<Transition, Failed> {
        let end = self.watch.end(connection)?;
        let what = format!("{} -> {}", connection.local, connection.remote);
        assert!(
            expected.ending.is_met_by(end.ending()),
            "ending of {what}: {:?} wanted\n{}",
            expected.ending,
            self.story()
        );
        assert_eq!(end.opened, expected.opened, "direction of {what}\n{}", self.story());
        self.assert_is(end.opener.as_deref(), expected.opener, &format!("opener of {what}"));
        if !end.closer.as_deref().is_some_and(looks_at_files) {
            self.assert_is(end.closer.as_deref(), expected.closer, &format!("closer of {what}"));
        }
        Ok(end)
    }

    /// One side closes, then the other, and the first is left in TIME_WAIT proper.
    pub(crate) fn leave_time_wait(
        &self,
        (closer, ours): (&mut Actor, Conn),
        (other, theirs): (&mut Actor, Conn),
    ) -> Outcome {
        closer.close(ours.socket)?;
        other.receive_end(theirs.socket)?;
        other.close(theirs.socket)?;
        // The ACK of the last FIN came from there.
        self.watch.end(theirs.connection(&self.net)).map(drop)
    }

    /// Compares a reported process: pid, start time and name.
    pub(crate) fn assert_is(&self, task: Option<&Task>, expected: Option<&Fork>, what: &str) {
        let seen = task.map(|task| (task.key, &task.comm, task.is_kernel_thread));
        let expected = expected.map(|who| (who.key, &who.comm, false));
        assert_eq!(seen, expected, "{what}\n{}", self.story());
    }

    /// Waits for the next refusal of a process and compares.
    pub(crate) fn refused(&self, who: &Fork, expected: Refusal) -> Result<RefusedCall, Failed> {
        let what = format!("refusal of {} for {}", expected.errno, who.comm);
        let call = self.watch.wait(self.net.id(), &what, |events| {
            events.iter().find_map(|event| match event {
                Event::Refused(call) if call.task.key == who.key && call.errno == expected.errno.unsigned_abs() => {
                    Some(call.clone())
                }
                _ => None,
            })
        })?;
        self.assert_is(Some(&call.task), Some(who), "process of the refused call");
        let seen = (call.call, call.local.map(|local| local.to_string()), call.options);
        let wanted = (expected.call, Some(expected.local), expected.options);
        assert_eq!(seen, wanted, "refused call\n{}", self.story());
        Ok(call)
    }

    /// Ends the test: everything that was to be reported has been, and nothing else. `connections` is the number of
    /// ends of connections (not of listeners) expected; and as many as were claimed to be in TIME_WAIT must be there
    /// by the kernel's own count.
    pub(crate) fn finish(&self, connections: usize) -> Outcome {
        let kernel = self.net.kernel_time_wait()?;
        let claimed = self.finish_with_claims(connections)?;
        assert_eq!(
            claimed,
            kernel,
            "connections claimed to be in TIME_WAIT, against the kernel's count\n{}",
            self.story()
        );
        Ok(())
    }

    /// The same without a look at the kernel's count; returns the number of claims.
    pub(crate) fn finish_with_claims(&self, connections: usize) -> Result<u64, Failed> {
        let before = self.mark()?;
        assert_eq!(connection_ends(&before), connections, "ends of connections\n{}", self.story());
        let claims = before.iter().filter(|event| claims_time_wait(event));
        let taken_back = before.iter().filter(|event| match event {
            Event::Retraction(_) => true,
            Event::TimeWait(event) => matches!(event.change, TimeWaitChange::Left(_)),
            _ => false,
        });
        Ok(claims.count().saturating_sub(taken_back.count()) as u64)
    }

    /// Everything that happened has been reported, and no connection has ended.
    pub(crate) fn assert_nothing_ended(&self) -> Outcome {
        assert_eq!(connection_ends(&self.mark()?), 0, "ends of connections\n{}", self.story());
        Ok(())
    }

    /// Makes a connection of its own and returns what was reported before it: all there was to report.
    pub(crate) fn mark(&self) -> Result<Vec<Event>, Failed> {
        let since = watch::now();
        let mut marker = self.actor("ff-marker")?;
        let listener = marker.listen_anywhere(Family::V4)?;
        let conn = marker.connect(listener.address)?;
        // Leaves nothing in TIME_WAIT.
        marker.set(conn.socket, SocketOption::LingerZero)?;
        marker.close(conn.socket)?;
        self.watch.end(conn.connection(&self.net))?;
        let mut events = self.events();
        let is_of = |event: &Event, (marker, since): (SocketAddr, Timestamp)| match event {
            Event::Transition(transition) => {
                let ends = [transition.connection.local, transition.connection.remote];
                transition.at >= since && ends.contains(&marker)
            }
            _ => false,
        };
        let marker = (listener.address, since);
        events.retain(|event| !self.markers.borrow().iter().any(|&marker| is_of(event, marker)));
        events.truncate(events.iter().position(|event| is_of(event, marker)).unwrap_or(events.len()));
        self.markers.borrow_mut().push(marker);
        Ok(events)
    }
}

/// How a refused call is to be reported.
pub(crate) struct Refusal {
    /// Which call
    pub(crate) call: Call,
    /// The address asked for, as text
    pub(crate) local: String,
    /// What the process got
    pub(crate) errno: i32,
    /// The options of its socket
    pub(crate) options: SocketOptions,
}

/// The errno of a call that was to fail.
pub(crate) fn errno_of<T: std::fmt::Debug>(result: std::io::Result<T>) -> Result<i32, Failed> {
    match result {
        Ok(value) => Err(format!("this should have failed: {value:?}").into()),
        Err(error) => error.raw_os_error().ok_or_else(|| error.to_string().into()),
    }
}

/// Ends of connections, listeners not counted.
fn connection_ends(events: &[Event]) -> usize {
    let is_end = |event: &&Event| match event {
        Event::Transition(end) => !matches!(end.ending(), None | Some(Ending::ListenerClosed)),
        _ => false,
    };
    events.iter().filter(is_end).count()
}

/// The finding of this kind about a process.
pub(crate) fn finding<'a>(report: &'a Report, id: &str, who: &Fork) -> Result<&'a Finding, Failed> {
    let is_its = |finding: &&Finding| {
        let process = finding.process.as_ref().map(|process| (process.pid, &process.comm));
        finding.id == id && process == Some((who.key.tgid, &who.comm))
    };
    let found = report.findings.iter().find(is_its);
    found.ok_or_else(|| format!("no {id} of {who:?}: {:#?}", report.findings).into())
}
