//! Databases as they are met in the field: new, full, damaged, of another version, written while they are read.

mod answers;
mod keeping;
mod opening;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use jiff::Timestamp;

use super::{
    Boot, Store,
    rollup::{Limits, Minute, Moment, Rollup},
};
use crate::{
    model::Name,
    report::{Finding, ProcessInfo, ProcessTimeWait, Report, Severity},
};

/// 2026-05-09 03:00 UTC, Unix seconds.
pub(super) const THREE: i64 = 1_778_295_600;

pub(super) const LIMITS: Limits = Limits { processes: 100, destinations: 100 };

pub(super) fn at(second: i64) -> Moment {
    Moment { wall: Timestamp::from_second(second).unwrap(), boottime_ms: (second - THREE + 1_000) * 1_000 }
}

pub(super) fn process(comm: &str, pid: u32) -> ProcessInfo {
    ProcessInfo { pid, comm: Name::from(comm), unit: Some(Name::from("app.service")), ..ProcessInfo::default() }
}

/// What a window of ten seconds says.
pub(super) fn window(processes: &[(&str, u32, u64, u64)]) -> Report {
    let mut report: Report = serde_json::from_str(include_str!("../../../tests/history_reports/quiet.json")).unwrap();
    for &(comm, pid, sockets, entered) in processes {
        report.time_wait.total += sockets;
        report.time_wait.entered += entered;
        report.time_wait.by_process.push(ProcessTimeWait {
            process: process(comm, pid),
            sockets,
            fin_wait2: 0,
            entered,
            entered_per_s: 0.0,
            closed_first: entered,
            overflowed: 0,
            became_time_wait: 0,
            left: [].into(),
            outbound: sockets,
            inbound: 0,
            destinations: Vec::new(),
            destinations_omitted: 0,
        });
    }
    report
}

pub(super) fn finding(id: &str, process: ProcessInfo, severity: Severity, summary: &str) -> Finding {
    Finding {
        id: id.to_owned(),
        severity,
        summary: summary.to_owned(),
        process: Some(process),
        evidence: vec![format!("evidence of: {summary}")],
        remedy: vec!["close fewer connections".to_owned()],
        ..Finding::default()
    }
}

/// A minute with one window.
pub(super) fn minute(start: i64, report: &Report) -> Minute {
    let mut rollup = Rollup::new(LIMITS);
    assert!(rollup.take_in(report, at(start + 10)).is_none());
    rollup.finish().unwrap()
}

pub(super) fn boot() -> Boot {
    Boot {
        boot_id: "0e2d1c8f".to_owned(),
        host: Name::from("web-1"),
        kernel: Name::from("6.18.44"),
        version: "0.1.0".to_owned(),
    }
}

/// A folder of one test, gone with it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("firstfin-history-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join("history.db")
    }

    /// Names of the files, sorted.
    pub(super) fn files(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn number(store: &Store, sql: &str) -> i64 {
    store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
}
