//! What is shown of a machine's tests while they run: every line, but of a failure's text only the beginning.

/// Some failures bring a verifier's log of a thousand lines; all of it is in the machine's `out.log`.
const LINES_OF_A_FAILURE: u32 = 30;

/// Follows one round's output.
#[derive(Debug, Default)]
pub(super) struct Progress {
    of_this_failure: Option<u32>,
}

impl Progress {
    /// What to show for a line, if anything.
    pub(super) fn line<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        if line.starts_with("---- ") && line.ends_with(" ----") {
            self.of_this_failure = Some(0);
            return Some(line);
        }
        if line == "failures:" || line.starts_with("test ") {
            self.of_this_failure = None;
        }
        let Some(shown) = &mut self.of_this_failure else { return Some(line) };
        *shown += 1;
        match (*shown).cmp(&LINES_OF_A_FAILURE) {
            std::cmp::Ordering::Less => Some(line),
            std::cmp::Ordering::Equal => Some("[...] all of it is in out.log"),
            std::cmp::Ordering::Greater => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failures_text_is_shortened() {
        let mut progress = Progress::default();
        for _ in 0..100 {
            assert!(progress.line("test leaves::timer ... ok").is_some());
        }
        for name in ["---- leaves::reset ----", "---- leaves::timer ----"] {
            assert_eq!(progress.line(name), Some(name));
            let shown = (0..100).filter(|_| progress.line("0: (bf) r6 = r1").is_some()).count();
            assert_eq!(shown, 30);
        }
        for line in ["failures:", "    leaves::reset", "test result: FAILED."] {
            assert_eq!(progress.line(line), Some(line));
        }
    }
}
