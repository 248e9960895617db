//! What a machine writes, read line by line: the marks of init.sh, and between them what the tests print.

use std::time::{Duration, Instant};

use crate::outcome::Outcome;

/// What lines of init.sh begin with.
const MARK: &str = "@@ ";

/// Which output of the tests a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Out,
    Error,
}

/// A round as far as it was seen.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) begun: Option<Instant>,
    pub(super) outcome: Outcome,
    /// The exit status of the test binary, and how long it took
    pub(super) ended: Option<(i32, Duration)>,
}

/// All that was seen of a machine.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// `uname -r`, once it is up
    pub(super) release: Option<String>,
    pub(super) rounds: Vec<Heard>,
    /// Whether it said that it is done
    pub(super) is_down: bool,
    /// The round each of the two outputs is in: one may be behind the other
    out: Option<usize>,
    error: Option<usize>,
}

impl Reading {
    pub(super) fn of(rounds: usize) -> Self {
        Self { rounds: (0..rounds).map(|_| Heard::default()).collect(), ..Self::default() }
    }

    /// Reads a line. Gives it back with the number of its round if it is the tests' own.
    pub(super) fn line<'a>(&mut self, source: Source, line: &'a str, now: Instant) -> Option<(usize, &'a str)> {
        if let Some(mark) = line.strip_prefix(MARK) {
            self.mark(source, mark, now);
            return None;
        }
        let number = self.current(source).filter(|_| !line.is_empty())?;
        self.rounds.get_mut(number)?.outcome.read(line);
        Some((number, line))
    }

    fn current(&mut self, source: Source) -> &mut Option<usize> {
        match source {
            Source::Out => &mut self.out,
            Source::Error => &mut self.error,
        }
    }

    fn mark(&mut self, source: Source, mark: &str, now: Instant) {
        let words: Vec<_> = mark.split_whitespace().collect();
        let number = words.get(1).and_then(|number| number.parse().ok());
        match words.as_slice() {
            ["up", release] => self.release = Some((*release).to_owned()),
            ["down"] => self.is_down = true,
            ["begin", _] => {
                *self.current(source) = number;
                if let Some(round) = number.and_then(|number| self.rounds.get_mut(number)) {
                    round.begun.get_or_insert(now);
                }
            }
            ["end", _, status] => {
                *self.current(source) = None;
                let round = number.and_then(|number| self.rounds.get_mut(number));
                if let (Some(round), Ok(status)) = (round, status.parse()) {
                    let took = round.begun.map(|begun| now.duration_since(begun)).unwrap_or_default();
                    round.ended.get_or_insert((status, took));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_output_is_read_into_the_round_it_is_in() {
        let mut reading = Reading::of(2);
        let now = Instant::now();
        let lines = [
            (Source::Out, "@@ up 6.1.0-56-cloud-amd64"),
            (Source::Out, "@@ begin 0"),
            (Source::Out, "test leaves::timer   ... ok"),
            (Source::Out, ""),
            (Source::Out, "@@ end 0 0"),
            (Source::Out, "@@ begin 1"),
            (Source::Error, "@@ begin 0"),
            // Behind: it is the first round's although the second has begun.
            (Source::Error, "LESSER leaves::timer: not why"),
            (Source::Error, "@@ end 0 0"),
            (Source::Out, "test leaves::reset   ... FAILED"),
        ];
        let own: Vec<_> = lines.iter().filter_map(|(source, line)| reading.line(*source, line, now)).collect();
        assert_eq!(own.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(reading.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert!(!reading.is_down);

        let [first, second] = reading.rounds.as_slice() else { panic!("two rounds") };
        assert_eq!(first.ended, Some((0, Duration::ZERO)));
        assert_eq!(first.outcome.lesser(), ["leaves::timer: not why"]);
        assert!(first.outcome.passed_names.contains("leaves::timer"));
        assert_eq!(second.ended, None);
        assert!(second.outcome.failed_names.contains("leaves::reset"));
    }

    #[test]
    fn marks_that_make_no_sense_change_nothing() {
        let mut reading = Reading::of(1);
        let now = Instant::now();
        for line in ["@@ begin 7", "@@ begin x", "@@ end", "@@ end 0 x", "@@ up", "@@ ", "before any round"] {
            assert_eq!(reading.line(Source::Out, line, now), None);
        }
        assert!(reading.rounds[0].begun.is_none() && reading.rounds[0].ended.is_none());
        assert_eq!(reading.release, None);
    }
}
