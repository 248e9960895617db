//! A moment on the wall clock, and a length of time, as they stand in the state file and in the configuration.

use std::{borrow::Cow, fmt, str::FromStr as _, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::cli::values;

/// A moment on the wall clock; RFC 3339 in UTC with milliseconds where it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub jiff::Timestamp);

impl Moment {
    /// Time since `earlier`, zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0.duration_since(earlier.0)).unwrap_or(Duration::ZERO)
    }

    /// This moment and `length`, at most the end of time.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        Self(self.0.checked_add(length).unwrap_or(jiff::Timestamp::MAX))
    }

    /// This moment less `length`, at least the beginning of time.
    #[must_use]
    pub fn minus(self, length: Duration) -> Self {
        Self(self.0.checked_sub(length).unwrap_or(jiff::Timestamp::MIN))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        jiff::Timestamp::from_str(&text).map(Self).map_err(de::Error::custom)
    }
}

/// A length of time as it is configured: a number with a unit, `10s`, `5m`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        // jiff writes `1h 30m`; without the space it can be typed on a command line, too.
        f.write_str(&format!("{length:#}").replace(' ', ""))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        if matches!(text.as_ref(), "0" | "0s") {
            return Ok(Self(Duration::ZERO));
        }
        values::duration(&text).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_periods_come_back_as_they_were_written() {
        let moment: Moment = serde_json::from_str("\"2026-05-09T07:29:33.120Z\"").unwrap();
        assert_eq!(serde_json::to_string(&moment).unwrap(), "\"2026-05-09T07:29:33.120Z\"");
        for text in ["0s", "500ms", "10s", "1m30s", "4h"] {
            let period: Period = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(period.to_string(), text);
        }
        let error = serde_json::from_str::<Period>("\"5\"").unwrap_err().to_string();
        assert!(error.contains("a number with a unit is needed"), "{error}");
    }

    #[test]
    fn time_that_went_backwards_is_no_time() {
        let (early, late) = (Moment("2026-05-09T07:00:00Z".parse().unwrap()), "2026-05-09T08:00:00Z".parse().unwrap());
        assert_eq!(early.since(Moment(late)), Duration::ZERO);
        assert_eq!(Moment(late).since(early), Duration::from_secs(3600));
        assert_eq!(Moment(late).minus(Duration::from_secs(3600)), early);
        assert_eq!(early.plus(Duration::MAX).0, jiff::Timestamp::MAX);
    }
}
