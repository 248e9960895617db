//! Lines of `firstfin trace`: one event each, in columns for people or as JSON for programs.

mod record;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt::Write as _, net::SocketAddr};

pub use self::record::{Cause, EVENT_SCHEMA, EndingKind, EventProcess, EventRecord, EventType};
use super::{
    clock::{Clock, write_short_duration},
    words,
};
use crate::{
    model::{Call, ConnectFailure, Event, Leaving, Netns, Process, Reset},
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
/// Blanks between two columns
const GAP: usize = 2;
/// Bytes that are enough for nearly every line
const USUAL: usize = 256;

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

    /// Writes the event in columns, ended by a newline; false if a trace does not show it.
    ///
    /// `owner`: whose the timewait socket is that the event is about; other events say it themselves.
    ///
    /// The arrow between both ends tells who opened the connection: `->` this side, `<-` the other one, `--` unknown.
    pub fn write_text(&self, event: &Event, owner: Option<&Process>, out: &mut String) -> bool {
        let Some(record) = EventRecord::of(event, owner, &self.clock, self.with_states) else { return false };
        let mut line = Line::begin(out);
        line.column(TIME, |out| self.clock.write_time_of_day(record.at, out));
        line.column(PROCESS, |out| match &record.process {
            Some(process) => write_process(process, out),
            None => out.push('-'),
        });
        if self.with_states {
            line.column(STATES, |out| {
                if let (Some(from), Some(to)) = (record.from, record.to) {
                    out.push_str(from);
                    out.push_str(" -> ");
                    out.push_str(to);
                }
            });
        }
        line.column(WHAT, |out| out.push_str(&what(&record)));
        line.right_column(AFTER, |out| {
            if let Some(duration) = record.duration {
                write_short_duration(duration, out);
            }
        });
        let out = line.rest();
        write_ends(&record, out);
        if self.host_netns != Some(record.netns) {
            out.push_str("  netns ");
            out.push_str(itoa::Buffer::new().format(record.netns.0));
        }
        if let Some(options) = record.options.filter(|&options| options != Default::default()) {
            out.push_str("  options ");
            out.push_str(&words::options(options));
        }
        for (says, who) in [("  opened by ", &record.opener), ("  accepted by ", &record.accepter)] {
            if let Some(who) = who {
                out.push_str(says);
                write_process(who, out);
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        true
    }

    /// Writes the event as a JSON object in one line, ended by a newline; false if a trace does not show it.
    ///
    /// # Errors
    /// Those of serde_json: none for a record, which has no keys but strings.
    pub fn write_json(&self, event: &Event, owner: Option<&Process>, out: &mut String) -> serde_json::Result<bool> {
        let Some(record) = EventRecord::of(event, owner, &self.clock, self.with_states) else { return Ok(false) };
        out.push_str(&serde_json::to_string(&record)?);
        out.push('\n');
        Ok(true)
    }
}

/// A line of columns with two blanks between them. Nothing is formatted by `std::fmt` that is in every line: a trace of a
/// busy host has some hundred thousand of them a second.
struct Line<'a>(&'a mut String);

impl<'a> Line<'a> {
    fn begin(out: &'a mut String) -> Self {
        out.reserve(USUAL);
        Self(out)
    }

    /// Text at the left of a column.
    fn column(&mut self, width: usize, write: impl FnOnce(&mut String)) {
        let start = self.0.len();
        write(self.0);
        let written = self.0.get(start..).map_or(0, width_of);
        self.blanks(width.saturating_sub(written) + GAP);
    }

    /// Text at the right of a column.
    fn right_column(&mut self, width: usize, write: impl FnOnce(&mut String)) {
        let start = self.0.len();
        write(self.0);
        let written = self.0.get(start..).map_or(0, width_of);
        self.0.insert_str(start, blanks(width.saturating_sub(written)));
        self.blanks(GAP);
    }

    fn rest(self) -> &'a mut String {
        self.0
    }

    fn blanks(&mut self, count: usize) {
        self.0.push_str(blanks(count));
    }
}

fn blanks(count: usize) -> &'static str {
    const BLANKS: &str = "                                                ";
    BLANKS.get(..count).unwrap_or(BLANKS)
}

/// Characters, which is bytes nearly always.
fn width_of(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

fn write_process(process: &EventProcess, out: &mut String) {
    out.push_str(process.comm.as_str());
    out.push('[');
    out.push_str(itoa::Buffer::new().format(process.pid));
    out.push(']');
}

fn write_ends(record: &EventRecord, out: &mut String) {
    match record.local {
        Some(local) => write_endpoint(local, out),
        None => out.push_str("an address that could not be read"),
    }
    if let Some(remote) = record.remote {
        out.push_str(match record.direction {
            Some(Direction::Outbound) => " -> ",
            Some(Direction::Inbound) => " <- ",
            None => " -- ",
        });
        write_endpoint(remote, out);
    }
}

fn write_endpoint(endpoint: SocketAddr, out: &mut String) {
    let SocketAddr::V4(endpoint) = endpoint else {
        // Writing to a string does not fail.
        let _ = write!(out, "{endpoint}");
        return;
    };
    for (number, octet) in endpoint.ip().octets().into_iter().enumerate() {
        if number > 0 {
            out.push('.');
        }
        write_octet(octet, out);
    }
    out.push(':');
    out.push_str(itoa::Buffer::new().format(endpoint.port()));
}

/// Digit by digit: that is faster than to copy them from where they have been written.
fn write_octet(octet: u8, out: &mut String) {
    let mut digit = |digit: u8| out.push(char::from(b'0' + digit % 10));
    if octet >= 100 {
        digit(octet / 100);
    }
    if octet >= 10 {
        digit(octet / 10);
    }
    digit(octet);
}

fn what(record: &EventRecord) -> Cow<'static, str> {
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
        (_, None) if record.to == Some("LISTEN") => "listening".into(),
        (_, None) => Cow::default(),
    }
}

fn ended(ending: EndingKind, record: &EventRecord, error: &str) -> Cow<'static, str> {
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
