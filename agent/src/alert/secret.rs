//! Keys and tokens: read from a file or the environment, never shown.

use std::{env, fmt, fs, io, path::PathBuf};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Longest secret that is taken, in bytes: a file that is larger is another file.
const LONGEST: usize = 8 << 10;
/// What is shown instead.
const SHOWN: &str = "[secret]";

/// A key or token. Whoever formats or serialises it gets `[secret]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the request that needs it and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SHOWN)
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, less white space around it
    File(PathBuf),
    /// In a variable of the environment
    Environment(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Why a secret could not be read. Never shows any of it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file could not be read
    #[error("read {source_of}: {error}")]
    Read {
        /// Which file
        source_of: SecretSource,
        /// Why
        #[source]
        error: io::Error,
    },
    /// The variable is not set, or not UTF-8
    #[error("{0} is not set, or is not UTF-8")]
    NotSet(SecretSource),
    /// Nothing is in it
    #[error("{0} is empty")]
    Empty(SecretSource),
    /// It cannot go into a header: longer than 8 KiB, or with control characters
    #[error("{0} holds more than one line, control characters, or more than 8 KiB")]
    Malformed(SecretSource),
}

impl SecretSource {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not there, empty, or cannot be a key or token.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let text = match self {
            Self::File(path) => {
                fs::read_to_string(path).map_err(|error| SecretError::Read { source_of: self.clone(), error })?
            }
            Self::Environment(name) => env::var(name).map_err(|_| SecretError::NotSet(self.clone()))?,
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretError::Empty(self.clone()));
        }
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(SecretError::Malformed(self.clone()));
        }
        Ok(Secret(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(name: &str, content: &[u8]) -> SecretSource {
        let path = env::temp_dir().join(format!("firstfin-secret-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        SecretSource::File(path)
    }

    #[test]
    fn no_format_shows_it() {
        let source = in_file("shown", b"  swordfish\n");
        let secret = source.read().unwrap();
        assert_eq!(secret.expose(), "swordfish");
        let shown = format!("{secret} {secret:?} {:?} {}", Some(&secret), serde_json::to_string(&secret).unwrap());
        assert_eq!(shown, "[secret] [secret] Some([secret]) \"[secret]\"");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for (name, content) in [("empty", &b" \n"[..]), ("two-lines", b"swordfish\nswordfish"), ("bytes", b"\xffsword")]
        {
            let error = in_file(name, content).read().unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("swordfish"), "{error}");
        }
        let error = in_file("long", &[b'x'; LONGEST + 1]).read().unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
        let error = SecretSource::Environment("FIRSTFIN_NO_SUCH_SECRET".to_owned()).read().unwrap_err();
        assert_eq!(error.to_string(), "environment variable FIRSTFIN_NO_SUCH_SECRET is not set, or is not UTF-8");
    }
}
