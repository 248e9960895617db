//! Wall-clock time of what the kernel stamps with the time since boot.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt::{self, Write as _},
    time::Duration,
};

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::model::Timestamp;

/// Turns the kernel's `CLOCK_BOOTTIME` into wall-clock time, by one reading of both clocks.
///
/// It keeps that reading: a wall clock that is set afterwards does not make the lines of a trace jump.
#[derive(Clone, Debug)]
pub struct Clock {
    wall: jiff::Timestamp,
    /// Nanoseconds from 1970 to boot
    booted: i64,
    zone: TimeZone,
    /// The last second that was written, and how: a trace of a busy host has thousands of lines in each
    written: RefCell<(i64, String)>,
}

/// A moment on the wall clock, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milliseconds(i64);

impl Milliseconds {
    fn timestamp(self) -> jiff::Timestamp {
        // Only a stamp that is centuries off is none.
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-05-09T07:29:33.120Z`.
impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.timestamp())
    }
}

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Milliseconds {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Milliseconds".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl Clock {
    /// A clock that knows that it was `wall` at `boot`, and prints for people in `zone`.
    #[must_use]
    pub fn new(wall: jiff::Timestamp, boot: Timestamp, zone: TimeZone) -> Self {
        // Centuries off at the worst, as is a stamp that cannot be.
        let booted = i64::try_from(wall.as_nanosecond() - i128::from(boot.0)).unwrap_or_default();
        Self { wall, booted, zone, written: RefCell::new((i64::MIN, String::new())) }
    }

    /// Time of day with milliseconds, in the zone given: `09:29:33.120`.
    pub fn write_time_of_day(&self, at: Milliseconds, out: &mut String) {
        let (second, millisecond) = (at.0.div_euclid(1_000), at.0.rem_euclid(1_000));
        let (written, text) = &mut *self.written.borrow_mut();
        if *written != second {
            *text = at.timestamp().to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
            *written = second;
        }
        out.push_str(text);
        out.push('.');
        // Four digits, of which the first one is there for the zeroes behind it.
        out.push_str(itoa::Buffer::new().format(1_000 + millisecond).get(1..).unwrap_or_default());
    }

    /// Short name of the zone at the time of the reading: `CEST`, `UTC`, `+02`.
    #[must_use]
    pub fn zone_name(&self) -> String {
        self.wall.to_zoned(self.zone.clone()).strftime("%Z").to_string()
    }

    /// What the wall clock showed, to the nearest millisecond.
    #[must_use]
    pub fn wall(&self, at: Timestamp) -> Milliseconds {
        let exact = self.booted.saturating_add_unsigned(at.0);
        Milliseconds(exact.saturating_add(500_000).div_euclid(1_000_000))
    }
}

/// Milliseconds with three decimals kept: `1234.567`.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// For people: `312us`, `4.2ms`, `31.0s`, `12m05s`, `3h20m`.
pub(super) fn write_short_duration(duration: Duration, out: &mut String) {
    // Most lines of a trace have one: neither 128 bits nor `std::fmt` have a part in it.
    let seconds = duration.as_secs();
    let microseconds = seconds.saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into());
    let mut digits = itoa::Buffer::new();
    // In tenths of a unit.
    let mut with_tenth = |tenths: u64, unit| {
        out.push_str(digits.format(tenths / 10));
        out.push('.');
        out.push_str(digits.format(tenths % 10));
        out.push_str(unit);
    };
    match microseconds {
        0..1_000 => {
            out.push_str(digits.format(microseconds));
            out.push_str("us");
        }
        1_000..1_000_000 => with_tenth((microseconds + 50) / 100, "ms"),
        1_000_000..100_000_000 => with_tenth((microseconds + 50_000) / 100_000, "s"),
        // Writing to a string does not fail.
        _ if seconds < 3600 => drop(write!(out, "{}m{:02}s", seconds / 60, seconds % 60)),
        _ => drop(write!(out, "{}h{:02}m", seconds / 3600, seconds / 60 % 60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(zone: TimeZone) -> Clock {
        let wall = "2026-05-09T23:59:59.5Z".parse().unwrap();
        Clock::new(wall, Timestamp(1_000_000_000_000), zone)
    }

    #[test]
    fn before_and_after_the_reading() {
        let clock = clock(TimeZone::UTC);
        let utc = |at| clock.wall(Timestamp(at)).to_string();
        assert_eq!(utc(1_000_000_000_000), "2026-05-09T23:59:59.500Z");
        assert_eq!(utc(1_000_750_400_000), "2026-05-10T00:00:00.250Z");
        assert_eq!(utc(999_000_000_000), "2026-05-09T23:59:58.500Z");
        let mut text = String::new();
        for at in [1_000_750_400_000, 1_000_503_500_000, 1_001_000_000_000] {
            clock.write_time_of_day(clock.wall(Timestamp(at)), &mut text);
            text.push(' ');
        }
        assert_eq!(text, "00:00:00.250 00:00:00.004 00:00:00.500 ");
        assert_eq!(clock.zone_name(), "UTC");
    }

    #[test]
    fn people_get_their_own_zone_and_scripts_do_not() {
        let clock = clock(TimeZone::fixed(jiff::tz::offset(2)));
        let mut text = String::new();
        clock.write_time_of_day(clock.wall(Timestamp(1_000_000_000_000)), &mut text);
        assert_eq!(text, "01:59:59.500");
        assert_eq!(clock.zone_name(), "+02");
        assert_eq!(clock.wall(Timestamp(1_000_000_000_000)).to_string(), "2026-05-09T23:59:59.500Z");
    }

    #[test]
    fn a_stamp_that_cannot_be_is_no_panic() {
        assert!(clock(TimeZone::UTC).wall(Timestamp(u64::MAX)).to_string().ends_with('Z'));
        assert!(clock(TimeZone::UTC).wall(Timestamp(0)).to_string().starts_with("2026-05-09T23:43:19.500"));
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        for (duration, expected) in [
            (Duration::from_nanos(400), "0us"),
            (Duration::from_micros(312), "312us"),
            (Duration::from_micros(4_230), "4.2ms"),
            (Duration::from_secs(31), "31.0s"),
            (Duration::from_secs(725), "12m05s"),
            (Duration::from_secs(12_000), "3h20m"),
        ] {
            let mut text = String::new();
            write_short_duration(duration, &mut text);
            assert_eq!(text, expected);
        }
        assert!((milliseconds(Duration::from_nanos(1_234_567_890)) - 1_234.568).abs() < 1e-9);
    }
}
