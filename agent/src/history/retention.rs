//! What goes, and when: by age, and by size.
//!
//! Rows go oldest first, in steps of a transaction each, so that the log stays small and a reader never waits long. Then the
//! pages they leave are given back to the file system. (`PRAGMA incremental_vacuum` frees a page for each row that is asked of
//! it: it has to be stepped to its end.)

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::{
    open::{StoreError, run},
    store::Store,
};

/// Minutes deleted in one transaction: half a day.
const STEP: i64 = 720;

/// Whether the wall clock can be trusted to say how old something is.
///
/// A clock that is set years ahead by mistake would make all of the history old at once. So age counts only once the wall clock
/// has gone with the boot clock for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SteadyClock {
    since: Option<(i64, i64)>,
}

impl SteadyClock {
    /// The difference that NTP and leap seconds may make, milliseconds.
    const DRIFT_MS: i64 = 120_000;
    const STEADY_MS: i64 = 600_000;

    /// Takes in what both clocks show, milliseconds, and says whether the wall clock has been steady for ten minutes.
    pub(super) fn is_steady(&mut self, wall_ms: i64, boottime_ms: i64) -> bool {
        match self.since {
            Some((wall, boot))
                if ((wall_ms - wall) - (boottime_ms - boot)).abs() <= Self::DRIFT_MS && boottime_ms >= boot =>
            {
                boottime_ms - boot >= Self::STEADY_MS
            }
            _ => {
                self.since = Some((wall_ms, boottime_ms));
                false
            }
        }
    }
}

impl Store {
    /// Deletes what is older than `max_age` at `now`. Gives the number of minutes and findings deleted.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]; what was deleted until then stays so.
    pub fn keep_age(&mut self, now: Timestamp, max_age: SignedDuration) -> Result<u64, StoreError> {
        let oldest = now.checked_sub(max_age).unwrap_or(Timestamp::MIN);
        let mut deleted = 0;
        loop {
            let step = self.delete_minutes("start_s < ?1 ORDER BY id LIMIT ?2", params![oldest.as_second(), STEP])?;
            deleted += step;
            if step == 0 {
                break;
            }
        }
        deleted += self
            .connection
            .execute("DELETE FROM findings WHERE last_seen_ms < ?1", [oldest.as_millisecond()])
            .map(as_u64)
            .map_err(StoreError::sqlite("delete old findings"))?;
        if deleted > 0 {
            self.forget_unused()?;
            self.give_back()?;
        }
        Ok(deleted)
    }

    /// If the database is larger than `max_size` bytes, deletes the oldest of it until it takes nine tenths of that. Gives the
    /// number of minutes and findings deleted.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]; what was deleted until then stays so.
    pub fn keep_size(&mut self, max_size: u64) -> Result<u64, StoreError> {
        if self.used_bytes(Pages::All)? <= max_size {
            return Ok(0);
        }
        let target = max_size / 10 * 9;
        let mut deleted = 0;
        while self.used_bytes(Pages::InUse)? > target {
            let minutes: i64 = self.number("SELECT count(*) FROM minutes")?;
            let step = (minutes / 16).clamp(1, STEP);
            let mut gone = self.delete_minutes("true ORDER BY id LIMIT ?1", params![step])?;
            // Findings without a minute are of another time. The last minutes stay: they are what is asked for first.
            gone += self.delete_findings_before_minutes()?;
            if minutes <= 1 {
                gone += self.delete_oldest_findings()?;
            }
            self.forget_unused()?;
            deleted += gone;
            if gone == 0 {
                break;
            }
        }
        self.give_back()?;
        Ok(deleted)
    }

    /// `which` is the end of a WHERE clause on minutes.
    fn delete_minutes(&mut self, which: &str, values: impl rusqlite::Params + Copy) -> Result<u64, StoreError> {
        let mut delete = || {
            let transaction = self.connection.transaction()?;
            for table in ["minute_processes", "minute_destinations", "minute_routes", "minute_failures"] {
                let sql = format!("DELETE FROM {table} WHERE minute IN (SELECT id FROM minutes WHERE {which})");
                transaction.prepare_cached(&sql)?.execute(values)?;
            }
            let sql = format!("DELETE FROM minutes WHERE id IN (SELECT id FROM minutes WHERE {which})");
            let minutes = transaction.prepare_cached(&sql)?.execute(values)?;
            transaction.commit()?;
            Ok(as_u64(minutes))
        };
        delete().map_err(StoreError::sqlite("delete old minutes"))
    }

    fn delete_findings_before_minutes(&self) -> Result<u64, StoreError> {
        self.connection
            .execute("DELETE FROM findings WHERE last_seen_ms < (SELECT min(start_s) * 1000 FROM minutes)", [])
            .map(as_u64)
            .map_err(StoreError::sqlite("delete old findings"))
    }

    fn delete_oldest_findings(&self) -> Result<u64, StoreError> {
        let sql = "DELETE FROM findings WHERE id IN (SELECT id FROM findings ORDER BY last_seen_ms LIMIT 100)";
        self.connection.execute(sql, []).map(as_u64).map_err(StoreError::sqlite("delete old findings"))
    }

    /// Entries of the dictionaries that no row is old enough to name.
    fn forget_unused(&mut self) -> Result<(), StoreError> {
        let oldest = "SELECT coalesce(min(day), 9000000) FROM (
            SELECT min(start_s) / 86400 AS day FROM minutes
            UNION ALL SELECT min(last_seen_ms) / 86400000 FROM findings
        )";
        let sql = format!(
            "DELETE FROM boots WHERE id NOT IN (SELECT DISTINCT boot FROM minutes);
             DELETE FROM processes WHERE used_day < ({oldest});
             DELETE FROM texts WHERE used_day < ({oldest});"
        );
        self.connection.execute_batch(&sql).map_err(StoreError::sqlite("delete unused names"))?;
        self.forget_dictionary();
        Ok(())
    }

    /// Gives free pages back to the file system.
    fn give_back(&self) -> Result<(), StoreError> {
        run(&self.connection, "PRAGMA incremental_vacuum").map_err(StoreError::sqlite("give pages back"))?;
        self.shorten_log()
    }

    /// Moves what is in the log into the database. The log has a copy of a page for each time it was written: on a disk that is
    /// full it is where room can be made. A reader may be in the way: then it shrinks with one of the next.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]
    pub fn shorten_log(&self) -> Result<(), StoreError> {
        run(&self.connection, "PRAGMA wal_checkpoint(TRUNCATE)").map_err(StoreError::sqlite("shorten the log"))
    }

    fn used_bytes(&self, pages: Pages) -> Result<u64, StoreError> {
        let all: i64 = self.number("PRAGMA page_count")?;
        let free: i64 = match pages {
            Pages::All => 0,
            Pages::InUse => self.number("PRAGMA freelist_count")?,
        };
        let size: i64 = self.number("PRAGMA page_size")?;
        Ok(u64::try_from((all - free).saturating_mul(size)).unwrap_or(0))
    }

    fn number(&self, sql: &str) -> Result<i64, StoreError> {
        self.connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(StoreError::sqlite("read the size of the database"))
    }
}

#[derive(Clone, Copy)]
enum Pages {
    All,
    InUse,
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
