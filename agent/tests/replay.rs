//! Recorded sessions give the reports they gave: every recording under `recordings/`, replayed, against its golden
//! report. `cargo insta review` shows what a change of the analysis changes.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{fs, io::BufReader, path::Path};

use firstfin::recording::{ReplayError, replay};

fn recordings() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("the folder of recordings")
        .map(|entry| entry.expect("its entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
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
    let path = recordings().remove(0);
    let whole = fs::read_to_string(path).expect("readable");
    let cut = &whole[..whole.trim_end().rfind('\n').expect("many lines")];
    assert!(matches!(replay(cut.as_bytes()), Err(ReplayError::CutOff)));
    assert!(matches!(replay(&b""[..]), Err(ReplayError::NoHeader)));
    assert!(matches!(
        replay(&b"{\"header\":{\"format\":\"firstfin.recording\",\"version\":99,\"started\":0}}\n"[..]),
        Err(ReplayError::NoHeader)
    ));
    assert!(matches!(replay(&b"nonsense\n"[..]), Err(ReplayError::Malformed { line: 1, .. })));
}
