//! Lines of `firstfin trace`: one event each, in columns for people or as JSON for programs.

mod record;
#[cfg(test)]
mod tests;

use std::{fmt::Write as _, time::Duration};

pub use self::record::{Cause, EVENT_SCHEMA, EndingKind, EventProcess, EventRecord, EventType};
use super::{
    clock::{Clock, short_duration},
    words,
};
use crate::{
    model::{Call, ConnectFailure, Event, Leaving, Netns, Process, Reset, Timestamp},
    report::Direction,
};

/// What the lines of one trace have in common.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Gives the time of day
    pub clock: Clock,
    /// Every transition is a line, not only ends of connections
    pub with_states: bool,
    /// The namespace that goes without saying; each other one is printed
    pub host_netns: Option<Netns>,
}

const TIME: usize = 12;
/// `comm` and a pid of seven digits
const PROCESS: usize = 24;
const STATES: usize = 26;
const WHAT: usize = 36;
const AFTER: usize = 7;

impl Lines {
    /// The line above all others, for people; ended by a newline.
    #[must_use]
    pub fn header(&self) -> String {
        let time = format!("TIME {}", self.clock.zone_name());
        let states = if self.with_states { format!("{:STATES$}  ", "STATES") } else { String::new() };
        format!(
            "{time:TIME$}  {:PROCESS$}  {states}{:WHAT$}  {:>AFTER$}  LOCAL -> REMOTE\n",
            "PROCESS", "WHAT", "AFTER"
        )
    }

    /// The event in columns, ended by a newline; none if a trace does not show it.
    ///
    /// `owner`: whose the timewait socket is that the event is about; other events say it themselves.
    ///
    /// The arrow between both ends tells who opened the connection: `->` this side, `<-` the other one, `--` unknown.
    #[must_use]
    pub fn text(&self, event: &Event, owner: Option<&Process>) -> Option<String> {
        let record = EventRecord::of(event, owner, &self.clock, self.with_states)?;
        let time = self.clock.time_of_day(at(event));
        let process = record.process.as_ref().map_or_else(|| "-".to_owned(), process);
        let mut line = format!("{time:TIME$}  {process:PROCESS$}  ");
        if self.with_states {
            let states = record.from.zip(record.to).map(|(from, to)| format!("{from} -> {to}")).unwrap_or_default();
            let _ = write!(line, "{states:STATES$}  ");
        }
        let after = record.duration_ms.map(|ms| short_duration(Duration::from_secs_f64(ms / 1e3))).unwrap_or_default();
        let _ = write!(line, "{:WHAT$}  {after:>AFTER$}  {}", what(&record), ends(&record));
        if self.host_netns != Some(record.netns) {
            let _ = write!(line, "  netns {}", record.netns);
        }
        if let Some(options) = record.options.filter(|&options| options != Default::default()) {
            let _ = write!(line, "  options {}", words::options(options));
        }
        if let Some(opener) = &record.opener {
            let _ = write!(line, "  opened by {}", self::process(opener));
        }
        if let Some(accepter) = &record.accepter {
            let _ = write!(line, "  accepted by {}", self::process(accepter));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        Some(line)
    }

    /// The event as a JSON object in one line, ended by a newline; none if a trace does not show it.
    ///
    /// # Errors
    /// Those of serde_json: none for a record, which has no keys but strings.
    pub fn json(&self, event: &Event, owner: Option<&Process>) -> serde_json::Result<Option<String>> {
        let Some(record) = EventRecord::of(event, owner, &self.clock, self.with_states) else { return Ok(None) };
        let mut line = serde_json::to_string(&record)?;
        line.push('\n');
        Ok(Some(line))
    }
}

const fn at(event: &Event) -> Timestamp {
    match event {
        Event::Transition(transition) => transition.at,
        Event::Retraction(retraction) => retraction.at,
        Event::Refused(refused) => refused.at,
        Event::TimeWait(event) => event.at,
        // Shown by no trace; it has no time of its own.
        Event::ProcessSeen(_) => Timestamp(0),
    }
}

fn process(process: &EventProcess) -> String {
    format!("{}[{}]", process.comm, process.pid)
}

fn ends(record: &EventRecord) -> String {
    let local = record.local.as_deref().unwrap_or("an address that could not be read");
    let arrow = match record.direction {
        Some(Direction::Outbound) => "->",
        Some(Direction::Inbound) => "<-",
        None => "--",
    };
    record.remote.as_ref().map_or_else(|| local.to_owned(), |remote| format!("{local} {arrow} {remote}"))
}

fn what(record: &EventRecord) -> String {
    let error = record.error.as_deref().unwrap_or_default();
    match (record.kind, record.ending) {
        (EventType::Refused, _) => {
            let call = match record.call {
                Some(Call::Listen) => "listen",
                Some(Call::Bind) | None => "bind",
            };
            format!("{call} {error}")
        }
        (EventType::Retraction, _) => "no TIME_WAIT after all".to_owned(),
        (EventType::TimeWaitBegan, _) => "TIME_WAIT after FIN_WAIT2".to_owned(),
        (EventType::SynRejected, _) => "SYN for an old connection".to_owned(),
        (EventType::TimeWaitLeft, _) => record.left.map(|why| format!("left: {}", left(why))).unwrap_or_default(),
        (_, Some(ending)) => ended(ending, record, error),
        (_, None) if record.to == Some("LISTEN") => "listening".to_owned(),
        (_, None) => String::new(),
    }
}

fn ended(ending: EndingKind, record: &EventRecord, error: &str) -> String {
    match (ending, record.cause) {
        (EndingKind::TimeWait, _) if record.simultaneous => "TIME_WAIT simultaneous close".to_owned(),
        (EndingKind::TimeWait, _) => "TIME_WAIT active close".to_owned(),
        (EndingKind::FinWait2, _) => "FIN_WAIT2 active close".to_owned(),
        (EndingKind::TimeWaitRefused, _) => "no TIME_WAIT, too many already".to_owned(),
        (EndingKind::PassiveClose, _) => "passive close".to_owned(),
        (EndingKind::ListenerClosed, _) => "listener closed".to_owned(),
        (EndingKind::GaveUp, _) if error.is_empty() => "given up by the kernel".to_owned(),
        (EndingKind::GaveUp, _) => format!("given up {error}"),
        (_, Some(Cause::Reset(kind))) => format!("reset: {}", reset(kind)),
        (_, Some(Cause::Connect(failure))) => connect(failure, error),
        (EndingKind::Reset, _) => "reset".to_owned(),
        (EndingKind::ConnectFailed, _) => format!("connect {error}"),
    }
}

const fn left(why: Leaving) -> &'static str {
    match why {
        Leaving::Expired => "TIME_WAIT expired",
        Leaving::FinNeverCame => "FIN_WAIT2 expired, no FIN",
        Leaving::Reused => "reused by connect()",
        Leaving::NewSyn => "new SYN",
        Leaving::Reset => "RST received",
        Leaving::ResetAfterData => "reset, data after close",
        Leaving::Destroyed => "SOCK_DESTROY",
        Leaving::NetnsGone => "namespace gone",
        Leaving::Unexplained => "reason unknown",
        Leaving::Unseen => "not seen to leave",
    }
}

const fn reset(kind: Reset) -> &'static str {
    match kind {
        Reset::Received => "received",
        Reset::LingerZero => "SO_LINGER 0",
        Reset::UnreadData => "unread data",
        Reset::Disconnected => "AF_UNSPEC",
        Reset::NotAccepted => "not accepted",
        Reset::Destroyed => "SOCK_DESTROY",
    }
}

fn connect(failure: ConnectFailure, error: &str) -> String {
    match failure {
        ConnectFailure::NoFreePort => format!("connect {error} no free port"),
        ConnectFailure::TupleInUse => format!("connect {error} exists already"),
        ConnectFailure::Abandoned => "connect abandoned".to_owned(),
        ConnectFailure::HandshakeBroken => "handshake broken off".to_owned(),
        ConnectFailure::Refused | ConnectFailure::TimedOut | ConnectFailure::Unreachable | ConnectFailure::Other => {
            format!("connect {error}")
        }
    }
}
