//! Wall-clock time of what the kernel stamps with the time since boot.

use std::{borrow::Cow, cell::RefCell, fmt, io::Write as _, time::Duration};

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
    written: RefCell<(i64, [u8; 8])>,
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
        Self { wall, booted, zone, written: RefCell::new((i64::MIN, [0; 8])) }
    }

    /// Time of day with milliseconds, in the zone given: `09:29:33.120`.
    pub fn write_time_of_day(&self, at: Milliseconds, out: &mut Vec<u8>) {
        let (second, millisecond) = (at.0.div_euclid(1_000), at.0.rem_euclid(1_000));
        let (written, text) = &mut *self.written.borrow_mut();
        if *written != second {
            // It is as long as there is room: two digits each, whatever the zone.
            let _ = write!(text.as_mut_slice(), "{}", at.timestamp().to_zoned(self.zone.clone()).strftime("%H:%M:%S"));
            *written = second;
        }
        let digit = |of| b'0' + (millisecond / of % 10) as u8;
        out.extend_from_slice(text);
        out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
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
        let mut text = Vec::new();
        for at in [1_000_750_400_000, 1_000_503_500_000, 1_001_000_000_000] {
            clock.write_time_of_day(clock.wall(Timestamp(at)), &mut text);
            text.push(b' ');
        }
        assert_eq!(text, b"00:00:00.250 00:00:00.004 00:00:00.500 ");
        assert_eq!(clock.zone_name(), "UTC");
    }

    #[test]
    fn people_get_their_own_zone_and_scripts_do_not() {
        let clock = clock(TimeZone::fixed(jiff::tz::offset(2)));
        let mut text = Vec::new();
        clock.write_time_of_day(clock.wall(Timestamp(1_000_000_000_000)), &mut text);
        assert_eq!(text, b"01:59:59.500");
        assert_eq!(clock.zone_name(), "+02");
        assert_eq!(clock.wall(Timestamp(1_000_000_000_000)).to_string(), "2026-05-09T23:59:59.500Z");
    }

    #[test]
    fn a_stamp_that_cannot_be_is_no_panic() {
        assert!(clock(TimeZone::UTC).wall(Timestamp(u64::MAX)).to_string().ends_with('Z'));
        assert!(clock(TimeZone::UTC).wall(Timestamp(0)).to_string().starts_with("2026-05-09T23:43:19.500"));
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        assert!((milliseconds(Duration::from_nanos(1_234_567_890)) - 1_234.568).abs() < 1e-9);
    }
}
