//! Opening: new, damaged, somebody else's, moved.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use rusqlite::Connection;

use super::{super::open::StoreError, *};

#[test]
fn a_new_database_is_its_owners_alone_and_can_shrink() {
    let folder = Folder::new();
    let path = folder.path().join("made/for/it/history.db");
    let mut store = Store::open(&path).unwrap();
    store.write(&minute(THREE, &window(&[("crawler", 7, 5, 9)])), &boot()).unwrap();
    for file in [&path, &super::super::open::with_suffix(&path, "-wal")] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(number(&store, "PRAGMA auto_vacuum"), 2);
    let journal: String = store.connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!((journal.as_str(), number(&store, "PRAGMA synchronous")), ("wal", 1));
}

#[test]
fn one_whose_making_was_cut_short_can_shrink_too() {
    let folder = Folder::new();
    let begun = Connection::open(folder.database()).unwrap();
    begun.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    drop(begun);
    let store = Store::open(&folder.database()).unwrap();
    assert_eq!(number(&store, "PRAGMA auto_vacuum"), 2);
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.database()).unwrap();
    let rows = store.write(&minute(THREE, &window(&[("crawler", 7, 5, 9), ("web", 8, 1, 1)])), &boot()).unwrap();
    assert_eq!(rows, 3);
    drop(store);
    let mut store = Store::open(&folder.database()).unwrap();
    store.write(&minute(THREE + 60, &window(&[("crawler", 9, 6, 2)])), &boot()).unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM minutes"), 2);
    // The same process under another pid, in the same boot: one entry.
    assert_eq!(number(&store, "SELECT count(*) FROM processes"), 2);
    assert_eq!(number(&store, "SELECT count(*) FROM boots"), 1);
    assert_eq!(number(&store, "SELECT pid FROM minute_processes WHERE sockets = 6"), 9);
}

#[test]
fn a_damaged_one_is_put_aside_and_a_new_one_begun() {
    for (damage, why) in [
        // In the middle of a table: the header is fine.
        (vec![0xa5_u8; 4096], "page"),
        (Vec::new(), "does not begin as a database does"),
    ] {
        let folder = Folder::new();
        let mut store = Store::open(&folder.database()).unwrap();
        for number in 0..40 {
            let names: Vec<_> = (0..50).map(|it| format!("process-{it}")).collect();
            let processes: Vec<_> = names.iter().map(|name| (name.as_str(), 7, 5, 9)).collect();
            store.write(&minute(THREE + number * 60, &window(&processes)), &boot()).unwrap();
        }
        drop(store);
        let mut bytes = fs::read(folder.database()).unwrap();
        if damage.is_empty() {
            bytes[..16].copy_from_slice(b"something else!!");
        } else {
            let middle = bytes.len() / 2 / 4096 * 4096;
            bytes[middle..middle + 4096].copy_from_slice(&damage);
        }
        fs::write(folder.database(), &bytes).unwrap();
        let now = at(THREE).wall;
        let (mut store, replaced) = Store::open_or_replace(&folder.database(), now).unwrap();
        let (error, aside) = replaced.unwrap();
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert!(error.to_string().to_lowercase().contains(why), "{error}");
        assert_eq!(aside, folder.path().join("history.db.damaged-20260509T030000Z"));
        assert_eq!(fs::read(&aside).unwrap(), bytes);
        store.write(&minute(THREE, &window(&[("crawler", 7, 5, 9)])), &boot()).unwrap();
        assert_eq!(number(&store, "SELECT count(*) FROM minutes"), 1);
    }
}

#[test]
fn two_damaged_ones_are_kept() {
    let folder = Folder::new();
    for hour in 0..4 {
        fs::write(folder.database(), "no database").unwrap();
        let (_, replaced) = Store::open_or_replace(&folder.database(), at(THREE + hour * 3_600).wall).unwrap();
        assert!(replaced.is_some());
        fs::remove_file(folder.database()).unwrap();
    }
    let mut aside = folder.files();
    aside.retain(|name| name.contains("damaged"));
    assert_eq!(aside, ["history.db.damaged-20260509T050000Z", "history.db.damaged-20260509T060000Z"]);
}

#[test]
fn what_is_not_ours_stays_as_it_is() {
    let folder = Folder::new();
    let other = Connection::open(folder.database()).unwrap();
    other.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1);").unwrap();
    drop(other);
    let before = fs::read(folder.database()).unwrap();
    let error = Store::open_or_replace(&folder.database(), at(THREE).wall).unwrap_err();
    assert!(matches!(error, StoreError::NotOurs { .. }) && error.to_string().contains("another program"), "{error}");
    assert_eq!(fs::read(folder.database()).unwrap(), before);

    let directory = folder.path().join("folder.db");
    fs::create_dir(&directory).unwrap();
    assert!(Store::open(&directory).is_err());
    let device = folder.path().join("device.db");
    symlink("/dev/null", &device).unwrap();
    let error = Store::open_or_replace(&device, at(THREE).wall).unwrap_err();
    assert!(error.to_string().contains("no regular file"), "{error}");
}

#[test]
fn a_newer_one_is_not_touched() {
    let folder = Folder::new();
    let store = Store::open(&folder.database()).unwrap();
    store.connection.execute_batch("PRAGMA user_version = 4711").unwrap();
    drop(store);
    let error = Store::open_or_replace(&folder.database(), at(THREE).wall).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 4711, known: 1, .. }), "{error}");
    assert_eq!(folder.files(), ["history.db"]);
}

#[test]
fn a_file_that_was_moved_away_is_noticed() {
    let folder = Folder::new();
    let store = Store::open(&folder.database()).unwrap();
    assert!(!store.has_moved());
    fs::rename(folder.database(), folder.path().join("moved.db")).unwrap();
    assert!(store.has_moved());
}

#[test]
fn open_findings_are_read_back() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.database()).unwrap();
    let mut report = window(&[("crawler", 7, 500, 9)]);
    report.findings = vec![finding("TimeWaitBuildup", process("crawler", 7), Severity::Warning, "crawler builds up")];
    let mut rollup = Rollup::new(LIMITS);
    rollup.take_in(&report, at(THREE + 10));
    let first = rollup.take_in(&window(&[]), at(THREE + 190)).unwrap();
    store.write(&first, &boot()).unwrap();
    let open = store.open_episodes().unwrap();
    assert_eq!(open, first.findings);
    assert_eq!((open[0].worst.weight, open[0].opened), (500, at(THREE).wall));
    // Three minutes later it is over.
    store.write(&rollup.finish().unwrap(), &boot()).unwrap();
    assert_eq!(store.open_episodes().unwrap(), []);
    assert_eq!(number(&store, "SELECT count(*) FROM findings"), 1);
}
