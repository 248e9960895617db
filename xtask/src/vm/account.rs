//! The last lines of a run: one verdict for each kernel and round, then what was wrong, lesser and skipped, and where.

use std::{collections::BTreeMap, fmt::Write as _};

use super::verdict::{TestResult, Verdict};

/// All of it, for people.
pub(super) fn of(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", verdict.line());
        if let Some(broken) = &verdict.broken {
            let _ = writeln!(text, "        BROKEN: {broken}");
        }
    }
    // What holds in many places is said once.
    let mut lists: [(&str, BTreeMap<String, Vec<String>>); 4] =
        ["wrong", "unsteady, passed in their second run", "lesser", "skipped"].map(|title| (title, BTreeMap::new()));
    let [(_, wrong), (_, unsteady), (_, lesser), (_, skipped)] = &mut lists;
    for verdict in verdicts {
        for (test, how) in &verdict.unsteady {
            let places = unsteady.entry(format!("{test}: {how}")).or_default();
            places.push(format!("{} {}", verdict.series, verdict.title));
        }
        for (test, result) in &verdict.results {
            let (list, what) = match result {
                TestResult::Passed => continue,
                TestResult::Lesser(missing) => (&mut *lesser, format!("{test}: {missing}")),
                TestResult::Skipped(why) => (&mut *skipped, format!("{test}: {why}")),
                TestResult::Failed => (&mut *wrong, test.clone()),
                TestResult::Missing => (&mut *wrong, format!("{test}: no result")),
            };
            list.entry(what).or_default().push(format!("{} {}", verdict.series, verdict.title));
        }
    }
    for (title, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        let _ = writeln!(text, "\n{title}:");
        for (what, places) in list {
            let places = if places.len() == verdicts.len() { "everywhere".to_owned() } else { places.join(", ") };
            let _ = writeln!(text, "  {what}\n      {places}");
        }
    }
    let good = verdicts.iter().filter(|verdict| verdict.is_good()).count();
    let _ = write!(text, "\n{} rounds, {good} good, ", verdicts.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_so_in_many_places_is_said_once() {
        let results = |timer: TestResult| BTreeMap::from([("leaves::timer".to_owned(), timer)]);
        let lesser = TestResult::Lesser("not why".to_owned());
        let verdicts = [
            Verdict::of_results("6.1", "kprobe", results(lesser.clone())),
            Verdict::of_results("6.1", "tracepoint", results(lesser)),
            Verdict::of_results("newest", "tracepoint", results(TestResult::Missing)),
        ];
        let text = of(&verdicts);
        let (_, lists) = text.split_once("\n\n").unwrap();
        assert_eq!(
            lists,
            "wrong:\n  leaves::timer: no result\n      newest tracepoint\n\n\
             lesser:\n  leaves::timer: not why\n      6.1 kprobe, 6.1 tracepoint\n\n3 rounds, 2 good, "
        );
    }
}
