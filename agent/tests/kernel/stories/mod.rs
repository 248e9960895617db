//! What people are woken for. Each story runs the real thing, and the report has to name the process, the cause and what
//! helps; where a port cannot be had, `firstfin why` says the same while it goes on.

mod binds;
mod connections;

use std::process::{Command, Stdio};

use firstfin::why::{Answer, BindAnswer};
use libtest_mimic::{Failed, Trial};

use crate::netns::Net;

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = binds::tests();
    tests.extend(connections::tests());
    tests
}

/// What `firstfin why` says in a namespace.
pub(crate) fn why(net: &Net, arguments: &[&str]) -> Result<Answer, Failed> {
    let output = net.inside(|| {
        Command::new(env!("CARGO_BIN_EXE_firstfin"))
            .args(["why", "--format", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}; {}: {said}", output.status).into())
}

/// The same, of a port somebody wants to bind.
fn why_bind(net: &Net, place: &str) -> Result<BindAnswer, Failed> {
    why(net, &[place])?.bind.ok_or_else(|| "no answer about bind()".into())
}
