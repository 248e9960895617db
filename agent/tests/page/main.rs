//! The page of a session: what is on it, and that a real Chromium shows it.
//!
//! `cargo xtask test` brings Debian's headless Chromium and names it by `FIRSTFIN_CHROMIUM`. Without it the tests that need it
//! are skipped, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed: clippy.toml allows it in tests, but does not know this harness"
)]

mod chromium;
mod content;
#[path = "../needing/mod.rs"]
mod needing;
mod synthetic;

use std::{
    env, fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

use firstfin::{
    course::Course,
    output::html,
    recording::{Played, play},
    report::Report,
};
use libtest_mimic::{Arguments, Trial};
use needing::trial;

/// A test that is given the program it needs.
type Body = fn(&Path);

fn main() -> ExitCode {
    let plain: [(&str, fn()); 10] = [
        ("every_part_says_what_the_recording_holds", content::every_part_says_what_the_recording_holds),
        ("names_are_text_and_never_markup", content::names_are_text_and_never_markup),
        ("the_same_recording_gives_the_same_bytes", content::the_same_recording_gives_the_same_bytes),
        ("the_page_may_load_nothing", content::the_page_may_load_nothing),
        ("the_command_writes_it_for_its_owner", content::the_command_writes_it_for_its_owner),
        ("a_long_session_of_many_processes_stays_small", synthetic::a_long_session_of_many_processes_stays_small),
        ("the_timeline_ends_with_the_report", synthetic::the_timeline_ends_with_the_report),
        ("what_a_census_does_not_show_is_not_counted", synthetic::what_a_census_does_not_show_is_not_counted),
        ("processes_beyond_the_limit_are_counted_together", synthetic::processes_beyond_the_limit_are_counted_together),
        ("a_session_of_any_length_takes_the_same_room", synthetic::a_session_of_any_length_takes_the_same_room),
    ];
    let plain = plain.map(|(name, body)| {
        Trial::test(name, move || {
            body();
            Ok(())
        })
    });
    let mut trials: Vec<_> = plain.into_iter().collect();
    let shown: [(&'static str, Body); 4] = [
        ("charts_are_drawn_without_an_error", chromium::charts_are_drawn_without_an_error),
        ("dark_is_dark", chromium::dark_is_dark),
        ("a_narrow_page_does_not_overflow", chromium::a_narrow_page_does_not_overflow),
        ("it_prints", chromium::it_prints),
    ];
    trials.extend(shown.map(|(name, body)| trial(name, chromium::program, body)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name)
}

/// A recorded session and its course.
fn played(text: &[u8]) -> (Played, Course) {
    let mut course = Course::default();
    let played = play(BufReader::new(text), &mut |state, input| course.hear(state, input)).unwrap();
    course.end(&played.state, &played.census, &played.facts);
    (played, course)
}

fn page(played: &Played, course: &Course) -> (Report, String) {
    let report = played.report();
    let page = html::render(&report, course, played.state.started()).unwrap();
    (report, page)
}

/// The page of the demo's recording.
fn demo() -> (Report, String) {
    let (played, course) = played(&fs::read(recording("demo.jsonl")).unwrap());
    page(&played, &course)
}

/// A folder for a test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
