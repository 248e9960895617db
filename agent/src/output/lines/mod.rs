//! Lines of `firstfin trace`: one event each, in columns for people or as JSON for programs.

mod columns;
mod record;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::columns::{DURATION, Line, surplus, write_duration, write_endpoint, write_state};
pub use self::record::{Cause, EVENT_SCHEMA, EndingKind, EventProcess, EventRecord, EventType};
use super::{clock::Clock, words};
use crate::{
    model::{Call, ConnectFailure, Event, Leaving, Netns, Process, Reset, TcpState},
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

impl Lines {
    /// The line above all others, for people; ended by a newline.
    #[must_use]
    pub fn header(&self) -> String {
        let time = format!("TIME {}", self.clock.zone_name());
        let states = if self.with_states { format!("{:STATES$}  ", "STATES") } else { String::new() };
        format!(
            "{time:TIME$}  {:PROCESS$}  {states}{:WHAT$}  {:>DURATION$}  LOCAL -> REMOTE\n",
            "PROCESS", "WHAT", "AFTER"
        )
    }

    /// Writes the event in columns, ended by a newline; false if a trace does not show it. It is UTF-8.
    ///
    /// `owner`: whose the timewait socket is that the event is about; other events say it themselves.
    ///
    /// The arrow between both ends tells who opened the connection: `->` this side, `<-` the other one, `--` unknown.
    pub fn write_text(&self, event: &Event, owner: Option<&Process>, out: &mut Vec<u8>) -> bool {
        let Some(record) = EventRecord::of(event, owner, &self.clock, self.with_states) else { return false };
        let mut line = Line::begin(out);
        line.column(TIME, |out| self.clock.write_time_of_day(record.at, out));
        let surplus = record.process.as_ref().map_or(0, |process| surplus(process.comm.as_str()));
        line.column(PROCESS + surplus, |out| match &record.process {
            Some(process) => write_process(process, out),
            None => out.push(b'-'),
        });
        if self.with_states {
            line.column(STATES, |out| {
                if let (Some(from), Some(to)) = (record.from, record.to) {
                    write_state(from, out);
                    out.extend_from_slice(b" -> ");
                    write_state(to, out);
                }
            });
        }
        line.column(WHAT, |out| {
            let what = what(&record);
            if !what.is_empty() {
                out.extend_from_slice(what.as_bytes());
            }
        });
        line.column(DURATION, |out| {
            if let Some(duration) = record.duration {
                write_duration(duration, out);
            }
        });
        let out = line.rest();
        write_ends(&record, out);
        if self.host_netns != Some(record.netns) {
            out.extend_from_slice(b"  netns ");
            out.extend_from_slice(itoa::Buffer::new().format(record.netns.0).as_bytes());
        }
        if let Some(options) = record.options.filter(|&options| options != Default::default()) {
            out.extend_from_slice(b"  options ");
            out.extend_from_slice(words::options(options).as_bytes());
        }
        for (says, who) in [("  opened by ", &record.opener), ("  accepted by ", &record.accepter)] {
            if let Some(who) = who {
                out.extend_from_slice(says.as_bytes());
                write_process(who, out);
            }
        }
        out.push(b'\n');
        true
    }

    /// Writes the event as a JSON object in one line, ended by a newline; false if a trace does not show it.
    ///
    /// # Errors
    /// Those of serde_json: none for a record, which has no keys but strings.
    pub fn write_json(&self, event: &Event, owner: Option<&Process>, out: &mut Vec<u8>) -> serde_json::Result<bool> {
        let Some(record) = EventRecord::of(event, owner, &self.clock, self.with_states) else { return Ok(false) };
        serde_json::to_writer(&mut *out, &record)?;
        out.push(b'\n');
        Ok(true)
    }
}

fn write_process(process: &EventProcess<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(process.comm.as_str().as_bytes());
    out.push(b'[');
    out.extend_from_slice(itoa::Buffer::new().format(process.pid).as_bytes());
    out.push(b']');
}

fn write_ends(record: &EventRecord<'_>, out: &mut Vec<u8>) {
    match record.local {
        Some(local) => write_endpoint(local, out),
        None => out.extend_from_slice(b"an address that could not be read"),
    }
    if let Some(remote) = record.remote {
        out.extend_from_slice(match record.direction {
            Some(Direction::Outbound) => b" -> ",
            Some(Direction::Inbound) => b" <- ",
            None => b" -- ",
        });
        write_endpoint(remote, out);
    }
}

fn what(record: &EventRecord<'_>) -> Cow<'static, str> {
    let error = record.error.as_deref().unwrap_or_default();
    match (record.kind, record.ending) {
        (EventType::Refused, _) => {
            let call = match record.call {
                Some(Call::Listen) => "listen",
                Some(Call::Bind) | None => "bind",
            };
            format!("{call} {error}").into()
        }
        (EventType::Retraction, _) => "no TIME_WAIT after all".into(),
        (EventType::TimeWaitBegan, _) => "TIME_WAIT after FIN_WAIT2".into(),
        (EventType::SynRejected, _) => "SYN for an old connection".into(),
        (EventType::TimeWaitLeft, _) => {
            record.left.map(|why| format!("left: {}", left(why)).into()).unwrap_or_default()
        }
        (_, Some(ending)) => ended(ending, record, error),
        (_, None) if record.to == Some(TcpState::Listen) => "listening".into(),
        (_, None) => Cow::default(),
    }
}

fn ended(ending: EndingKind, record: &EventRecord<'_>, error: &str) -> Cow<'static, str> {
    match (ending, record.cause) {
        (EndingKind::TimeWait, _) if record.simultaneous => "TIME_WAIT simultaneous close".into(),
        (EndingKind::TimeWait, _) => "TIME_WAIT active close".into(),
        (EndingKind::FinWait2, _) => "FIN_WAIT2 active close".into(),
        (EndingKind::TimeWaitRefused, _) => "no TIME_WAIT, too many already".into(),
        (EndingKind::PassiveClose, _) => "passive close".into(),
        (EndingKind::ListenerClosed, _) => "listener closed".into(),
        (EndingKind::GaveUp, _) if error.is_empty() => "given up by the kernel".into(),
        (EndingKind::GaveUp, _) => format!("given up {error}").into(),
        (_, Some(Cause::Reset(kind))) => format!("reset: {}", reset(kind)).into(),
        (_, Some(Cause::Connect(failure))) => connect(failure, error).into(),
        (EndingKind::Reset, _) => "reset".into(),
        (EndingKind::ConnectFailed, _) => format!("connect {error}").into(),
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
