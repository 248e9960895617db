//! The live view: what it draws of recordings, what keys do, and the program itself in a real terminal, which is tmux.
//!
//! A test that this host cannot run says `SKIP <name>: <why>` and counts as ignored. `cargo insta review` shows what a change
//! of a screen changes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed: clippy.toml allows it in tests, but does not know this harness"
)]

#[path = "../needing/mod.rs"]
mod needing;
mod terminal;
mod tmux;
mod view;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use needing::trial;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == terminal::PANIC) {
        terminal::panic_in_the_view();
    }
    let mut trials = view::tests();
    for (name, needs_root, body) in terminal::TESTS {
        trials.push(trial(name, move || tmux::find(needs_root), body));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
