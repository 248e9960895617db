//! The table of docs/compatibility.md: which scenario gives which answer on which kernel, by which means.
//!
//! Written from a complete run only, and without anything that differs from one run to the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    rounds::{self, RUNGS, SCENARIOS},
    verdict::{TestResult, Verdict},
};

const BEGIN: &str = "<!-- begin: written by cargo xtask vm -->\n";
const END: &str = "<!-- end -->\n";

/// A kernel that was run: its series and `uname -r`.
pub(super) type Column = (&'static str, String);

/// Puts the table of these verdicts between the marks of a document.
pub(super) fn write(document: &Path, columns: &[Column], verdicts: &[Verdict]) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let new = replaced(&text, &table(columns, verdicts))
        .with_context(|| format!("{} has no marks to write the table between", document.display()))?;
    fs::write(document, new).with_context(|| format!("write {}", document.display()))
}

fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

fn table(columns: &[Column], verdicts: &[Verdict]) -> String {
    let mut cells = Cells::default();
    for verdict in verdicts {
        cells.add(verdict);
    }
    let modules: BTreeSet<_> = cells.tests.iter().map(|test| rounds::module(test)).collect();
    let mut notes = Notes::default();
    let mut text = String::from("Run on ");
    let releases: Vec<_> = columns.iter().map(|(_, release)| format!("`{release}`")).collect();
    text.push_str(&releases.join(", "));
    text.push_str(".\n");
    for module in SCENARIOS.iter().filter(|module| modules.contains(**module)) {
        header(&mut text, module, columns);
        for test in cells.tests.iter().filter(|test| rounds::module(test) == *module) {
            let name = test.split_once("::").map_or(test.as_str(), |(_, name)| name).replace('_', " ");
            let row =
                columns.iter().map(|(series, _)| three(&RUNGS.map(|rung| cells.word(series, rung, test, &mut notes))));
            let _ = writeln!(text, "| {name} | {} |", row.collect::<Vec<_>>().join(" | "));
        }
    }
    header(&mut text, "other tests", columns);
    for module in modules.iter().filter(|module| !SCENARIOS.contains(module)) {
        let row = columns.iter().map(|(series, _)| {
            if rounds::depends_on_rung(module) {
                three(&RUNGS.map(|rung| cells.counts(series, rung, module, &mut notes)))
            } else {
                cells.counts(series, RUNGS[0], module, &mut notes)
            }
        });
        let _ = writeln!(text, "| {module} | {} |", row.collect::<Vec<_>>().join(" | "));
    }
    if !notes.0.is_empty() {
        text.push('\n');
    }
    for (number, note) in notes.0.iter().enumerate() {
        let _ = writeln!(text, "{}. {note}", number + 1);
    }
    text
}

fn header(text: &mut String, title: &str, columns: &[Column]) {
    let names: Vec<_> = columns.iter().map(|(_, release)| short(release)).collect();
    let _ = writeln!(text, "\n| {title} | {} |\n|---|{}", names.join(" | "), "---|".repeat(columns.len()));
}

/// `6.12.117+deb13-cloud-amd64` -> `6.12`
fn short(release: &str) -> String {
    release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// What holds for all rungs is said once.
fn three(words: &[String; 3]) -> String {
    let [first, rest @ ..] = words;
    if rest.iter().all(|word| word == first) { first.clone() } else { words.join(" · ") }
}

/// What is said below the table, each thing once.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn number(&mut self, note: &str) -> usize {
        let found = self.0.iter().position(|there| there == note);
        found.unwrap_or_else(|| {
            self.0.push(note.to_owned());
            self.0.len() - 1
        }) + 1
    }
}

#[derive(Default)]
struct Cells {
    tests: BTreeSet<String>,
    /// The worst of what a test gave, with load and without
    results: BTreeMap<(&'static str, &'static str, String), TestResult>,
}

impl Cells {
    fn add(&mut self, verdict: &Verdict) {
        for (test, result) in &verdict.results {
            self.tests.insert(test.clone());
            let cell = self.results.entry((verdict.series, verdict.rung, test.clone()));
            let worst = cell.or_insert(TestResult::Passed);
            *worst = worst.clone().max(result.clone());
        }
    }

    fn result(&self, series: &'static str, rung: &'static str, test: &str) -> &TestResult {
        self.results.get(&(series, rung, test.to_owned())).unwrap_or(&TestResult::Missing)
    }

    fn word(&self, series: &'static str, rung: &'static str, test: &str, notes: &mut Notes) -> String {
        match self.result(series, rung, test) {
            TestResult::Passed => "ok".to_owned(),
            TestResult::Lesser(missing) => format!("lesser ({})", notes.number(missing)),
            TestResult::Skipped(why) => format!("– ({})", notes.number(why)),
            TestResult::Failed | TestResult::Missing => "wrong".to_owned(),
        }
    }

    fn counts(&self, series: &'static str, rung: &'static str, module: &str, notes: &mut Notes) -> String {
        let tests = self.tests.iter().filter(|test| rounds::module(test) == module);
        let mut counts: BTreeMap<TestResult, u32> = BTreeMap::new();
        for test in tests {
            *counts.entry(self.result(series, rung, test).clone()).or_default() += 1;
        }
        let part = |(result, count): (TestResult, u32)| match result {
            TestResult::Passed => format!("{count} ok"),
            TestResult::Lesser(missing) => format!("{count} lesser ({})", notes.number(&missing)),
            TestResult::Skipped(why) => format!("{count} – ({})", notes.number(&why)),
            TestResult::Failed | TestResult::Missing => format!("{count} wrong"),
        };
        counts.into_iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_around_the_table_stays() {
        let text = format!("# Title\n\n{BEGIN}old\n{END}\nend\n");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("# Title\n\n{BEGIN}\nnew\n\n{END}\nend\n"));
        assert_eq!(replaced("# Title\n", "new\n"), None);
    }

    #[test]
    fn what_holds_for_all_rungs_is_said_once() {
        let words = |words: [&str; 3]| three(&words.map(str::to_owned));
        assert_eq!(words(["ok", "ok", "ok"]), "ok");
        assert_eq!(words(["ok", "ok", "lesser (1)"]), "ok · ok · lesser (1)");
    }

    #[test]
    fn one_row_a_scenario_and_one_a_module_of_others() {
        let columns = [("6.1", "6.1.0-56-cloud-amd64".to_owned())];
        let results = |reset: TestResult| {
            let pairs = [
                ("leaves::by_a_reset", reset),
                ("readers::mptcp", TestResult::Skipped("no MPTCP".to_owned())),
                ("readers::ipv4", TestResult::Passed),
            ];
            pairs.into_iter().map(|(name, result)| (name.to_owned(), result)).collect::<BTreeMap<_, _>>()
        };
        let verdicts: Vec<_> = RUNGS
            .iter()
            .map(|rung| {
                let is_lesser = *rung == "tracepoint";
                let reset = if is_lesser { TestResult::Lesser("not why".to_owned()) } else { TestResult::Passed };
                Verdict::of_results("6.1", rung, results(reset))
            })
            .collect();
        assert_eq!(
            table(&columns, &verdicts),
            "Run on `6.1.0-56-cloud-amd64`.\n\n\
             | leaves | 6.1 |\n|---|---|\n| by a reset | ok · ok · lesser (1) |\n\n\
             | other tests | 6.1 |\n|---|---|\n| readers | 1 ok, 1 – (2) |\n\n\
             1. not why\n2. no MPTCP\n"
        );
    }
}
