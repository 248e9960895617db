//! Who we are: root, someone who can become root with sudo, or neither.
//!
//! It only ever puts `sudo` in front of a command that is shown; it never asks for a password itself.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    process::Command,
};

use anyhow::Result;

use crate::workspace;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    Sudo,
    Neither,
}

impl Privilege {
    /// `/proc/self` belongs to the effective user.
    pub(crate) fn of_this_process() -> Self {
        if fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0) {
            Self::Root
        } else if workspace::find_on_path("sudo").is_some() {
            Self::Sudo
        } else {
            Self::Neither
        }
    }

    /// The command with `sudo` in front when that is what we have.
    pub(crate) fn command(self, program: &str) -> Command {
        if self != Self::Sudo {
            return Command::new(program);
        }
        let mut sudo = Command::new("sudo");
        sudo.args(sudo_options()).arg(program);
        sudo
    }

    /// Makes `cargo run` and `cargo test` start what they built through sudo: cargo stays the one that knows where the
    /// binary is, which folder it starts in and with which arguments.
    pub(crate) fn run_built_as_root(self, cargo: &mut Command) -> Result<()> {
        if self == Self::Sudo {
            let host = workspace::host()?.to_uppercase().replace(['-', '.'], "_");
            let runner: Vec<_> = std::iter::once("sudo").chain(sudo_options().iter().copied()).collect();
            cargo.env(format!("CARGO_TARGET_{host}_RUNNER"), runner.join(" "));
        }
        Ok(())
    }

    /// Lets sudo ask for the password now, while nothing else writes to the terminal.
    pub(crate) fn ask_now(self) {
        if self == Self::Sudo {
            // A refusal shows again, with its text, at the command that needs it.
            let _ = Command::new("sudo").args(sudo_options()).arg("-v").status();
        }
    }
}

/// Without a terminal nobody can answer: then sudo has to fail instead of waiting.
fn sudo_options() -> &'static [&'static str] {
    if io::stdin().is_terminal() || env::var_os("SUDO_ASKPASS").is_some() { &[] } else { &["-n"] }
}
