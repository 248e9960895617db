//! What test harnesses print, read line by line: counts, names of failed tests, skipped tests and their reasons.
//!
//! Both libtest and libtest-mimic print one line a test and one a suite. A test that finds out while running that it
//! cannot run prints `SKIP <test>: <reason>`, because a harness has no room for the reason of every kind of skip. A test
//! that passed, but on a host that lets firstfin know less than it could, prints `LESSER <test>: <what is missing>`, and
//! one that failed and is run once more prints `UNSTEADY <test>: <how it failed>`.

use std::collections::{BTreeMap, BTreeSet};

/// Added up over the suites of one cargo run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Harnesses that reported a result.
    pub(crate) suites: u32,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
    pub(crate) passed_names: BTreeSet<String>,
    pub(crate) failed_names: BTreeSet<String>,
    /// Test -> what this host does not let it show. Of a test that failed it says nothing.
    pub(crate) lesser: BTreeMap<String, String>,
    /// Test -> how it failed the first time. What came of the second is with the others.
    pub(crate) unsteady: BTreeMap<String, String>,
    /// Ignored or skipped test -> the reason, where one was given.
    reasons: BTreeMap<String, Option<String>>,
}

impl Outcome {
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.suites += 1;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
        } else if let Some(skip) = line.strip_prefix("SKIP ") {
            if let Some((name, reason)) = skip.split_once(": ") {
                self.reasons.insert(name.trim().to_owned(), Some(reason.trim().to_owned()));
            }
        } else if let Some(lesser) = line.strip_prefix("LESSER ") {
            if let Some((name, missing)) = lesser.split_once(": ") {
                self.lesser.insert(name.trim().to_owned(), missing.trim().to_owned());
            }
        } else if let Some(unsteady) = line.strip_prefix("UNSTEADY ") {
            if let Some((name, how)) = unsteady.split_once(": ") {
                self.unsteady.insert(name.trim().to_owned(), how.trim().to_owned());
            }
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... ")) {
            let name = name.trim();
            if result.starts_with("FAILED") {
                self.failed_names.insert(name.to_owned());
            } else if result == "ok" {
                self.passed_names.insert(name.to_owned());
            } else if let Some(reason) = result.strip_prefix("ignored") {
                let given = reason.trim_matches([',', ' ', '(', ')']);
                let reason = self.reasons.entry(name.to_owned()).or_default();
                if !given.is_empty() {
                    *reason = Some(given.to_owned());
                }
            }
        }
    }

    /// Counts a test that was not started at all.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.ignored += 1;
        self.reasons.insert(name.trim().to_owned(), Some(reason.to_owned()));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.suites += other.suites;
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.passed_names.extend(other.passed_names.iter().cloned());
        self.failed_names.extend(other.failed_names.iter().cloned());
        self.lesser.extend(other.lesser.clone());
        self.unsteady.extend(other.unsteady.clone());
        self.reasons.extend(other.reasons.clone());
    }

    /// Skipped test and why, sorted.
    pub(crate) fn skips(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reasons.iter().map(|(name, given)| (name.as_str(), given.as_deref().unwrap_or("it gives no reason")))
    }

    /// `<test>: <reason>`, sorted.
    pub(crate) fn skipped(&self) -> Vec<String> {
        self.skips().map(|(name, reason)| format!("{name}: {reason}")).collect()
    }

    /// `<test>: <what is missing>`, sorted.
    pub(crate) fn lesser(&self) -> Vec<String> {
        self.lesser.iter().map(|(name, missing)| format!("{name}: {missing}")).collect()
    }
}

/// The number in front of a word: `ok. 5 passed; 0 failed; 1 ignored; ...`.
fn count(counts: &str, word: &str) -> u32 {
    let mut words = counts.split([' ', ';']).filter(|word| !word.is_empty());
    let mut before = words.next();
    words
        .find_map(|this| {
            let number = before.replace(this)?;
            (this == word).then(|| number.parse().ok())?
        })
        .unwrap_or(0)
}

/// A line without the escape sequences that colour it.
pub(crate) fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // A sequence ends with its first letter.
        plain.extend(part.chars().skip_while(|c| !c.is_ascii_alphabetic()).skip(1));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Outcome {
        let mut outcome = Outcome::default();
        lines.iter().for_each(|line| outcome.read(line));
        outcome
    }

    #[test]
    fn suites_of_libtest_add_up() {
        let outcome = read(&[
            "running 3 tests",
            "test plan::tests::first ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
            "test decode::tests::short ... FAILED",
            "test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ]);
        assert_eq!((outcome.suites, outcome.passed, outcome.failed, outcome.ignored), (2, 15, 1, 1));
        assert_eq!(outcome.failed_names, BTreeSet::from(["decode::tests::short".to_owned()]));
    }

    #[test]
    fn the_reason_of_a_skip_is_found_in_all_three_places() {
        let outcome = read(&[
            "test slow ... ignored, takes an hour",
            "test io_uring_close   ... ignored (this kernel has no io_uring)",
            "SKIP mptcp: CONFIG_MPTCP is not set",
            "test mptcp ... ignored",
            "test silent ... ignored",
        ]);
        assert_eq!(
            outcome.skipped(),
            [
                "io_uring_close: this kernel has no io_uring",
                "mptcp: CONFIG_MPTCP is not set",
                "silent: it gives no reason",
                "slow: takes an hour",
            ]
        );
    }

    #[test]
    fn a_reason_may_come_after_the_test_was_reported() {
        let outcome = read(&["test mptcp ... ignored", "SKIP mptcp: CONFIG_MPTCP is not set"]);
        assert_eq!(outcome.skipped(), ["mptcp: CONFIG_MPTCP is not set"]);
    }

    #[test]
    fn a_lesser_answer_is_a_pass_with_a_reason() {
        let outcome = read(&[
            "LESSER leaves::timer: the kernel does not say why it left",
            "test leaves::timer   ... ok",
            "test leaves::reset ... ok",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ]);
        assert_eq!(outcome.passed_names, BTreeSet::from(["leaves::reset".to_owned(), "leaves::timer".to_owned()]));
        assert_eq!(outcome.lesser(), ["leaves::timer: the kernel does not say why it left"]);
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            read(&[
                "   Compiling firstfin v0.1.0",
                "test",
                "test result",
                "SKIP nothing said",
                "LESSER",
                "UNSTEADY",
                ""
            ]),
            read(&[])
        );
    }

    #[test]
    fn colours_are_taken_off() {
        assert_eq!(
            without_colours("\x1b[1m\x1b[92m  Executable\x1b[0m tests/cli.rs (x)"),
            "  Executable tests/cli.rs (x)"
        );
        assert_eq!(without_colours("plain"), "plain");
    }
}
