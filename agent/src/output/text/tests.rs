//! Whole reports, as they look on a terminal and in a pipe.

use insta::assert_snapshot;

use super::*;
use crate::{model::Name, output::fixtures};

const PIPE: Options = Options { width: None, colour: false, top: 10 };
const TERMINAL: Options = Options { width: Some(80), colour: false, top: 10 };

#[test]
fn a_quiet_host() {
    assert_snapshot!(render(&fixtures::quiet(), &TERMINAL));
}

#[test]
fn everything_at_once() {
    assert_snapshot!(render(&fixtures::full(), &PIPE));
}

#[test]
fn everything_at_once_on_a_terminal() {
    assert_snapshot!(render(&fixtures::full(), &TERMINAL));
}

#[test]
fn events_were_lost() {
    assert_snapshot!(render(&fixtures::lossy(), &TERMINAL));
}

#[test]
fn lists_longer_than_top() {
    assert_snapshot!(render(&fixtures::long(5), &Options { top: 3, ..PIPE }));
}

#[test]
fn colours_change_nothing_else() {
    for report in [fixtures::quiet(), fixtures::full(), fixtures::lossy(), fixtures::long(4)] {
        for options in [PIPE, TERMINAL] {
            let coloured = render(&report, &Options { colour: true, ..options });
            assert!(coloured.contains("\x1b["));
            assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), render(&report, &options));
        }
    }
}

#[test]
fn prose_fits_the_terminal() {
    let report = fixtures::full();
    for width in [40, 60, 80, 120] {
        let text = render(&report, &Options { width: Some(width), ..PIPE });
        let findings = text.split("TIME_WAIT:").next().unwrap();
        for line in findings.lines() {
            assert!(line.chars().count() <= usize::from(width), "{width}: {line}");
        }
    }
}

#[test]
fn a_terminal_narrower_than_a_word_is_no_problem() {
    for width in 0..40 {
        assert!(render(&fixtures::full(), &Options { width: Some(width), ..PIPE }).contains("BindConflict"));
    }
}

#[test]
fn a_hostile_name_stays_in_its_line() {
    let mut report = fixtures::full();
    let lines = render(&report, &PIPE).lines().count();
    for it in &mut report.time_wait.by_process {
        it.process.comm = Name::from_bytes(b"a\nb\x1b[2Jc\xff");
    }
    let text = render(&report, &PIPE);
    assert_eq!(text.lines().count(), lines);
    assert!(text.contains(r"a\nb\x1b[2Jc\xff[4242]"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn a_report_with_nothing_lost_says_so_and_one_with_losses_never_does() {
    assert!(render(&fixtures::quiet(), &PIPE).contains("Verdict: no findings.\n"));
    let text = render(&fixtures::lossy(), &PIPE);
    assert!(text.contains("Verdict: no findings, but not everything could be seen"), "{text}");
    assert!(!text.contains("none lost"), "{text}");
}
