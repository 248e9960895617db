//! What can be set of the history.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize as _, Deserializer};

use crate::config::section;

/// Where `firstfin serve` writes, and `firstfin history` reads, unless told otherwise.
pub const DEFAULT_PATH: &str = "/var/lib/firstfin/history.db";

section! {
    /// What is kept for `firstfin history`: minutes by process and destination, and findings with their evidence, in an
    /// SQLite database.
    "history", Config {
        /// Keep a history at all.
        [garde(skip)]
        enabled: bool = true, "true", restart: false;
        /// The database; its folder is made if it is not there. An absolute path that ends in `.db`: a file there that is
        /// damaged is renamed, which must not happen to another one because of a slip in the configuration.
        [garde(custom(is_database_path))]
        path: PathBuf = PathBuf::from(DEFAULT_PATH), "\"/var/lib/firstfin/history.db\"", restart: false;
        /// What is older is deleted: "14d", "36h". From 1h to 3660d.
        [serde(deserialize_with = "duration"), garde(custom(is_sensible_age))]
        max_age: SignedDuration = SignedDuration::from_hours(14 * 24), "\"14d\"", restart: false;
        /// When the database is larger, the oldest of it is deleted: "256MB". From 1MB to 1TiB.
        [garde(custom(is_sensible_size))]
        max_size: ByteSize = ByteSize::mb(256), "\"256MB\"", restart: false;
        /// Processes kept of each minute: those with the most TIME_WAIT, or the most connections that entered it. The others
        /// are kept as one sum. From 1 to 10000.
        [garde(range(min = 1, max = 10_000))]
        processes_per_minute: usize = 100, "100", restart: false;
        /// Destinations, routes (a local address towards a destination) and failures kept of each minute; of each so many, the
        /// most first. The others are kept as one sum. From 1 to 10000.
        [garde(range(min = 1, max = 10_000))]
        destinations_per_minute: usize = 200, "200", restart: false;
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refused = || serde::de::Error::custom(format!("`{text}` is no duration: write 14d, 36h or 1d 12h"));
    let span: Span = text.parse().map_err(|_| refused())?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())
}

/// What garde expects of a validator.
type Verdict = garde::Result;

fn verdict(is_right: bool, wanted: &str) -> Verdict {
    if is_right { Ok(()) } else { Err(garde::Error::new(wanted)) }
}

fn is_database_path(path: &Path, _: &()) -> Verdict {
    let is_right = path.is_absolute() && path.extension().is_some_and(|extension| extension == "db");
    verdict(is_right, "must be an absolute path that ends in .db")
}

fn is_sensible_age(age: &SignedDuration, _: &()) -> Verdict {
    let allowed = SignedDuration::from_hours(1)..=SignedDuration::from_hours(3_660 * 24);
    verdict(allowed.contains(age), "must be from 1h to 3660d")
}

fn is_sensible_size(size: &ByteSize, _: &()) -> Verdict {
    verdict((1_000_000..=1 << 40).contains(&size.as_u64()), "must be from 1MB to 1TiB")
}

#[cfg(test)]
mod tests {
    use garde::Validate as _;

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn nothing_said_is_the_default_and_the_default_is_valid() {
        assert_eq!(read("").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let config = read(
            "enabled = false\npath = '/srv/it.db'\nmax_age = '1d 12h'\nmax_size = '64MiB'\nprocesses_per_minute = 7\n\
             destinations_per_minute = 9\n",
        );
        let expected = Config {
            enabled: false,
            path: PathBuf::from("/srv/it.db"),
            max_age: SignedDuration::from_hours(36),
            max_size: ByteSize::mib(64),
            processes_per_minute: 7,
            destinations_per_minute: 9,
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn refusals_name_the_key_and_what_is_allowed() {
        for (text, key, hint) in [
            ("path = 'history.db'", "path", "absolute path that ends in .db"),
            ("path = '/etc/passwd'", "path", "absolute path that ends in .db"),
            ("max_age = '5m'", "max_age", "from 1h to 3660d"),
            ("max_age = 'long'", "max_age", "write 14d, 36h"),
            ("max_size = '10kB'", "max_size", "from 1MB"),
            ("processes_per_minute = 0", "processes_per_minute", "1"),
            ("max_days = 3", "max_days", "max_age"),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.contains(key) && refusal.contains(hint), "{text}: {refusal}");
        }
    }
}
