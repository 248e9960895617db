//! Why alerts could not be started or reloaded.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::secret::SecretError;

/// Why alerts could not be started or reloaded. After a failed reload everything is as it was.
#[derive(Debug, Error)]
pub enum AlertsError {
    /// The configuration breaks a rule: which key, and what is allowed
    #[error("alerts: {0}")]
    Invalid(#[from] garde::Report),
    /// A key or token could not be read
    #[error("alerts: receiver {receiver}: {error}")]
    Secret {
        /// Which receiver
        receiver: String,
        /// Why
        #[source]
        error: SecretError,
    },
    /// An address came out of a file or variable, and is none
    #[error("alerts: receiver {receiver}: {reason}")]
    Address {
        /// Which receiver
        receiver: String,
        /// What is wrong, and what is allowed
        reason: String,
    },
    /// The folder of the state file cannot be used
    #[error("alerts: {path}: {error}")]
    State {
        /// The file or folder
        path: PathBuf,
        /// Why
        #[source]
        error: io::Error,
    },
    /// The system gives no thread
    #[error("alerts: start a thread: {0}")]
    Thread(#[source] io::Error),
}
