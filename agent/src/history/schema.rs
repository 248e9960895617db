//! Tables of the database, and how an older one becomes a newer one.

use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA application_id`, `FFhi`: what tells our database from another one.
pub(super) const APPLICATION_ID: i32 = 0x4646_6869;

/// In the column `process`: the sum of those that found no room.
pub(super) const OTHERS: i64 = 0;
/// In the column `process`: not known.
pub(super) const UNKNOWN: i64 = -1;
/// In columns that name a text: none.
pub(super) const NO_TEXT: i64 = 0;

/// Step by step, from an empty database on. `PRAGMA user_version` says how many were taken. A step is never changed once it has
/// been released.
///
/// `processes` and `texts` are dictionaries: what is written each minute are small numbers, which is why a day takes a few
/// megabytes. `used_day` (days since 1970) is the last day that an entry was written for: what is older than the oldest minute
/// can go, without a search through all rows.
pub(super) const MIGRATIONS: &[&str] = &["
CREATE TABLE boots (
    id INTEGER PRIMARY KEY, boot_id TEXT NOT NULL, host TEXT NOT NULL, kernel TEXT NOT NULL, version TEXT NOT NULL,
    UNIQUE (boot_id, host, kernel, version)
);
CREATE TABLE processes (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, used_day INTEGER NOT NULL);
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, used_day INTEGER NOT NULL);
CREATE TABLE minutes (
    id INTEGER PRIMARY KEY, boot INTEGER NOT NULL, start_s INTEGER NOT NULL, wall_ms INTEGER NOT NULL,
    boottime_ms INTEGER NOT NULL, windows INTEGER NOT NULL, observed_ms INTEGER NOT NULL,
    time_wait INTEGER NOT NULL, fin_wait2 INTEGER NOT NULL, kernel_total INTEGER NOT NULL,
    unattributed INTEGER NOT NULL, before_session INTEGER NOT NULL, closing_before_session INTEGER NOT NULL,
    kernel_thread INTEGER NOT NULL, closed_under_observation INTEGER NOT NULL, event_lost INTEGER NOT NULL,
    not_seen INTEGER NOT NULL, processes_omitted INTEGER NOT NULL, entered INTEGER NOT NULL, overflowed INTEGER NOT NULL,
    events_received INTEGER NOT NULL, events_lost INTEGER NOT NULL, not_followed INTEGER NOT NULL,
    routes_omitted INTEGER NOT NULL, findings_omitted INTEGER NOT NULL
);
CREATE INDEX minutes_by_time ON minutes (start_s);
CREATE TABLE minute_processes (
    minute INTEGER, process INTEGER, pid INTEGER NOT NULL, processes INTEGER NOT NULL, sockets INTEGER NOT NULL,
    fin_wait2 INTEGER NOT NULL, entered INTEGER NOT NULL, closed_first INTEGER NOT NULL, overflowed INTEGER NOT NULL,
    PRIMARY KEY (minute, process)
) WITHOUT ROWID;
CREATE TABLE minute_destinations (
    minute INTEGER, process INTEGER, remote INTEGER, local INTEGER, direction INTEGER, sockets INTEGER NOT NULL,
    PRIMARY KEY (minute, process, remote, local, direction)
) WITHOUT ROWID;
CREATE TABLE minute_routes (
    minute INTEGER, netns INTEGER, local INTEGER, remote INTEGER, used INTEGER NOT NULL, usable INTEGER NOT NULL,
    PRIMARY KEY (minute, netns, local, remote)
) WITHOUT ROWID;
CREATE TABLE minute_failures (
    minute INTEGER, process INTEGER, kind INTEGER, address INTEGER, netns INTEGER, errno INTEGER,
    pid INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (minute, process, kind, address, netns, errno)
) WITHOUT ROWID;
CREATE TABLE findings (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, process INTEGER NOT NULL, netns INTEGER NOT NULL,
    local INTEGER NOT NULL, remote INTEGER NOT NULL, opened_ms INTEGER NOT NULL, last_seen_ms INTEGER NOT NULL,
    closed_ms INTEGER, windows INTEGER NOT NULL, worst_ms INTEGER NOT NULL, weight INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (kind, process, netns, local, remote, opened_ms)
);
CREATE INDEX findings_by_time ON findings (last_seen_ms);
"];

/// Which version this program writes.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// How many steps a database has taken.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Takes the steps that are missing, each in a transaction: one that fails leaves the database as it was before it.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let taken = usize::try_from(version(connection)?).unwrap_or(0);
    for (number, step) in (1_i64..).zip(steps).skip(taken) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction
            .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number};"))?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(connection: &Connection, table: &str) -> rusqlite::Result<i64> {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
    }

    #[test]
    fn steps_are_taken_once_each_and_a_failing_one_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        let first = "CREATE TABLE one (x); INSERT INTO one VALUES (1);";
        migrate(&mut connection, &[first]).unwrap();
        migrate(&mut connection, &[first, "ALTER TABLE one ADD COLUMN y; INSERT INTO one VALUES (2, 3);"]).unwrap();
        assert_eq!((version(&connection).unwrap(), count(&connection, "one").unwrap()), (2, 2));
        let failing = "CREATE TABLE three (x); INSERT INTO nowhere VALUES (1);";
        migrate(&mut connection, &[first, "", failing]).unwrap_err();
        assert_eq!((version(&connection).unwrap(), count(&connection, "one").unwrap()), (2, 2));
        count(&connection, "three").unwrap_err();
    }

    #[test]
    fn a_new_database_is_marked_as_ours() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).unwrap();
        assert_eq!((id, version(&connection).unwrap()), (APPLICATION_ID, newest()));
        assert_eq!(count(&connection, "minute_failures").unwrap(), 0);
    }
}
