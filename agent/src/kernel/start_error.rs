//! Why a session could not begin, in the three parts a reader needs: what is missing, what that means, what to do.

use thiserror::Error;

/// A session could not begin. Nothing is left attached.
#[derive(Debug, Error)]
#[error("{missing}\n  what it means: {meaning}\n  what to do:    {remedy}")]
pub struct StartError {
    /// What is missing
    pub missing: String,
    /// What it means
    pub meaning: String,
    /// What to do
    pub remedy: String,
    /// The error behind it, if there was one
    #[source]
    pub source: Option<anyhow::Error>,
}

impl StartError {
    pub(super) fn new(missing: impl Into<String>, meaning: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { missing: missing.into(), meaning: meaning.into(), remedy: remedy.into(), source: None }
    }
}
