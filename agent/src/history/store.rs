//! Minutes -> rows: one transaction a minute.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use super::{
    open::{self, FileId, StoreError, with_suffix},
    rollup::{Episode, EpisodeKey, Minute, Worst},
    rows::{Dictionary, Writer},
};
use crate::{model::Name, report::Finding};

/// What a boot of a host, and the program that watched it, are known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`; empty if it could not be read
    pub boot_id: String,
    /// Host name
    pub host: Name,
    /// Kernel release
    pub kernel: Name,
    /// Version of firstfin
    pub version: String,
}

/// The database, open to write.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    path: PathBuf,
    file: FileId,
    dictionary: Dictionary,
}

impl Store {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (connection, file) = open::open(path)?;
        Ok(Self { connection, path: path.to_path_buf(), file, dictionary: Dictionary::default() })
    }

    /// Opens it, and if it is damaged puts it aside and makes a new one: gives what was damaged, and where it is now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_or_replace(path: &Path, now: Timestamp) -> Result<(Self, Option<(StoreError, PathBuf)>), StoreError> {
        match Self::open(path) {
            Err(damage) if damage.is_damage() => {
                let aside = open::set_aside(path, now)?;
                Ok((Self::open(path)?, Some((damage, aside))))
            }
            result => Ok((result?, None)),
        }
    }

    /// The path names this file no longer: it was moved, deleted or replaced, and nobody would find what is written to it.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        open::file_id(&self.path).ok() != Some(self.file)
    }

    /// Bytes of the database and its log.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let size = |path: &Path| fs::metadata(path).map_or(0, |it| it.len());
        size(&self.path) + size(&with_suffix(&self.path, "-wal"))
    }

    /// Writes a minute, all of it or nothing. Gives the number of rows.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]: nothing was written, and it can be tried again.
    pub fn write(&mut self, minute: &Minute, boot: &Boot) -> Result<u64, StoreError> {
        let written = self.try_to_write(minute, boot);
        if written.is_err() {
            // What it remembers may have been taken back.
            self.dictionary = Dictionary::default();
        }
        written.map_err(StoreError::sqlite("write a minute"))
    }

    fn try_to_write(&mut self, minute: &Minute, boot: &Boot) -> rusqlite::Result<u64> {
        let Self { connection, dictionary, .. } = self;
        dictionary.make_room();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut writer =
            Writer { transaction: &transaction, dictionary, day: minute.start.div_euclid(86_400), rows: 0 };
        let id = writer.minute(minute, boot)?;
        writer.rows_of(minute, id)?;
        for episode in &minute.findings {
            writer.episode(episode)?;
        }
        let rows = writer.rows;
        transaction.commit()?;
        Ok(rows)
    }

    /// Forgets what it knows of the dictionaries, after entries were deleted.
    pub(super) fn forget_dictionary(&mut self) {
        self.dictionary = Dictionary::default();
    }

    /// Findings that no agent has closed, the newest first, as many as an agent has open at most.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]
    pub fn open_episodes(&self) -> Result<Vec<Episode>, StoreError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT opened_ms, last_seen_ms, windows, worst_ms, weight, body FROM findings
                 WHERE closed_ms IS NULL ORDER BY last_seen_ms DESC LIMIT 512",
            )?;
            let rows = statement.query_map([], |row| {
                let body: String = row.get(5)?;
                let times: [i64; 3] = [row.get(0)?, row.get(1)?, row.get(3)?];
                let counts: [i64; 2] = [row.get(2)?, row.get(4)?];
                Ok((times, counts, body))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(StoreError::sqlite("read the findings that are open"))?;
        Ok(rows.into_iter().filter_map(|(times, counts, body)| episode(times, counts, &body)).collect())
    }
}

/// None: a newer version wrote it, in a form that is not known; it stays as it is.
fn episode([opened, last_seen, worst]: [i64; 3], [windows, weight]: [i64; 2], body: &str) -> Option<Episode> {
    let finding: Finding = serde_json::from_str(body).ok()?;
    let at = |milliseconds| Timestamp::from_millisecond(milliseconds).ok();
    Some(Episode {
        key: EpisodeKey::from(&finding),
        opened: at(opened)?,
        last_seen: at(last_seen)?,
        closed: None,
        windows: u64::try_from(windows).ok()?,
        worst: Worst { at: at(worst)?, weight: u64::try_from(weight).ok()?, finding },
    })
}
