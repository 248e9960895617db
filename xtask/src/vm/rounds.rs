//! Which tests a machine runs, how often, and under what circumstances.

use std::collections::BTreeSet;

/// The ways to watch, highest first. A higher one is not taken when `FIRSTFIN_MAX_RUNG` names a lower.
pub(super) const RUNGS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// The modules whose tests play what happens on real hosts. All but the ledger also run with one CPU kept busy, where what is
/// usually in order may not be; the others only ask what kernel and agent can do. And they are the rows of the table.
pub(super) const SCENARIOS: [&str; 7] =
    ["closes", "cut_off", "families", "leaves", "bind_matrix", "connect_matrix", "ledger"];

/// The modules that attach nothing, so that one rung is as good as the other: they run on the first.
const WITHOUT_RUNG: [&str; 2] = ["readers", "verdicts"];

/// A test that waits a minute for the kernel's timer: under load it does so on the first rung only.
const SLOWEST: &str = "leaves::expired";

/// One start of the test binary in a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) rung: &'static str,
    pub(super) has_load: bool,
    /// What the binary gets
    arguments: Vec<String>,
    /// The tests that have to give a result
    pub(super) expected: BTreeSet<String>,
}

impl Round {
    /// For people.
    pub(super) fn title(&self) -> String {
        format!("{}{}", self.rung, if self.has_load { " (load)" } else { "" })
    }

    /// A line that init.sh reads. Names of tests have no character that a shell would care for.
    pub(super) fn for_init(&self) -> String {
        format!("{}|{}|{}", self.rung, if self.has_load { "load" } else { "" }, self.arguments.join(" "))
    }
}

/// The rounds of a machine: on each rung all tests it makes a difference to, then the scenarios again under load. Without
/// any test, none.
pub(super) fn rounds(tests: &[String], rungs: &[&'static str], filter: Option<&str>) -> Vec<Round> {
    let modules: BTreeSet<_> = tests.iter().map(|test| module(test)).collect();
    let all = rungs.iter().enumerate().flat_map(|(place, rung)| [(place, *rung, false), (place, *rung, true)]);
    all.map(|(place, rung, has_load)| {
        let is_skipped = |module: &&&str| {
            if has_load { !is_run_under_load(module) } else { place > 0 && !depends_on_rung(module) }
        };
        let mut skipped: Vec<_> = modules.iter().filter(is_skipped).map(|module| format!("{module}::")).collect();
        if has_load && place > 0 {
            skipped.push(SLOWEST.to_owned());
        }
        // As the harness does it: by a part of the name.
        let is_run = |test: &&String| {
            filter.is_none_or(|filter| test.contains(filter)) && !skipped.iter().any(|part| test.contains(part))
        };
        let arguments = ["--color".to_owned(), "never".to_owned()].into_iter();
        let arguments = arguments.chain(skipped.iter().flat_map(|part| ["--skip".to_owned(), part.clone()]));
        Round {
            rung,
            has_load,
            arguments: arguments.chain(filter.map(str::to_owned)).collect(),
            expected: tests.iter().filter(is_run).cloned().collect(),
        }
    })
    .filter(|round| !round.expected.is_empty())
    .collect()
}

/// Not the ledger: it is a load of its own.
fn is_run_under_load(module: &str) -> bool {
    module != "ledger" && SCENARIOS.contains(&module)
}

/// Whether it makes a difference to a module on which rung it runs.
pub(super) fn depends_on_rung(module: &str) -> bool {
    !WITHOUT_RUNG.contains(&module)
}

/// `leaves::timer` -> `leaves`
pub(super) fn module(test: &str) -> &str {
    test.split_once("::").map_or("", |(module, _)| module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<String> {
        ["sessions::exit", "leaves::timer", "leaves::reset", "readers::exit"].map(str::to_owned).to_vec()
    }

    #[test]
    fn only_scenarios_run_under_load() {
        let all = rounds(&tests(), &["fentry", "kprobe"], None);
        let titles: Vec<_> = all.iter().map(Round::title).collect();
        assert_eq!(titles, ["fentry", "fentry (load)", "kprobe", "kprobe (load)"]);
        let counts: Vec<_> = all.iter().map(|round| round.expected.len()).collect();
        assert_eq!(counts, [4, 2, 3, 2]);
        assert_eq!(all[0].for_init(), "fentry||--color never");
        assert_eq!(all[1].for_init(), "fentry|load|--color never --skip readers:: --skip sessions::");
        assert_eq!(all[2].for_init(), "kprobe||--color never --skip readers::");
        let last = "kprobe|load|--color never --skip readers:: --skip sessions:: --skip leaves::expired";
        assert_eq!(all[3].for_init(), last);
    }

    #[test]
    fn a_filter_leaves_no_empty_round() {
        let all = rounds(&tests(), &["kprobe"], Some("exit"));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].for_init(), "kprobe||--color never exit");
        assert_eq!(all[0].expected.iter().map(String::as_str).collect::<Vec<_>>(), ["readers::exit", "sessions::exit"]);
        assert_eq!(rounds(&tests(), &["kprobe"], Some("nothing")), []);
    }
}
