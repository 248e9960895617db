//! What failed in a period, and what was found.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};

use super::{IN_PERIOD, ReadError, Reader, bounds, cut, sums::count};
use crate::{
    history::{
        answer::{Answer, At, EpisodeState, FailureSum, PastFinding},
        query::Question,
        schema::OTHERS,
    },
    model::Netns,
    report::Finding,
};

/// A finding is written at the end of its minute, and a minute when the next one begins.
const STILL_OPEN: SignedDuration = SignedDuration::from_secs(180);

impl Reader {
    pub(super) fn failures(&self, question: &Question, answer: &mut Answer) -> Result<(), ReadError> {
        let sql = format!(
            "SELECT f.process, f.kind, f.address, f.netns, f.errno, max(f.pid), sum(f.count), min(m.start_s),
                 max(m.start_s)
             FROM minutes m JOIN minute_failures f ON f.minute = m.id
             WHERE {IN_PERIOD} GROUP BY f.process, f.kind, f.address, f.netns, f.errno"
        );
        let rows = self.rows(&sql, bounds(question), |row| {
            let ids: [i64; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            let numbers: [u32; 3] = [row.get(3)?, row.get(4)?, row.get(5)?];
            Ok((ids, numbers, count(row, 6)?, At::second(row.get(7)?), At::second(row.get(8)?)))
        })?;
        for ([process, kind, address], [netns, errno, pid], count, first, last) in rows {
            if process == OTHERS {
                answer.other_failures += count;
                continue;
            }
            let (process, address) = (self.process(process), self.text(address));
            if !question.filter.matches_process(process) || !question.filter.matches_address(address, None) {
                continue;
            }
            let kind = self.text(kind).unwrap_or_default();
            answer.failures.push(FailureSum {
                process: process.cloned(),
                pid,
                kind: serde_json::from_str(kind).map_err(|error| self.unusable(&error))?,
                address: address.map(str::to_owned),
                netns: Netns(netns),
                errno,
                count,
                first,
                last,
            });
        }
        answer.failures.sort_by(|a, b| {
            (Reverse(a.count), a.first, a.kind, &a.address).cmp(&(Reverse(b.count), b.first, b.kind, &b.address))
        });
        answer.failures_omitted = cut(&mut answer.failures, question.top);
        Ok(())
    }

    pub(super) fn findings(&self, question: &Question, now: Timestamp, answer: &mut Answer) -> Result<(), ReadError> {
        let sql = "SELECT opened_ms, last_seen_ms, closed_ms, windows, worst_ms, body FROM findings
                   WHERE last_seen_ms >= ?1 AND opened_ms < ?2 ORDER BY opened_ms, id";
        let period = [question.since.as_millisecond(), question.until.as_millisecond()];
        let rows = self.rows(sql, period, |row| {
            let times: [i64; 3] = [row.get(0)?, row.get(1)?, row.get(4)?];
            Ok((times, row.get::<_, Option<i64>>(2)?, count(row, 3)?, row.get::<_, String>(5)?))
        })?;
        for ([opened, last_seen, worst], closed, windows, body) in rows {
            let finding: Finding = serde_json::from_str(&body).map_err(|error| self.unusable(&error))?;
            if !question.filter.matches_finding(&finding) {
                continue;
            }
            let last_seen = At::millisecond(last_seen);
            let state = match closed {
                Some(_) => EpisodeState::Over,
                None if now.duration_since(last_seen.0).abs() <= STILL_OPEN => EpisodeState::Open,
                None => EpisodeState::CutOff,
            };
            answer.findings.push(PastFinding {
                opened: At::millisecond(opened),
                last_seen,
                state,
                windows,
                worst_at: At::millisecond(worst),
                finding,
            });
        }
        // Stable: in the order of time within a severity.
        answer.findings.sort_by_key(|it| Reverse(it.finding.severity));
        answer.findings_omitted = cut(&mut answer.findings, question.top);
        Ok(())
    }
}
