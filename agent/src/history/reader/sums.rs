//! Processes, destinations and routes over a period.
//!
//! SQLite gives the other columns of a row with `max()` in it from the row that has the maximum, which is how the minute of a
//! peak is found without a second query.

use std::cmp::Reverse;

use rusqlite::Row;

use super::{IN_PERIOD, ReadError, Reader, bounds, cut};
use crate::{
    history::{
        answer::{Answer, At, DestinationSum, OtherSum, ProcessSum, RouteSum},
        query::Question,
        schema::OTHERS,
    },
    model::Netns,
    report::Direction,
};

/// A count; one below zero is none that we wrote.
pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// Which way, as the store has it.
pub(super) const fn direction(number: i64) -> Option<Direction> {
    match number {
        1 => Some(Direction::Outbound),
        2 => Some(Direction::Inbound),
        _ => None,
    }
}

impl Reader {
    pub(super) fn processes(&self, question: &Question, answer: &mut Answer) -> Result<(), ReadError> {
        let sql = format!(
            "SELECT p.process, max(p.sockets), m.start_s, p.pid, whole.processes, whole.fin_wait2, whole.entered,
                 whole.closed_first, whole.overflowed, whole.minutes
             FROM minutes m JOIN minute_processes p ON p.minute = m.id JOIN (
                 SELECT q.process, max(q.processes) AS processes, max(q.fin_wait2) AS fin_wait2,
                     sum(q.entered) AS entered, sum(q.closed_first) AS closed_first, sum(q.overflowed) AS overflowed,
                     count(DISTINCT m.start_s) AS minutes
                 FROM minutes m JOIN minute_processes q ON q.minute = m.id WHERE {IN_PERIOD} GROUP BY q.process
             ) AS whole ON whole.process = p.process
             WHERE {IN_PERIOD} GROUP BY p.process"
        );
        let rows = self.rows(&sql, bounds(question), |row| {
            let id: i64 = row.get(0)?;
            Ok((
                id,
                ProcessSum {
                    process: self.process(id).cloned().unwrap_or_default(),
                    peak: count(row, 1)?,
                    peak_at: At::second(row.get(2)?),
                    pid: row.get(3)?,
                    processes: count(row, 4)?,
                    fin_wait2: count(row, 5)?,
                    entered: count(row, 6)?,
                    closed_first: count(row, 7)?,
                    overflowed: count(row, 8)?,
                    minutes: count(row, 9)?,
                },
            ))
        })?;
        for (id, sum) in rows {
            if id == OTHERS {
                answer.other_processes =
                    Some(OtherSum { peak: sum.peak, entered: sum.entered, overflowed: sum.overflowed });
            } else if question.filter.matches_process(Some(&sum.process)) {
                answer.processes.push(sum);
            }
        }
        answer.processes.sort_by(|a, b| {
            let rank = |it: &ProcessSum| (Reverse(it.peak), Reverse(it.entered), Reverse(it.overflowed));
            rank(a).cmp(&rank(b)).then_with(|| a.process.comm.cmp(&b.process.comm))
        });
        answer.processes_omitted = cut(&mut answer.processes, question.top);
        Ok(())
    }

    pub(super) fn destinations(&self, question: &Question, answer: &mut Answer) -> Result<(), ReadError> {
        let sql = format!(
            "SELECT d.process, d.remote, d.local, d.direction, max(d.sockets), m.start_s, count(DISTINCT m.start_s)
             FROM minutes m JOIN minute_destinations d ON d.minute = m.id
             WHERE {IN_PERIOD} GROUP BY d.process, d.remote, d.local, d.direction"
        );
        let rows = self.rows(&sql, bounds(question), |row| {
            let ids: [i64; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            Ok((ids, count(row, 4)?, At::second(row.get(5)?), count(row, 6)?))
        })?;
        for ([process, remote, local, which], peak, peak_at, minutes) in rows {
            if process == OTHERS {
                answer.other_destinations = answer.other_destinations.max(peak);
                continue;
            }
            let (Some(process), Some(remote)) = (self.process(process), self.text(remote)) else { continue };
            let local = self.text(local);
            let is_asked_for =
                question.filter.matches_process(Some(process)) && question.filter.matches_address(Some(remote), local);
            if is_asked_for {
                answer.destinations.push(DestinationSum {
                    process: process.clone(),
                    remote: remote.to_owned(),
                    local: local.map(str::to_owned),
                    direction: direction(which),
                    peak,
                    peak_at,
                    minutes,
                });
            }
        }
        answer.destinations.sort_by(|a, b| {
            (Reverse(a.peak), &a.remote, &a.process.comm).cmp(&(Reverse(b.peak), &b.remote, &b.process.comm))
        });
        answer.destinations_omitted = cut(&mut answer.destinations, question.top);
        Ok(())
    }

    /// Not asked for by process: a route has many.
    pub(super) fn routes(&self, question: &Question, answer: &mut Answer) -> Result<(), ReadError> {
        if question.filter.is_about_processes() {
            return Ok(());
        }
        let sql = format!(
            "SELECT r.netns, r.local, r.remote, max(r.used), r.usable, m.start_s
             FROM minutes m JOIN minute_routes r ON r.minute = m.id
             WHERE {IN_PERIOD} GROUP BY r.netns, r.local, r.remote"
        );
        let rows = self.rows(&sql, bounds(question), |row| {
            let (local, remote): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(RouteSum {
                netns: Netns(row.get(0)?),
                local: self.text(local).unwrap_or_default().to_owned(),
                remote: self.text(remote).unwrap_or_default().to_owned(),
                peak: count(row, 3)?,
                usable: count(row, 4)?,
                peak_at: At::second(row.get(5)?),
            })
        })?;
        answer.routes = rows;
        answer.routes.retain(|it| question.filter.matches_address(Some(&it.remote), None));
        answer.routes.sort_by(|a, b| {
            let (share, other) = (a.peak.saturating_mul(b.usable), b.peak.saturating_mul(a.usable));
            other.cmp(&share).then_with(|| (&a.remote, &a.local, a.netns).cmp(&(&b.remote, &b.local, b.netns)))
        });
        answer.routes_omitted = cut(&mut answer.routes, question.top);
        Ok(())
    }
}
