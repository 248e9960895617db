//! The minutes of a period: how much of it was recorded, the host, single minutes, and rows for a table.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::Timestamp;

use super::{
    IN_PERIOD, ReadError, Reader, bounds, cut,
    sums::{count, direction},
};
use crate::{
    history::{
        answer::{Answer, At, ClockJump, Gap, HostSum, MinuteSum, PastHost, Period},
        query::Question,
        rollup::{Figures, Identity},
        schema::OTHERS,
    },
    model::Name,
    report::{Direction, UnattributedReasons},
};

/// Entries of the lists about the recording itself.
const SHOWN: usize = 20;
/// A minute is written when the next one begins: until then nothing is missing.
const PENDING_S: i64 = 130;
/// By how much the clocks may part within a minute before the wall clock counts as set.
const SET_MS: i64 = 5_000;

/// TIME_WAIT of a process in a minute; the process is none for the sum of those that are not kept by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// The minute
    pub at: At,
    /// Whose
    pub process: Option<Identity>,
    /// Its pid
    pub pid: u32,
    /// The figures
    pub figures: Figures,
}

/// TIME_WAIT of a process towards a destination in a minute; none for the sum of what is not kept by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRow {
    /// The minute
    pub at: At,
    /// Whose
    pub process: Option<Identity>,
    /// The other side
    pub remote: Option<String>,
    /// What was served here
    pub local: Option<String>,
    /// Which way
    pub direction: Option<Direction>,
    /// The most timewait sockets
    pub sockets: u64,
}

/// A minute of the host, or of the processes asked for.
pub type MinuteRow = MinuteSum;

impl Reader {
    pub(super) fn period(&self, question: &Question, now: Timestamp) -> Result<Period, ReadError> {
        let sql = format!(
            "SELECT m.start_s, m.wall_ms, m.boottime_ms, m.boot FROM minutes m WHERE {IN_PERIOD} ORDER BY m.id"
        );
        let rows = self.rows(&sql, bounds(question), |row| {
            Ok::<[i64; 4], _>([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?;
        let mut starts: Vec<_> = rows.iter().map(|row| row[0]).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut gaps = gaps(&starts, question, now);
        let gaps_omitted = cut(&mut gaps, SHOWN);
        let mut clock_jumps: Vec<_> = rows.array_windows().filter_map(|[a, b]| clock_jump(*a, *b)).collect();
        cut(&mut clock_jumps, SHOWN);
        let ends = self.rows("SELECT min(start_s), max(start_s) FROM minutes", [], |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
        let (oldest, newest) = ends.first().copied().unwrap_or_default();
        Ok(Period {
            since: At(question.since),
            until: At(question.until),
            recorded: u64::try_from(starts.len()).unwrap_or(u64::MAX),
            gaps,
            gaps_omitted,
            clock_jumps,
            oldest: oldest.map(At::second),
            newest: newest.map(|start| At::second(start + 60)),
        })
    }

    pub(super) fn host(&self, question: &Question, answer: &mut Answer) -> Result<(), ReadError> {
        let sql = format!(
            "SELECT b.host, b.kernel, b.version, min(m.start_s), max(m.start_s)
             FROM minutes m JOIN boots b ON b.id = m.boot WHERE {IN_PERIOD} GROUP BY b.id ORDER BY min(m.id)"
        );
        answer.hosts = self.rows(&sql, bounds(question), |row| {
            Ok(PastHost {
                host: Name::from(row.get::<_, String>(0)?.as_str()),
                kernel: Name::from(row.get::<_, String>(1)?.as_str()),
                version: row.get(2)?,
                first: At::second(row.get(3)?),
                last: At::second(row.get(4)?),
            })
        })?;
        let peak = format!("SELECT max(m.time_wait), m.start_s FROM minutes m WHERE {IN_PERIOD}");
        let peak = self
            .rows(&peak, bounds(question), |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
        let Some(&(Some(peak), Some(peak_at))) = peak.first() else { return Ok(()) };
        let sql = format!(
            "SELECT max(m.unattributed), m.start_s, m.before_session, m.closing_before_session, m.kernel_thread,
                 m.closed_under_observation, m.event_lost, m.not_seen
             FROM minutes m WHERE {IN_PERIOD}"
        );
        let unattributed = self.rows(&sql, bounds(question), |row| {
            let reasons = UnattributedReasons {
                before_session: count(row, 2)?,
                closing_before_session: count(row, 3)?,
                kernel_thread: count(row, 4)?,
                closed_under_observation: count(row, 5)?,
                event_lost: count(row, 6)?,
                not_seen: count(row, 7)?,
            };
            Ok((count(row, 0)?, At::second(row.get(1)?), reasons))
        })?;
        let sql = format!(
            "SELECT max(m.kernel_total), sum(m.entered), sum(m.overflowed), sum(m.events_lost), sum(m.not_followed)
             FROM minutes m WHERE {IN_PERIOD}"
        );
        let sums = self.rows(&sql, bounds(question), |row| {
            Ok([count(row, 0)?, count(row, 1)?, count(row, 2)?, count(row, 3)?, count(row, 4)?])
        })?;
        let (Some(&(unattributed, unattributed_at, unattributed_reasons)), Some(&sums)) =
            (unattributed.first(), sums.first())
        else {
            return Ok(());
        };
        let [kernel_peak, entered, overflowed, events_lost, not_followed] = sums;
        answer.time_wait = Some(HostSum {
            peak: u64::try_from(peak).unwrap_or(0),
            peak_at: At::second(peak_at),
            kernel_peak,
            entered,
            overflowed,
            unattributed,
            unattributed_at,
            unattributed_reasons,
            events_lost,
            not_followed,
        });
        Ok(())
    }

    pub(super) fn by_minute(&self, question: &Question, answer: &mut Answer) -> Result<(), ReadError> {
        let mut minutes = self.minute_rows(question)?;
        minutes.sort_by_key(|it| (Reverse(it.sockets), Reverse(it.entered), it.at));
        answer.minutes_omitted = cut(&mut minutes, question.top);
        minutes.sort_by_key(|it| it.at);
        answer.minutes = minutes;
        Ok(())
    }

    /// Every minute of the period, of the processes asked for or else of the whole host.
    ///
    /// # Errors
    /// [`ReadError::Unusable`]
    pub fn minute_rows(&self, question: &Question) -> Result<Vec<MinuteRow>, ReadError> {
        let sql = format!(
            "SELECT m.start_s, max(m.time_wait), sum(m.entered) FROM minutes m WHERE {IN_PERIOD} GROUP BY m.start_s"
        );
        let is_whole_host = !question.filter.is_about_processes();
        let rows = self.rows(&sql, bounds(question), |row| {
            let (sockets, entered) = if is_whole_host { (count(row, 1)?, count(row, 2)?) } else { (0, 0) };
            let at = At::second(row.get(0)?);
            Ok((at, MinuteSum { at, sockets, entered, largest: None, largest_sockets: 0 }))
        })?;
        let mut minutes: BTreeMap<At, MinuteSum> = rows.into_iter().collect();
        for it in self.process_rows(question)? {
            let (Some(minute), Some(process)) = (minutes.get_mut(&it.at), it.process) else { continue };
            if !is_whole_host {
                minute.sockets += it.figures.sockets;
                minute.entered += it.figures.entered;
            }
            if it.figures.sockets > minute.largest_sockets {
                minute.largest_sockets = it.figures.sockets;
                minute.largest = Some(process);
            }
        }
        Ok(minutes.into_values().collect())
    }

    /// Every minute of every process asked for, in the order of time, the largest first.
    ///
    /// # Errors
    /// [`ReadError::Unusable`]
    pub fn process_rows(&self, question: &Question) -> Result<Vec<ProcessRow>, ReadError> {
        // A minute is there twice if the agent was restarted in it, or the clock was set back.
        let sql = format!(
            "SELECT m.start_s, p.process, p.pid, max(p.sockets), max(p.fin_wait2), sum(p.entered), sum(p.closed_first),
                 sum(p.overflowed)
             FROM minutes m JOIN minute_processes p ON p.minute = m.id
             WHERE {IN_PERIOD} GROUP BY m.start_s, p.process ORDER BY m.start_s, max(p.sockets) DESC, p.process"
        );
        let rows = self.rows(&sql, bounds(question), |row| {
            let figures = Figures {
                sockets: count(row, 3)?,
                fin_wait2: count(row, 4)?,
                entered: count(row, 5)?,
                closed_first: count(row, 6)?,
                overflowed: count(row, 7)?,
            };
            let id: i64 = row.get(1)?;
            Ok((
                id,
                ProcessRow {
                    at: At::second(row.get(0)?),
                    process: self.process(id).cloned(),
                    pid: row.get(2)?,
                    figures,
                },
            ))
        })?;
        let is_asked_for = |(id, row): &(i64, ProcessRow)| {
            let is_sum = *id == OTHERS && !question.filter.is_about_processes();
            is_sum || row.process.is_some() && question.filter.matches_process(row.process.as_ref())
        };
        Ok(rows.into_iter().filter(is_asked_for).map(|(_, row)| row).collect())
    }

    /// Every minute of every process and destination asked for, in the order of time, the largest first.
    ///
    /// # Errors
    /// [`ReadError::Unusable`]
    pub fn destination_rows(&self, question: &Question) -> Result<Vec<DestinationRow>, ReadError> {
        let sql = format!(
            "SELECT m.start_s, d.process, d.remote, d.local, d.direction, max(d.sockets)
             FROM minutes m JOIN minute_destinations d ON d.minute = m.id
             WHERE {IN_PERIOD} GROUP BY m.start_s, d.process, d.remote, d.local, d.direction
             ORDER BY m.start_s, max(d.sockets) DESC, d.process, d.remote"
        );
        let rows = self.rows(&sql, bounds(question), |row| {
            let (process, remote, local): (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(DestinationRow {
                at: At::second(row.get(0)?),
                process: self.process(process).cloned(),
                remote: self.text(remote).map(str::to_owned),
                local: self.text(local).map(str::to_owned),
                direction: direction(row.get(4)?),
                sockets: count(row, 5)?,
            })
        })?;
        let filter = &question.filter;
        let is_asked_for = |row: &DestinationRow| {
            filter.matches_process(row.process.as_ref())
                && filter.matches_address(row.remote.as_deref(), row.local.as_deref())
        };
        Ok(rows.into_iter().filter(is_asked_for).collect())
    }
}

/// Parts of the period without a minute. `starts` are in order, without doubles.
fn gaps(starts: &[i64], question: &Question, now: Timestamp) -> Vec<Gap> {
    let [since, until] = bounds(question);
    let mut gaps = Vec::new();
    let mut recorded_until = since;
    for &start in starts {
        if start > recorded_until {
            gaps.push((recorded_until, start));
        }
        recorded_until = start + 60;
    }
    let until = until.min(now.as_second());
    let is_pending = now.as_second() - recorded_until <= PENDING_S;
    if until > recorded_until && !is_pending {
        gaps.push((recorded_until, until));
    }
    gaps.into_iter().map(|(since, until)| Gap { since: At::second(since), until: At::second(until) }).collect()
}

/// Of two minutes written one after the other: start, wall clock and boot clock at the end, boot.
fn clock_jump(
    [_, wall, boottime, boot]: [i64; 4],
    [_, next_wall, next_boottime, next_boot]: [i64; 4],
) -> Option<ClockJump> {
    let jump = (next_wall - wall) - (next_boottime - boottime);
    let is_set = boot == next_boot && jump.abs() > SET_MS;
    is_set.then(|| ClockJump { to: At::millisecond(next_wall), seconds: jump / 1_000 })
}
