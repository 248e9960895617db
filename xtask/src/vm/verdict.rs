//! One verdict for each kernel and round: what it says, and whether it is good.
//!
//! What did not happen is never good: a round that the machine did not get to, a test without a result and a harness
//! that reports other numbers than its lines are failures like a test that failed. A test that failed and passed when it
//! was run once more is told of, and two in a round are no accident.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    machine::{End, Run},
    reading::Heard,
    rounds::Round,
};

/// How many tests of a round may need a second run.
const UNSTEADY_AT_MOST: usize = 1;

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TestResult {
    Passed,
    /// It passed, and this is missing of the full answer
    Lesser(String),
    /// It was not run, because of this
    Skipped(String),
    Failed,
    /// It was to be run, and nothing was heard of it
    Missing,
}

/// What came of a round on a kernel.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) series: &'static str,
    pub(super) rung: &'static str,
    pub(super) title: String,
    pub(super) results: BTreeMap<String, TestResult>,
    /// Of the tests that passed, those that did so in their second run, and how they failed in the first
    pub(super) unsteady: BTreeMap<String, String>,
    /// Wrong apart from single tests
    pub(super) broken: Option<String>,
    pub(super) seconds: u64,
    is_second: bool,
}

impl Verdict {
    #[cfg(test)]
    pub(super) fn of_results(series: &'static str, rung: &'static str, results: BTreeMap<String, TestResult>) -> Self {
        let (title, unsteady) = (rung.to_owned(), BTreeMap::new());
        Self { series, rung, title, results, unsteady, broken: None, seconds: 0, is_second: false }
    }

    pub(super) fn is_good(&self) -> bool {
        self.broken.is_none() && self.wrong().next().is_none() && self.unsteady.len() <= UNSTEADY_AT_MOST
    }

    /// Tests that failed or are missing.
    pub(super) fn wrong(&self) -> impl Iterator<Item = (&str, &TestResult)> {
        let results = self.results.iter().map(|(name, result)| (name.as_str(), result));
        results.filter(|(_, result)| matches!(result, TestResult::Failed | TestResult::Missing))
    }

    /// `6.1     fentry               86 passed  2 lesser  0 failed  1 skipped   95 s`
    pub(super) fn line(&self) -> String {
        let count = |is_so: fn(&TestResult) -> bool| self.results.values().filter(|result| is_so(result)).count();
        let mut line = format!(
            "{:<7} {:<18} {:>4} passed {:>3} lesser {:>3} failed {:>3} skipped  {:>4} s",
            self.series,
            self.title,
            count(|result| matches!(result, TestResult::Passed)),
            count(|result| matches!(result, TestResult::Lesser(_))),
            count(|result| matches!(result, TestResult::Failed)),
            count(|result| matches!(result, TestResult::Skipped(_))),
            self.seconds
        );
        let missing = count(|result| matches!(result, TestResult::Missing));
        if missing > 0 {
            line.push_str(&format!("  {missing} WITHOUT RESULT"));
        }
        if !self.unsteady.is_empty() {
            line.push_str(&format!("  {} unsteady", self.unsteady.len()));
        }
        if self.is_second {
            line.push_str("  (second start: the emulator's mistake ended the first)");
        }
        line
    }
}

/// The verdicts of a machine's rounds.
pub(super) fn verdicts(series: &'static str, rounds: &[Round], run: &Run) -> Vec<Verdict> {
    let heard = rounds.iter().zip(&run.reading.rounds);
    heard
        .map(|(round, heard)| Verdict {
            series,
            rung: round.rung,
            title: round.title(),
            results: results(&round.expected, heard),
            unsteady: unsteady(heard),
            broken: broken(heard, &run.end),
            seconds: heard.ended.map_or(0, |(_, took)| took.as_secs()),
            is_second: run.is_second,
        })
        .collect()
}

fn results(expected: &BTreeSet<String>, heard: &Heard) -> BTreeMap<String, TestResult> {
    let outcome = &heard.outcome;
    let skipped: BTreeMap<_, _> = outcome.skips().collect();
    let result = |name: &str| {
        if outcome.failed_names.contains(name) {
            TestResult::Failed
        } else if outcome.passed_names.contains(name) {
            outcome.lesser.get(name).map_or(TestResult::Passed, |missing| TestResult::Lesser(missing.clone()))
        } else if let Some(why) = skipped.get(name) {
            TestResult::Skipped((*why).to_owned())
        } else {
            TestResult::Missing
        }
    };
    let heard_of = outcome.failed_names.iter().chain(&outcome.passed_names);
    expected.iter().chain(heard_of).map(|name| (name.clone(), result(name))).collect()
}

fn unsteady(heard: &Heard) -> BTreeMap<String, String> {
    let outcome = &heard.outcome;
    let has_passed = |(name, _): &(&String, &String)| outcome.passed_names.contains(*name);
    outcome.unsteady.iter().filter(has_passed).map(|(name, how)| (name.clone(), how.clone())).collect()
}

fn broken(heard: &Heard, end: &End) -> Option<String> {
    let machine = match end {
        End::Done => "the machine went on to its end",
        End::Broken(how) => how,
    };
    let Some((status, _)) = heard.ended else {
        let how_far = if heard.begun.is_some() { "not ended" } else { "never begun" };
        return Some(format!("{how_far}: {machine}"));
    };
    let outcome = &heard.outcome;
    let lines = (outcome.passed_names.len(), outcome.failed_names.len());
    let counted = (outcome.passed as usize, outcome.failed as usize);
    match (status, outcome.failed) {
        _ if outcome.suites != 1 => Some(format!("{} results of a harness, status {status}", outcome.suites)),
        _ if lines != counted => Some(format!("passed and failed by lines {lines:?}, as counted {counted:?}")),
        (0, 1..) => Some("tests failed, yet the harness ended well".to_owned()),
        (1.., 0) => Some(format!("the harness ended with {status}, though no test is reported as failed")),
        // The last round may be fine and the machine break afterwards.
        _ => match end {
            End::Done => None,
            End::Broken(how) => Some(format!("ended, but of the machine: {how}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Instant};

    use super::*;
    use crate::vm::{
        reading::{Reading, Source},
        rounds::rounds,
    };

    /// The verdicts of a machine that wrote this to the tests' outputs.
    fn judged(lines: &[&str], end: End) -> Vec<Verdict> {
        let tests = ["leaves::reset", "leaves::timer", "readers::mptcp"].map(str::to_owned);
        let rounds = rounds(&tests, &["kprobe"], None);
        let mut reading = Reading::of(rounds.len());
        for line in lines {
            reading.line(Source::Out, line, Instant::now());
        }
        verdicts("6.1", &rounds, &Run { reading, end, is_second: false, logs: PathBuf::new() })
    }

    const GOOD: [&str; 12] = [
        "@@ begin 0",
        "LESSER leaves::timer: not why",
        "test leaves::reset ... ok",
        "test leaves::timer ... ok",
        "test readers::mptcp ... ignored, no MPTCP",
        "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        "@@ end 0 0",
        "@@ begin 1",
        "test leaves::reset ... ok",
        "test leaves::timer ... ok",
        "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 1.20s",
        "@@ end 1 0",
    ];

    #[test]
    fn a_machine_that_did_all_is_good() {
        let verdicts = judged(&GOOD, End::Done);
        assert!(verdicts.iter().all(Verdict::is_good), "{verdicts:?}");
        assert_eq!(
            verdicts[0].line(),
            "6.1     kprobe                1 passed   1 lesser   0 failed   1 skipped     0 s"
        );
        assert_eq!(verdicts[1].title, "kprobe (load)");
    }

    #[test]
    fn what_was_not_heard_of_is_wrong() {
        let silent = judged(&[], End::Done);
        assert_eq!(silent[0].broken.as_deref(), Some("never begun: the machine went on to its end"));
        assert_eq!(silent[0].wrong().count(), 3);

        let cut_off = judged(&GOOD[..5], End::Broken("it was silent for 420 s, stopped".to_owned()));
        assert_eq!(cut_off[0].broken.as_deref(), Some("not ended: it was silent for 420 s, stopped"));
        assert_eq!(cut_off[0].wrong().count(), 0);

        let without_one: Vec<_> = GOOD.iter().filter(|line| !line.contains("mptcp")).copied().collect();
        let verdicts = judged(&without_one, End::Done);
        assert_eq!(verdicts[0].wrong().collect::<Vec<_>>(), [("readers::mptcp", &TestResult::Missing)]);
    }

    #[test]
    fn one_test_of_a_round_may_need_a_second_run() {
        const FIRST: &str = "UNSTEADY leaves::timer: it stays";
        const SECOND: &str = "UNSTEADY leaves::reset: not his";
        let with = |lines: &[&'static str]| [&GOOD[..1], lines, &GOOD[1..]].concat();
        let one = judged(&with(&[FIRST]), End::Done);
        assert!(one[0].is_good(), "{one:?}");
        assert_eq!(one[0].unsteady, BTreeMap::from([("leaves::timer".to_owned(), "it stays".to_owned())]));
        assert!(one[0].line().ends_with("  1 unsteady"), "{}", one[0].line());
        assert!(!judged(&with(&[FIRST, SECOND]), End::Done)[0].is_good());

        let failed: Vec<_> =
            with(&[FIRST]).iter().map(|line| line.replace("timer ... ok", "timer ... FAILED")).collect();
        let failed = judged(&failed.iter().map(String::as_str).collect::<Vec<_>>(), End::Done);
        assert_eq!(failed[0].wrong().collect::<Vec<_>>(), [("leaves::timer", &TestResult::Failed)]);
        assert!(failed[0].unsteady.is_empty(), "it failed twice");
    }

    #[test]
    fn counts_and_status_have_to_agree_with_the_lines() {
        let lost_line: Vec<_> = GOOD.iter().filter(|line| **line != "test leaves::timer ... ok").copied().collect();
        assert!(judged(&lost_line, End::Done)[0].broken.is_some());
        let crashed: Vec<_> = GOOD.iter().map(|line| line.replace("@@ end 0 0", "@@ end 0 139")).collect();
        let crashed: Vec<_> = crashed.iter().map(String::as_str).collect();
        assert!(judged(&crashed, End::Done)[0].broken.is_some());
    }
}
