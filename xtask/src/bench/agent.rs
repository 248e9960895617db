//! The agent's own benches, which xtask starts and reads: it depends on nothing of the workspace.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Runs a bench of the agent and returns what it printed. What it says on standard error is shown.
pub(super) fn bench(name: &str) -> Result<String> {
    let mut cargo = workspace::cargo()?;
    cargo.args(["bench", "--package", "firstfin", "--locked", "--bench", name]).stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("run {cargo:?}"))?;
    if !output.status.success() {
        bail!("cargo bench --bench {name}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
