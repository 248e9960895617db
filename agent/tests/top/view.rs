//! What is drawn, on a terminal that is an array of cells.

use std::{fs::File, io::BufReader, path::Path, time::Duration};

use firstfin::{
    recording::Player,
    top::{
        app::{App, Screen},
        screens::{Palette, draw},
        source::{Recorded, Source as _},
    },
};
use libtest_mimic::Trial;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

type Test = (&'static str, fn());

pub(crate) fn tests() -> Vec<Trial> {
    let tests: [Test; 9] = [
        ("every_screen_at_the_end_of_a_recording", every_screen_at_the_end_of_a_recording),
        ("amid_a_recording_events_tell_what_no_census_did_yet", amid_a_recording),
        ("losses_are_said", losses_are_said),
        ("keys_select_and_enter", keys_select_and_enter),
        ("keys_sort", keys_sort),
        ("a_filter_is_typed", a_filter_is_typed),
        ("paused_it_stands_still", paused_it_stands_still),
        ("no_colour_without_colours", no_colour_without_colours),
        ("no_size_is_too_small", no_size_is_too_small),
    ];
    tests
        .into_iter()
        .map(|(name, body)| {
            Trial::test(name, move || {
                body();
                Ok(())
            })
        })
        .collect()
}

/// A recording, played for this long; it may end before that.
fn played(name: &str, length: Duration) -> (App, Recorded<BufReader<File>>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name);
    let player = Player::of(BufReader::new(File::open(path).unwrap()));
    let mut recorded = Recorded::open(player, 1).unwrap();
    let mut app = App::new(recorded.began(), format!("the recording {name}"));
    play(&mut app, &mut recorded, length);
    (app, recorded)
}

/// Goes on by this much, in ticks of half a second.
fn play(app: &mut App, recorded: &mut Recorded<BufReader<File>>, length: Duration) {
    let mut left = length;
    while !left.is_zero() {
        if recorded.advance().unwrap() {
            app.end();
        }
        if let Some(look) = recorded.new_look() {
            app.look(look);
        }
        app.tick(recorded.new_tick());
        if app.has_ended() {
            return;
        }
        left = left.saturating_sub(Duration::from_millis(500));
    }
}

fn ended(name: &str) -> App {
    let (app, _) = played(name, Duration::from_secs(600));
    assert!(app.has_ended());
    app
}

fn press(app: &mut App, keys: &[KeyCode]) {
    keys.iter().for_each(|key| app.key(&KeyEvent::new(*key, KeyModifiers::NONE)));
}

fn drawn(app: &App, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, Palette { is_coloured: true })).unwrap();
    terminal
}

fn text(app: &App, width: u16, height: u16) -> String {
    drawn(app, width, height).backend().to_string()
}

fn every_screen_at_the_end_of_a_recording() {
    let mut app = ended("demo.jsonl");
    let screens = [
        ("overview", KeyCode::Char('1')),
        ("ports", KeyCode::Char('2')),
        ("failures", KeyCode::Char('3')),
        ("process", KeyCode::Char('4')),
        ("help", KeyCode::Char('?')),
    ];
    for (name, key) in screens {
        press(&mut app, &[key]);
        for (width, height) in [(80, 24), (120, 40)] {
            insta::assert_snapshot!(format!("{name}_{width}x{height}"), text(&app, width, height));
        }
    }
}

/// The recording has a census at its beginning, which is empty, and one at its end.
fn amid_a_recording() {
    let (app, _) = played("demo.jsonl", Duration::from_millis(1_500));
    assert!(!app.has_ended());
    let checkout = app.processes().into_iter().find(|row| row.process.comm.as_str() == "checkout").unwrap();
    // Of 400 in all.
    assert_eq!((checkout.sockets, checkout.flow.entered, checkout.flow.closed_first), (260, 260, 260));
    assert!(app.shown().age().is_some_and(|age| age >= Duration::from_secs(1)));
    assert_eq!(app.shown().report().unwrap().time_wait.total, 0);
    // Another run gives the same picture.
    let (again, _) = played("demo.jsonl", Duration::from_millis(1_500));
    assert_eq!(text(&app, 120, 40), text(&again, 120, 40));
}

fn losses_are_said() {
    let app = ended("ring-too-small.jsonl");
    let lost = app.shown().report().unwrap().session.events.lost;
    assert!(lost > 0);
    let screen = text(&app, 100, 30);
    assert!(screen.contains("INCOMPLETE: ") && screen.contains(&format!("{lost} lost")), "{screen}");
}

fn keys_select_and_enter() {
    let mut app = ended("demo.jsonl");
    press(&mut app, &[KeyCode::Down, KeyCode::Enter]);
    assert_eq!(app.screen(), Screen::Process);
    assert_eq!(app.chosen().unwrap().process.comm.as_str(), "legacy-api");
    assert!(text(&app, 80, 24).contains("150 from 127.0.0.1 at 127.0.0.1:8081"));
    press(&mut app, &[KeyCode::Char('?')]);
    assert_eq!(app.screen(), Screen::Help);
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!(app.screen(), Screen::Process);
    press(&mut app, &[KeyCode::Esc, KeyCode::Char('G'), KeyCode::Enter]);
    assert_eq!(app.chosen().unwrap().process.comm.as_str(), "billing-sync");
    // Who uses the ports of the first destination.
    press(&mut app, &[KeyCode::Char('2'), KeyCode::Enter]);
    assert_eq!((app.screen(), app.chosen().unwrap().process.comm.as_str()), (Screen::Process, "crawler"));
    press(&mut app, &[KeyCode::Tab, KeyCode::Tab]);
    assert_eq!(app.screen(), Screen::Overview);
    assert!(!app.is_over());
    press(&mut app, &[KeyCode::Esc]);
    assert!(app.is_over());
}

fn keys_sort() {
    let mut app = ended("demo.jsonl");
    let names = |app: &App| app.processes().iter().map(|row| row.process.comm.to_string()).collect::<Vec<_>>();
    let by_sockets = ["checkout", "legacy-api", "crawler", "billing-sync"];
    assert_eq!(names(&app), by_sockets);
    press(&mut app, &[KeyCode::Char('s'), KeyCode::Char('s'), KeyCode::Char('s')]);
    assert_eq!(names(&app), ["billing-sync", "checkout", "crawler", "legacy-api"]);
    assert!(text(&app, 80, 24).contains("process v"));
    press(&mut app, &[KeyCode::Char('r')]);
    assert_eq!(names(&app), ["legacy-api", "crawler", "checkout", "billing-sync"]);
    press(&mut app, &[KeyCode::Char('r'), KeyCode::Char('s')]);
    assert_eq!(names(&app), by_sockets);
    let remotes = |app: &App| app.ports().iter().map(|it| it.remote.clone()).collect::<Vec<_>>();
    press(&mut app, &[KeyCode::Char('2')]);
    assert_eq!(remotes(&app), ["127.0.0.1:6379", "127.0.0.1:5432"]);
    press(&mut app, &[KeyCode::Char('s'), KeyCode::Char('s')]);
    assert_eq!(remotes(&app), ["127.0.0.1:5432", "127.0.0.1:6379"]);
    assert!(text(&app, 80, 24).contains("sorted by rate v"));
}

fn a_filter_is_typed() {
    let mut app = ended("demo.jsonl");
    // What are keys otherwise is text now.
    press(
        &mut app,
        &[KeyCode::Char('/'), KeyCode::Char('C'), KeyCode::Char('q'), KeyCode::Backspace, KeyCode::Char('h')],
    );
    assert!(!app.is_over());
    assert_eq!(app.processes().len(), 1);
    assert!(text(&app, 80, 24).contains("filter: Ch_"));
    press(&mut app, &[KeyCode::Enter]);
    assert!(text(&app, 80, 24).contains("filter: Ch"));
    press(&mut app, &[KeyCode::Char('3')]);
    assert!(app.failures().is_empty());
    assert!(text(&app, 80, 24).contains("nothing that contains \"Ch\""));
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!((app.failures().len(), app.is_over()), (5, false));
    // By destination, and by who holds the port.
    press(&mut app, &[KeyCode::Char('1'), KeyCode::Char('/')]);
    press(&mut app, &":5432".chars().map(KeyCode::Char).collect::<Vec<_>>());
    let names: Vec<_> = app.processes().iter().map(|row| row.process.comm.to_string()).collect();
    assert_eq!(names, ["checkout", "billing-sync"]);
    app.key(&KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(app.is_over());
}

fn paused_it_stands_still() {
    let (mut app, mut recorded) = played("demo.jsonl", Duration::from_millis(500));
    press(&mut app, &[KeyCode::Char('p')]);
    let before = text(&app, 80, 24);
    assert!(before.contains("PAUSED"), "{before}");
    play(&mut app, &mut recorded, Duration::from_secs(1));
    assert_eq!(text(&app, 80, 24), before);
    press(&mut app, &[KeyCode::Char('p')]);
    let after = text(&app, 80, 24);
    assert!(!after.contains("PAUSED") && after.contains("0:01"), "{after}");
    assert_ne!(after, before);
}

fn no_colour_without_colours() {
    let app = ended("demo.jsonl");
    let mut plain = Terminal::new(TestBackend::new(80, 24)).unwrap();
    plain.draw(|frame| draw(frame, &app, Palette { is_coloured: false })).unwrap();
    let colours = |terminal: &Terminal<TestBackend>| {
        let cells = terminal.backend().buffer().content.iter();
        cells.filter(|cell| (cell.fg, cell.bg) != Default::default()).count()
    };
    assert_eq!(colours(&plain), 0);
    let coloured = drawn(&app, 80, 24);
    assert!(colours(&coloured) > 0);
    // And no word is missing.
    assert_eq!(plain.backend().to_string(), coloured.backend().to_string());
}

fn no_size_is_too_small() {
    let apps: Vec<App> =
        [KeyCode::Char('1'), KeyCode::Char('2'), KeyCode::Char('3'), KeyCode::Char('4'), KeyCode::Char('?')]
            .into_iter()
            .map(|key| {
                let mut app = ended("demo.jsonl");
                press(&mut app, &[key, KeyCode::PageDown, KeyCode::End]);
                app
            })
            .chain([App::default()])
            .collect();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let places = (0..apps.len(), 1_u16..=200, 1_u16..=60);
    runner
        .run(&places, |(app, width, height)| {
            let screen = text(&apps[app], width, height);
            prop_assert_eq!(screen.lines().count(), usize::from(height));
            if width >= 50 && (width < 80 || height < 24) {
                prop_assert!(screen.contains("firstfin needs 80x24"), "{}", screen);
            }
            Ok(())
        })
        .unwrap();
}
