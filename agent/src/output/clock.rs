//! Wall-clock time of what the kernel stamps with the time since boot.

use std::time::Duration;

use jiff::{Unit, tz::TimeZone};

use crate::model::Timestamp;

/// Turns the kernel's `CLOCK_BOOTTIME` into wall-clock time, by one reading of both clocks.
///
/// It keeps that reading: a wall clock that is set afterwards does not make the lines of a trace jump.
#[derive(Clone, Debug)]
pub struct Clock {
    wall: jiff::Timestamp,
    boot: Timestamp,
    zone: TimeZone,
}

impl Clock {
    /// A clock that knows that it was `wall` at `boot`, and prints for people in `zone`.
    #[must_use]
    pub const fn new(wall: jiff::Timestamp, boot: Timestamp, zone: TimeZone) -> Self {
        Self { wall, boot, zone }
    }

    /// RFC 3339 in UTC with milliseconds: `2026-05-09T07:29:33.120Z`.
    #[must_use]
    pub fn utc(&self, at: Timestamp) -> String {
        format!("{:.3}", self.wall(at))
    }

    /// Time of day with milliseconds, in the zone given: `09:29:33.120`.
    #[must_use]
    pub fn time_of_day(&self, at: Timestamp) -> String {
        self.wall(at).to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string()
    }

    /// Short name of the zone at the time of the reading: `CEST`, `UTC`, `+02`.
    #[must_use]
    pub fn zone_name(&self) -> String {
        self.wall.to_zoned(self.zone.clone()).strftime("%Z").to_string()
    }

    fn wall(&self, at: Timestamp) -> jiff::Timestamp {
        let exact = if at >= self.boot {
            self.wall.saturating_add(at.since(self.boot))
        } else {
            self.wall.saturating_sub(self.boot.since(at))
        };
        // Only a stamp that is centuries off cannot be added; it stays visible as the reading itself.
        let exact = exact.unwrap_or(self.wall);
        exact.round(Unit::Millisecond).unwrap_or(exact)
    }
}

/// Milliseconds with three decimals kept: `1234.567`.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// For people: `312us`, `4.2ms`, `31.0s`, `12m05s`, `3h20m`.
pub(super) fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_micros() {
        0..1_000 => format!("{}us", duration.as_micros()),
        1_000..1_000_000 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        1_000_000..100_000_000 => format!("{:.1}s", duration.as_secs_f64()),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
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
        assert_eq!(clock.utc(Timestamp(1_000_000_000_000)), "2026-05-09T23:59:59.500Z");
        assert_eq!(clock.utc(Timestamp(1_000_750_400_000)), "2026-05-10T00:00:00.250Z");
        assert_eq!(clock.utc(Timestamp(999_000_000_000)), "2026-05-09T23:59:58.500Z");
        assert_eq!(clock.time_of_day(Timestamp(1_000_750_400_000)), "00:00:00.250");
        assert_eq!(clock.zone_name(), "UTC");
    }

    #[test]
    fn people_get_their_own_zone_and_scripts_do_not() {
        let clock = clock(TimeZone::fixed(jiff::tz::offset(2)));
        assert_eq!(clock.time_of_day(Timestamp(1_000_000_000_000)), "01:59:59.500");
        assert_eq!(clock.zone_name(), "+02");
        assert_eq!(clock.utc(Timestamp(1_000_000_000_000)), "2026-05-09T23:59:59.500Z");
    }

    #[test]
    fn a_stamp_that_cannot_be_is_no_panic() {
        assert!(clock(TimeZone::UTC).utc(Timestamp(u64::MAX)).ends_with('Z'));
        assert!(clock(TimeZone::UTC).utc(Timestamp(0)).starts_with("2026-05-09T23:43:19.500"));
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
            assert_eq!(short_duration(duration), expected);
        }
        assert!((milliseconds(Duration::from_nanos(1_234_567_890)) - 1_234.568).abs() < 1e-9);
    }
}
