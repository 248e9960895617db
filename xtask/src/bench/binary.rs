//! The size of the file that is shipped: the release binary, stripped as `[profile.release]` says.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::subject::firstfin;

pub(super) struct Binary {
    bytes: u64,
}

impl Binary {
    pub(super) fn measure() -> Result<Self> {
        let file = firstfin()?;
        let bytes = fs::metadata(&file).with_context(|| format!("look up {}", file.display()))?.len();
        Ok(Self { bytes })
    }

    pub(super) fn mib(&self) -> f64 {
        self.bytes as f64 / 1_048_576.0
    }

    pub(super) fn json(&self) -> Value {
        json!({"bytes": self.bytes})
    }
}
