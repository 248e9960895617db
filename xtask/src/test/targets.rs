//! Which test targets there are, from what `cargo test --no-run` says it built.
//!
//! cargo has no option for "all but this one", and reading its JSON would cost xtask more to compile than the rest of
//! it. Should the wording change one day, no kernel test target is found and the run stops with that message.

use std::path::PathBuf;

/// An integration test target.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    /// As cargo names it: below the workspace, or absolute.
    pub(super) binary: PathBuf,
}

/// Reads `  Executable tests/cli.rs (target/debug/deps/cli-0123456789abcdef)`.
pub(super) fn integration_test(line: &str) -> Option<Target> {
    let built = line.trim_start().strip_prefix("Executable ")?;
    if built.starts_with("unittests ") {
        return None;
    }
    let (_, binary) = built.strip_suffix(')')?.split_once(" (")?;
    let (_, file) = binary.rsplit_once('/')?;
    let (name, _hash) = file.rsplit_once('-')?;
    Some(Target { name: name.to_owned(), binary: PathBuf::from(binary) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_are_named_by_their_binary() {
        let line = "  Executable tests/kernel/main.rs (target/debug/deps/kernel-2f0e3f1a9c8b7d65)";
        let binary = PathBuf::from("target/debug/deps/kernel-2f0e3f1a9c8b7d65");
        assert_eq!(integration_test(line), Some(Target { name: "kernel".to_owned(), binary }));
        let line = "  Executable tests/two-words.rs (/tmp/a-b/debug/deps/two-words-2f0e3f1a9c8b7d65)";
        assert_eq!(integration_test(line).map(|target| target.name).as_deref(), Some("two-words"));
    }

    #[test]
    fn unit_tests_and_other_lines_are_none() {
        let line = "  Executable unittests src/lib.rs (target/debug/deps/firstfin-6b1b0a2cd5d3f0e1)";
        assert_eq!(integration_test(line), None);
        assert_eq!(integration_test("   Compiling firstfin v0.1.0 (/tmp/firstfin)"), None);
    }
}
