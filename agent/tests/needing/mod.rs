//! Tests that need a program which is not on every host.

use std::path::{Path, PathBuf};

use libtest_mimic::{Completion, Trial};

/// A test that is skipped, with the reason, where the program it needs is not here.
pub(crate) fn trial(
    name: &'static str,
    find: impl FnOnce() -> Result<PathBuf, String> + Send + 'static,
    body: fn(&Path),
) -> Trial {
    Trial::ignorable_test(name, move || match find() {
        Ok(program) => {
            body(&program);
            Ok(Completion::Completed)
        }
        Err(why) => {
            eprintln!("SKIP {name}: {why}");
            Ok(Completion::ignored_with(why))
        }
    })
}
