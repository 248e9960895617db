//! Recorded sessions give the reports they gave: every recording under `recordings/`, replayed, against its golden
//! report. `cargo insta review` shows what a change of the analysis changes.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{self, BufReader, Write},
    path::Path,
    rc::Rc,
};

use firstfin::{
    recording::{Destination, Line, ReplayError, Writer, redact, replay},
    report::Report,
};

fn recordings() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("the folder of recordings")
        .map(|entry| entry.expect("its entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ffrec"))
        .collect();
    found.sort();
    found
}

#[test]
fn recordings_give_their_golden_reports() {
    let recordings = recordings();
    assert!(!recordings.is_empty());
    for path in recordings {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let file = BufReader::new(fs::File::open(&path).expect("readable"));
        let report = replay(file).unwrap_or_else(|error| panic!("{name}: {error}"));
        insta::assert_json_snapshot!(name.clone(), report);
        // Twice the same: nothing of it depends on the order of a hash table or on the clock.
        let again = replay(BufReader::new(fs::File::open(&path).expect("readable"))).expect("it worked before");
        assert_eq!(report, again, "{name}");
    }
}

#[test]
fn a_cut_off_recording_is_told_from_one_that_is_none() {
    let whole = demo();
    let cut = &whole[..whole.trim_end().rfind('\n').expect("many lines")];
    assert!(matches!(replay(cut.as_bytes()), Err(ReplayError::CutOff)));
    assert!(matches!(replay(&b""[..]), Err(ReplayError::CutOff)));
    let headless =
        serde_json::to_string(&Line::Facts(std::borrow::Cow::Owned(firstfin::report::SessionFacts::default())))
            .expect("JSON")
            + "\n";
    assert!(matches!(replay(headless.as_bytes()), Err(ReplayError::NoHeader)));
    match replay(&b"nonsense\n"[..]) {
        Err(ReplayError::Malformed { at, .. }) => assert_eq!(at.to_string(), "line 1"),
        other => panic!("{other:?}"),
    }
}

/// What was written so far, block by block.
#[derive(Clone, Default)]
struct Blocks(Rc<RefCell<Vec<Vec<u8>>>>);

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A recording of before, written anew in blocks of so many lines; with the facts of its end after each look at the host.
fn written_anew(recording: &str, lines_a_block: usize) -> Vec<Vec<u8>> {
    let lines: Vec<Line<'_>> = recording.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let facts = lines.iter().find_map(|line| match line {
        Line::End { facts, .. } => Some(facts.clone()),
        _ => None,
    });
    let facts = facts.expect("an end");
    let blocks = Blocks::default();
    let mut writer = None;
    for (number, line) in lines.into_iter().enumerate() {
        match line {
            Line::Header { started, .. } => {
                let to = Destination { out: Box::new(blocks.clone()), is_redacted: false };
                writer = Some(Writer::begin(to, started).expect("a header"));
            }
            Line::Input(input) => {
                let writer = writer.as_mut().expect("begun");
                writer.input(&input).expect("an input");
                if matches!(*input, firstfin::state::Input::Begin { .. } | firstfin::state::Input::Census(_)) {
                    writer.facts(&facts).expect("facts");
                }
                if number % lines_a_block == 0 {
                    writer.settle().expect("a block");
                }
            }
            Line::Facts(_) => unreachable!("there were none in those days"),
            Line::End { census, facts } => writer.take().expect("begun").end(&census, &facts).expect("an end"),
        }
    }
    blocks.0.take()
}

fn demo() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/demo.jsonl")).expect("readable")
}

fn is_cut_off(report: &Report) -> bool {
    report.session.blind_spots.iter().any(|spot| spot.starts_with("the recording is cut off"))
}

#[test]
fn blocks_give_the_report_that_lines_give() {
    let text = demo();
    let blocks = written_anew(&text, 50);
    assert!(blocks.len() > 10, "{}", blocks.len());
    let bytes = blocks.concat();
    assert!(bytes.len() * 8 < text.len(), "{} of {}", bytes.len(), text.len());
    let report = replay(bytes.as_slice()).expect("whole");
    assert_eq!(report, replay(text.as_bytes()).expect("whole"));
    assert!(!is_cut_off(&report));
}

/// Wherever a recording ends, what is in its whole blocks is in the report.
#[test]
fn a_torn_tail_costs_the_last_block_and_no_more() {
    let blocks = written_anew(&demo(), 50);
    let mut whole = Vec::new();
    let mut reports = 0;
    for block in &blocks {
        let before = replay(whole.as_slice());
        for cut in [1, 3, 4, block.len() / 2, block.len() - 1] {
            let torn = [whole.as_slice(), &block[..cut]].concat();
            match (&before, replay(torn.as_slice())) {
                (Ok(before), Ok(report)) => assert_eq!(report, *before, "{cut} bytes of a block of {}", block.len()),
                (Err(ReplayError::CutOff), Err(ReplayError::CutOff)) => {}
                (before, torn) => panic!("{before:?} before, {torn:?} with {cut} bytes more"),
            }
        }
        if let Ok(report) = before {
            assert!(is_cut_off(&report) && report.session.interrupted);
            reports += 1;
        }
        whole.extend(block);
    }
    assert!(reports + 5 > blocks.len(), "{reports} of {}", blocks.len());
    assert!(!is_cut_off(&replay(whole.as_slice()).expect("whole")));
}

#[test]
fn damage_is_told_with_its_place() {
    let blocks = written_anew(&demo(), 50);
    let third = blocks[..2].iter().map(Vec::len).sum::<usize>();
    let mut bytes = blocks.concat();
    bytes[third + blocks[2].len() / 2] ^= 0x10;
    match replay(bytes.as_slice()) {
        Err(ReplayError::Damaged { at, .. }) => assert_eq!(at, third as u64),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recording_of_another_version_is_told_by_its_version() {
    let header = b"{\"header\":{\"format\":\"firstfin.recording\",\"version\":99,\"started\":0}}\n";
    let compressed = zstd::encode_all(&header[..], 1).expect("compressed");
    for recording in [&header[..], &compressed] {
        match replay(recording) {
            Err(error @ ReplayError::OtherVersion(99)) => {
                assert_eq!(error.to_string(), "this is a recording of version 99, and this firstfin reads version 1");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The demo, had it run in a container of a unit, and not on loopback.
fn named() -> String {
    let container = r#""container":{"runtime":"docker","id":"4f5e6d","pod_uid":"b1-b2","name":"shop-1","image":"shop:7","pod":"shop","namespace":"prod"}"#;
    demo()
        .replace("127.0.0.1", "10.11.12.13")
        .replace(r#""unit":null"#, r#""unit":"shop-stack.service""#)
        .replace(r#""cgroup":null"#, r#""cgroup":"/system.slice/shop-stack.service""#)
        .replace(r#""container":null"#, container)
}

fn redacted(recording: &str) -> Vec<u8> {
    let blocks = Blocks::default();
    redact(recording.as_bytes(), Box::new(blocks.clone())).expect("redacted");
    blocks.0.take().concat()
}

/// What stands for what: of texts that are a name or an address and nothing else.
fn pair(original: &serde_json::Value, redacted: &serde_json::Value, pairs: &mut BTreeMap<String, String>) {
    use serde_json::Value::{Array, Object, String};
    match (original, redacted) {
        (Array(original), Array(redacted)) => {
            assert_eq!(original.len(), redacted.len());
            original.iter().zip(redacted).for_each(|(original, redacted)| pair(original, redacted, pairs));
        }
        (Object(original), Object(redacted)) => {
            assert!(original.keys().eq(redacted.keys()));
            original.values().zip(redacted.values()).for_each(|(original, redacted)| pair(original, redacted, pairs));
        }
        (String(original), String(redacted)) if original != redacted && !original.contains(' ') => {
            let before = pairs.insert(redacted.clone(), original.clone());
            assert!(before.is_none_or(|before| before == *original), "{redacted} stands for {original}, too");
        }
        (String(_), String(_)) => {}
        (original, redacted) => assert_eq!(original, redacted),
    }
}

#[test]
fn a_redacted_recording_says_the_same_of_others() {
    let original = named();
    let copy = redacted(&original);
    let text = String::from_utf8(zstd::decode_all(copy.as_slice()).expect("blocks")).expect("JSON");
    let names =
        ["checkout", "orders-db", "crawler", "/usr/bin/firstfin", "shop", "4f5e6d", "b1-b2", "prod", "10.11.12"];
    for name in names {
        assert!(original.contains(name), "{name} is not there to begin with");
        let found = text.lines().find(|line| line.contains(name));
        assert!(found.is_none(), "{name} is still in {found:?}");
    }
    let before = replay(original.as_bytes()).expect("whole");
    let after = replay(copy.as_slice()).expect("whole");
    assert!(!text.contains(before.host.name.as_str()), "{}", before.host.name);

    let original = serde_json::to_value(&before).expect("JSON");
    let mut back = serde_json::to_string(&after).expect("JSON");
    let mut pairs = BTreeMap::new();
    pair(&original, &serde_json::from_str(&back).expect("JSON"), &mut pairs);
    // A name may begin with another one's: process-1, process-12.
    for (substitute, name) in pairs.iter().rev() {
        back = back.replace(substitute, name);
    }
    assert_eq!(serde_json::from_str::<serde_json::Value>(&back).expect("JSON"), original);
    let again = replay(redacted(&text).as_slice()).expect("whole");
    assert_eq!(again, after, "the first one is number one in each run");
}
