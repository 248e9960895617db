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

mod terminal;
mod tmux;
mod view;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

fn main() -> ExitCode {
    let mut trials = view::tests();
    for (name, needs_root, body) in terminal::TESTS {
        trials.push(Trial::ignorable_test(name, move || match tmux::find(needs_root) {
            Ok(program) => {
                body(&program);
                Ok(Completion::Completed)
            }
            Err(why) => {
                eprintln!("SKIP {name}: {why}");
                Ok(Completion::ignored_with(why))
            }
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
