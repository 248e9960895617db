//! `firstfin history`: its options, and times as people type them.

use std::{fmt, path::PathBuf};

use clap::{Args, ValueEnum};
use jiff::{
    SignedDuration, Timestamp, Zoned,
    civil::{Date, DateTime, Time},
};

use crate::history::{Address, DEFAULT_PATH};

const EXIT_STATUS_HISTORY: &str = "\
Exit status:
  0  done, also if nothing was recorded in the period
  2  could not run: bad usage, no history, or one that cannot be read

Times: 03:12 (the last time the clock showed that), \"yesterday 22:00\", \"today 9:00\", 2h or \"2h ago\", 2026-05-09,
\"2026-05-09 03:12\", or RFC 3339 (2026-05-09T03:12:00Z). Without a zone they are local time.";

/// `firstfin history`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_HISTORY)]
pub struct History {
    /// From when on; a day before the end, if not given
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<When>,

    /// Until when; now, if not given
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<When>,

    /// The minutes around this time: from two before to three after
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["since", "until"])]
    pub at: Option<When>,

    /// Only this process: its name, or that of its executable
    #[arg(long, value_name = "NAME")]
    pub process: Option<String>,

    /// Only processes of this systemd unit
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,

    /// Only processes of this container: its name or the beginning of its id, or the name or uid of its pod
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,

    /// Only what went to this address, or was served there: 10.0.0.2, 10.0.0.2:5432, [::1]:80
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = address)]
    pub destination: Option<Address>,

    /// Only findings of this kind: BindConflict, EphemeralPortExhaustion
    #[arg(long, value_name = "ID", value_parser = finding)]
    pub finding: Option<String>,

    /// What the answer is about; in CSV, what a line is: a minute of a process, of a destination, or of the host
    #[arg(long, value_name = "WHAT", default_value_t = By::Process)]
    pub by: By,

    /// The database; a copy will do
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub database: PathBuf,

    /// Form of the output; JSON is "firstfin.history/1"
    #[arg(long, value_name = "FORMAT", default_value_t = HistoryFormat::Text)]
    pub format: HistoryFormat,

    /// How many entries of each list to show; CSV has all of them
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
}

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Processes first
    Process,
    /// Destinations first
    Destination,
    /// Single minutes first
    Minute,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Process => "process",
            Self::Destination => "destination",
            Self::Minute => "minute",
        })
    }
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HistoryFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// For spreadsheets: a line for each minute
    Csv,
}

impl fmt::Display for HistoryFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Csv => "csv",
        })
    }
}

/// A time as it is typed. Which moment it is depends on the clock and the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The last time the clock showed this
    Clock(Time),
    /// Today at this time, or so many days before
    Day(i8, Time),
    /// So long ago
    Ago(SignedDuration),
    /// A local date and time
    Local(DateTime),
    /// A moment
    Moment(Timestamp),
}

impl When {
    /// Which moment it is, if it is `now`. None: there is no such moment.
    #[must_use]
    pub fn resolve(self, now: &Zoned) -> Option<Timestamp> {
        let zone = now.time_zone();
        let on = |day: Date, time: Time| day.to_datetime(time).to_zoned(zone.clone()).ok().map(|at| at.timestamp());
        match self {
            Self::Clock(time) => {
                let today = on(now.date(), time)?;
                if today <= now.timestamp() { Some(today) } else { on(now.date().yesterday().ok()?, time) }
            }
            Self::Day(0, time) => on(now.date(), time),
            Self::Day(_, time) => on(now.date().yesterday().ok()?, time),
            Self::Ago(duration) => now.timestamp().checked_sub(duration).ok(),
            Self::Local(at) => on(at.date(), at.time()),
            Self::Moment(at) => Some(at),
        }
    }
}

pub(super) fn time(text: &str) -> Result<When, String> {
    let text = text.trim();
    let refused = || {
        "a time is needed: 03:12, \"yesterday 22:00\", 2h, 2026-05-09, \"2026-05-09 03:12\" or 2026-05-09T03:12:00Z"
            .to_owned()
    };
    if text == "now" {
        return Ok(When::Ago(SignedDuration::ZERO));
    }
    for (word, days) in [("today", 0), ("yesterday", 1)] {
        if let Some(rest) = text.strip_prefix(word) {
            let rest = rest.trim();
            let time = if rest.is_empty() { Some(Time::midnight()) } else { clock(rest) };
            return time.map(|time| When::Day(days, time)).ok_or_else(refused);
        }
    }
    if let Some(time) = clock(text) {
        return Ok(When::Clock(time));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(When::Moment(at));
    }
    if let Ok(at) = text.parse::<DateTime>() {
        return Ok(When::Local(at));
    }
    if let Ok(day) = text.parse::<Date>() {
        return Ok(When::Local(day.to_datetime(Time::midnight())));
    }
    ago(text).map(When::Ago).ok_or_else(refused)
}

/// `3:12`, `03:12`, `03:12:30`
fn clock(text: &str) -> Option<Time> {
    let parts: Vec<_> = text.split(':').collect();
    let is_number = |part: &&str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !parts.iter().all(is_number) {
        return None;
    }
    let number = |part: &str| part.parse::<i8>().ok();
    match parts[..] {
        [hour, minute] => Time::new(number(hour)?, number(minute)?, 0, 0).ok(),
        [hour, minute, second] => Time::new(number(hour)?, number(minute)?, number(second)?, 0).ok(),
        _ => None,
    }
}

/// `2h`, `90m`, `1d 12h ago`
fn ago(text: &str) -> Option<SignedDuration> {
    let span: jiff::Span = text.strip_suffix("ago").unwrap_or(text).trim().parse().ok()?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    (!duration.is_negative()).then_some(duration)
}

fn address(text: &str) -> Result<Address, String> {
    if let Ok(at) = text.parse::<std::net::SocketAddr>() {
        return Ok(Address { ip: at.ip(), port: Some(at.port()) });
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse()
        .map(|ip| Address { ip, port: None })
        .map_err(|_| "an address is needed, with or without a port: 10.0.0.2, 10.0.0.2:5432 or [::1]:80".to_owned())
}

fn finding(text: &str) -> Result<String, String> {
    let ids = crate::analysis::IDS;
    let found = ids.iter().find(|id| id.eq_ignore_ascii_case(text));
    found.map(|id| (*id).to_owned()).ok_or_else(|| format!("the kinds of findings are {}", ids.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturday, two days before; summer time, two hours ahead of UTC.
    fn now() -> Zoned {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        "2026-05-09T09:30:00+02:00".parse::<Timestamp>().unwrap().to_zoned(zone)
    }

    #[test]
    fn times_are_what_people_mean() {
        for (text, expected) in [
            ("03:12", "2026-05-09T01:12:00Z"),
            ("3:12", "2026-05-09T01:12:00Z"),
            ("03:12:30", "2026-05-09T01:12:30Z"),
            ("22:00", "2026-05-08T20:00:00Z"),
            ("today", "2026-05-08T22:00:00Z"),
            ("today 22:00", "2026-05-09T20:00:00Z"),
            ("yesterday 22:00", "2026-05-08T20:00:00Z"),
            ("yesterday", "2026-05-07T22:00:00Z"),
            ("now", "2026-05-09T07:30:00Z"),
            ("2h", "2026-05-09T05:30:00Z"),
            ("2h ago", "2026-05-09T05:30:00Z"),
            ("1d 12h ago", "2026-05-07T19:30:00Z"),
            ("2026-05-01", "2026-04-30T22:00:00Z"),
            ("2026-05-01 03:12", "2026-05-01T01:12:00Z"),
            ("2026-05-01T03:12", "2026-05-01T01:12:00Z"),
            ("2026-05-01T03:12:00Z", "2026-05-01T03:12:00Z"),
            ("2026-05-01T03:12:00-05:00", "2026-05-01T08:12:00Z"),
        ] {
            let at = time(text).unwrap_or_else(|error| panic!("{text}: {error}")).resolve(&now()).unwrap();
            assert_eq!(at.to_string(), expected, "{text}");
        }
        for text in ["", "noon", "25:00", "3", "yesterday noon", "-2h", "2026-13-01", "12:60"] {
            assert!(time(text).is_err(), "{text}: {:?}", time(text));
        }
    }

    #[test]
    fn addresses_and_findings_are_checked() {
        assert_eq!(address("10.0.0.2:80").unwrap().port, Some(80));
        assert_eq!(address("::1").unwrap(), address("[::1]").unwrap());
        assert!(address("db.example").unwrap_err().contains("10.0.0.2:5432"));
        assert_eq!(finding("bindconflict").unwrap(), "BindConflict");
        assert!(finding("Slow").unwrap_err().contains("TimeWaitBuildup"));
    }
}
