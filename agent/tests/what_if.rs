//! The model on recorded sessions: without a change it has to be what they counted, or to say that it is not.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{fs, io::BufReader, path::Path};

use firstfin::{
    output::text,
    what_if::{
        Answer, Changes, Who, answer,
        workload::{self, Workload},
    },
};

fn load(name: &str) -> Workload {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name);
    workload::read(BufReader::new(fs::File::open(path).expect("readable"))).expect("a recording")
}

fn demo(changes: &Changes) -> Answer {
    answer(&load("demo.jsonl"), changes, false)
}

#[test]
fn without_a_change_it_is_what_was_recorded() {
    let it = demo(&Changes::default());
    let check = it.check;
    let pairs = [check.peak_time_wait, check.peak_used, check.connect_failures];
    assert_eq!(pairs.map(|pair| (pair.recorded, pair.modelled)), [(615, 615), (401, 401), (16, 16)]);
    assert_eq!((check.looks, it.what_if, it.changes.len()), (2, None, 0));
    let crawler = it.destinations.first().expect("a destination");
    let ports = (crawler.today.peak_used, crawler.today.usable, crawler.today.connect_failures);
    assert_eq!((crawler.remote.as_str(), ports), ("127.0.0.1:6379", (64, 64, 16)));
    assert!(crawler.today.exhaustion.is_past, "{crawler:?}");
    assert_eq!(it, demo(&Changes::default()), "nothing depends on the order of a hash table");
}

#[test]
fn a_pool_of_the_crawler_helps_the_crawler_alone() {
    let changes = Changes { pool: Some(1), process: Some(Who::Comm("crawler".into())), ..Changes::default() };
    let it = demo(&changes);
    let what_if = it.what_if.expect("an answer");
    // 64 of its TIME_WAITs are not there, and its 80 requests are served by one connection.
    assert_eq!((what_if.connect_failures, what_if.peak_time_wait), (0, 615 - 64));
    let ports: Vec<_> =
        it.destinations.iter().map(|it| (it.remote.as_str(), it.what_if.map(|it| it.peak_used))).collect();
    assert_eq!(ports[..2], [("127.0.0.1:6379", Some(1)), ("127.0.0.1:5432", Some(401))]);
    assert!(it.changes[0].starts_with("a pool: at most 1 connection") && it.changes[1].contains("crawler only"));
}

#[test]
fn what_was_lost_is_said() {
    let it = answer(&load("ring-too-small.jsonl"), &Changes::default(), false);
    assert!(it.check.peak_time_wait.percent_off() > 2.0, "{:?}", it.check);
    assert!(it.cautions.iter().any(|it| it.starts_with("the model without a change is off by")), "{:?}", it.cautions);
    assert!(it.gaps.iter().any(|it| it.starts_with("584 record(s) were lost")), "{:?}", it.gaps);
}

#[test]
fn the_text_has_both_columns_and_what_they_rest_on() {
    let changes = Changes { port_range: Some((1_024, 65_535)), linger0: true, ..Changes::default() };
    let text = text::what_if(&demo(&changes), None, false);
    for line in [
        "change     - net.ipv4.ip_local_port_range = 1024 65535",
        "127.0.0.1 -> 127.0.0.1:6379",
        "64 of 64",
        "16 avoided",
        "SO_LINGER 0 is unsafe",
        "peak TIME_WAIT 615 recorded, 615 in the model (0.0 % off)",
        "FIN_WAIT2 minisocket(s) are taken to be in TIME_WAIT at once",
    ] {
        assert!(text.contains(line), "{line:?} is missing:\n{text}");
    }
    let wide = text::what_if(&answer(&load("demo.jsonl"), &Changes::default(), true), Some(100), false);
    let unsafe_one = wide.lines().find(|line| line.contains("--linger0")).expect("a remedy");
    assert!(unsafe_one.contains("unsafe: data may be lost"), "{wide}");
    assert!(wide.lines().any(|line| line.contains("--keep-alive 5") && line.contains("16 avoided")), "{wide}");
}
