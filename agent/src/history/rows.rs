//! Rows of a minute, and the dictionaries behind them.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{
    rollup::{Episode, Identity, Minute, Place, Who},
    schema::{NO_TEXT, OTHERS, UNKNOWN},
    store::Boot,
};
use crate::{model::Netns, report::Direction};

/// Numbers of what was written lately, and the day that stands at them.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    processes: HashMap<Identity, (i64, i64)>,
    texts: HashMap<String, (i64, i64)>,
}

/// Entries of a dictionary in memory; it begins anew when it is full.
const REMEMBERED: usize = 1 << 14;

/// SQLite's integers have a sign; a count that does not fit is as large as can be.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Which way, as a number: dictionaries are for what has more than three values.
const fn direction(direction: Option<Direction>) -> i64 {
    match direction {
        None => 0,
        Some(Direction::Outbound) => 1,
        Some(Direction::Inbound) => 2,
    }
}

/// Writes a minute within a transaction.
pub(super) struct Writer<'store> {
    pub(super) transaction: &'store Transaction<'store>,
    pub(super) dictionary: &'store mut Dictionary,
    /// Days since 1970
    pub(super) day: i64,
    pub(super) rows: u64,
}

impl Writer<'_> {
    fn execute(&mut self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.transaction.prepare_cached(sql)?.execute(values)?;
        self.rows += 1;
        Ok(())
    }

    pub(super) fn minute(&mut self, it: &Minute, boot: &Boot) -> rusqlite::Result<i64> {
        let boot = self.boot(boot)?;
        let (host, reasons) = (&it.host, &it.host.unattributed_reasons);
        self.execute(
            "INSERT INTO minutes (boot, start_s, wall_ms, boottime_ms, windows, observed_ms, time_wait, fin_wait2,
                 kernel_total, unattributed, before_session, closing_before_session, kernel_thread,
                 closed_under_observation, event_lost, not_seen, processes_omitted, entered, overflowed, events_received,
                 events_lost, not_followed, routes_omitted, findings_omitted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
                 ?23, ?24)",
            params![
                boot,
                it.start,
                it.wall_ms,
                it.boottime_ms,
                it.windows,
                it.observed_ms,
                int(host.time_wait),
                int(host.fin_wait2),
                int(host.kernel_total),
                int(host.unattributed),
                int(reasons.before_session),
                int(reasons.closing_before_session),
                int(reasons.kernel_thread),
                int(reasons.closed_under_observation),
                int(reasons.event_lost),
                int(reasons.not_seen),
                int(host.processes_omitted),
                int(host.entered),
                int(host.overflowed),
                int(host.events_received),
                int(host.events_lost),
                int(host.not_followed),
                int(it.routes_omitted),
                int(it.findings_omitted),
            ],
        )?;
        Ok(self.transaction.last_insert_rowid())
    }

    pub(super) fn rows_of(&mut self, minute: &Minute, id: i64) -> rusqlite::Result<()> {
        for it in &minute.processes {
            let (process, figures) = (self.who(&it.who)?, &it.figures);
            self.execute(
                "INSERT INTO minute_processes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    id,
                    process,
                    it.pid,
                    int(it.processes),
                    int(figures.sockets),
                    int(figures.fin_wait2),
                    int(figures.entered),
                    int(figures.closed_first),
                    int(figures.overflowed),
                ],
            )?;
        }
        for it in &minute.destinations {
            let process = self.who(&it.who)?;
            let (remote, local, which) = self.place(it.place.as_ref())?;
            self.execute(
                "INSERT INTO minute_destinations VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![id, process, remote, local, which, int(it.sockets)],
            )?;
        }
        for it in &minute.routes {
            let (local, remote) = (self.text(&it.local)?, self.text(&it.remote)?);
            self.execute(
                "INSERT INTO minute_routes VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![id, it.netns.0, local, remote, int(it.used), int(it.usable)],
            )?;
        }
        for it in &minute.failures {
            let kind = serde_json::to_string(&it.kind).map_err(unwritable)?;
            let (process, kind) = (self.who(&it.who)?, self.text(&kind)?);
            let address = self.optional_text(it.address.as_deref())?;
            self.execute(
                "INSERT INTO minute_failures VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![id, process, kind, address, it.netns.0, it.errno, it.pid, int(it.count)],
            )?;
        }
        Ok(())
    }

    pub(super) fn episode(&mut self, it: &Episode) -> rusqlite::Result<()> {
        // It may have been seen last on another day than the minute's, if a window spans midnight or the clock was set.
        let day = self.day;
        self.day = day.max(it.last_seen.as_second().div_euclid(86_400));
        let written = self.episode_of_day(it);
        self.day = day;
        written
    }

    fn episode_of_day(&mut self, it: &Episode) -> rusqlite::Result<()> {
        let finding = &it.worst.finding;
        let process = it.key.who.as_ref().map_or(Ok(UNKNOWN), |who| self.process(who))?;
        let kind = self.text(&it.key.id)?;
        let (local, remote) =
            (self.optional_text(it.key.local.as_deref())?, self.optional_text(it.key.remote.as_deref())?);
        let body = serde_json::to_string(finding).map_err(unwritable)?;
        self.execute(
            "INSERT INTO findings (kind, process, netns, local, remote, opened_ms, last_seen_ms, closed_ms, windows,
                 worst_ms, weight, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (kind, process, netns, local, remote, opened_ms) DO UPDATE SET
                 last_seen_ms = excluded.last_seen_ms, closed_ms = excluded.closed_ms, windows = excluded.windows,
                 worst_ms = excluded.worst_ms, weight = excluded.weight, body = excluded.body",
            params![
                kind,
                process,
                it.key.netns.map_or(0, |Netns(netns)| netns),
                local,
                remote,
                it.opened.as_millisecond(),
                it.last_seen.as_millisecond(),
                it.closed.map(Timestamp::as_millisecond),
                int(it.windows),
                it.worst.at.as_millisecond(),
                int(it.worst.weight),
                body,
            ],
        )
    }

    fn who(&mut self, who: &Who) -> rusqlite::Result<i64> {
        match who {
            Who::Known(identity) => self.process(identity),
            Who::Unknown => Ok(UNKNOWN),
            Who::Others => Ok(OTHERS),
        }
    }

    fn place(&mut self, place: Option<&Place>) -> rusqlite::Result<(i64, i64, i64)> {
        let Some(place) = place else { return Ok((NO_TEXT, NO_TEXT, direction(None))) };
        Ok((self.text(&place.remote)?, self.optional_text(place.local.as_deref())?, direction(place.direction)))
    }

    fn optional_text(&mut self, text: Option<&str>) -> rusqlite::Result<i64> {
        text.map_or(Ok(NO_TEXT), |text| self.text(text))
    }

    fn boot(&self, boot: &Boot) -> rusqlite::Result<i64> {
        let values = params![boot.boot_id, boot.host.as_str(), boot.kernel.as_str(), boot.version];
        self.transaction
            .prepare_cached("INSERT OR IGNORE INTO boots (boot_id, host, kernel, version) VALUES (?1, ?2, ?3, ?4)")?
            .execute(values)?;
        self.transaction
            .prepare_cached("SELECT id FROM boots WHERE boot_id = ?1 AND host = ?2 AND kernel = ?3 AND version = ?4")?
            .query_row(values, |row| row.get(0))
    }

    fn process(&mut self, identity: &Identity) -> rusqlite::Result<i64> {
        if let Some(&(id, day)) = self.dictionary.processes.get(identity)
            && day >= self.day
        {
            return Ok(id);
        }
        let text = serde_json::to_string(identity).map_err(unwritable)?;
        let entry = entry(
            self.transaction,
            "SELECT id, used_day FROM processes WHERE identity = ?1",
            "INSERT INTO processes (identity, used_day) VALUES (?1, ?2)",
            "UPDATE processes SET used_day = ?2 WHERE id = ?1",
            &text,
            self.day,
        )?;
        self.dictionary.processes.insert(identity.clone(), entry);
        Ok(entry.0)
    }

    fn text(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(&(id, day)) = self.dictionary.texts.get(text)
            && day >= self.day
        {
            return Ok(id);
        }
        let entry = entry(
            self.transaction,
            "SELECT id, used_day FROM texts WHERE text = ?1",
            "INSERT INTO texts (text, used_day) VALUES (?1, ?2)",
            "UPDATE texts SET used_day = ?2 WHERE id = ?1",
            text,
            self.day,
        )?;
        self.dictionary.texts.insert(text.to_owned(), entry);
        Ok(entry.0)
    }
}

/// The number of an entry and the day that stands at it, which is never set back.
fn entry(
    transaction: &Transaction<'_>,
    select: &str,
    insert: &str,
    update: &str,
    text: &str,
    day: i64,
) -> rusqlite::Result<(i64, i64)> {
    let found: Option<(i64, i64)> =
        transaction.prepare_cached(select)?.query_row([text], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match found {
        Some((id, used)) if used >= day => Ok((id, used)),
        Some((id, _)) => {
            transaction.prepare_cached(update)?.execute(params![id, day])?;
            Ok((id, day))
        }
        None => {
            transaction.prepare_cached(insert)?.execute(params![text, day])?;
            Ok((transaction.last_insert_rowid(), day))
        }
    }
}

fn unwritable(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

impl Dictionary {
    pub(super) fn make_room(&mut self) {
        if self.processes.len() > REMEMBERED {
            self.processes.clear();
        }
        if self.texts.len() > REMEMBERED {
            self.texts.clear();
        }
    }
}
