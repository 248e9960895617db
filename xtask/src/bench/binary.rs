//! The size of the release binary, without the names of its functions and with them, as `[profile.release]` ships it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::subject::firstfin;

pub(super) struct Binary {
    stripped: u64,
    shipped: u64,
}

impl Binary {
    /// `strip` is one of the binutils, which a C compiler comes with.
    pub(super) fn measure(results: &Path) -> Result<Self> {
        let file = firstfin()?;
        let stripped = results.join("firstfin.stripped");
        let done = Command::new("strip").arg("-o").args([&stripped, &file]).status().context("run strip")?;
        if !done.success() {
            bail!("strip {}: {done}", file.display());
        }
        let bytes = |path: &Path| -> Result<u64> {
            Ok(fs::metadata(path).with_context(|| format!("look up {}", path.display()))?.len())
        };
        Ok(Self { stripped: bytes(&stripped)?, shipped: bytes(&file)? })
    }

    pub(super) fn mib(&self) -> f64 {
        mib(self.stripped)
    }

    /// In words.
    pub(super) fn said(&self) -> String {
        format!("{:.1} MiB, {:.1} with names", self.mib(), mib(self.shipped))
    }

    pub(super) fn json(&self) -> Value {
        json!({"stripped_bytes": self.stripped, "bytes": self.shipped})
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
