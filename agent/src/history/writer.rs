//! From the queue to the database: what is done in the history's own thread, one step at a time.
//!
//! Whatever fails, a minute stays in the queue until it is written or the queue is full. What went wrong is said once, and
//! once more when it is over; in between it is counted.

use jiff::Timestamp;

use super::{
    Config,
    open::StoreError,
    retention::SteadyClock,
    rollup::{Episode, Minute},
    store::{Boot, Store},
};

/// Once an hour, in milliseconds: a day more or less of an hour is no matter.
const AGE_EVERY_MS: i64 = 3_600_000;

#[derive(Debug, Default)]
pub(super) struct Writer {
    store: Option<Store>,
    /// What is wrong, in words, while it is
    error: Option<String>,
    clock: SteadyClock,
    /// `CLOCK_BOOTTIME` at which old minutes were deleted last, milliseconds
    aged_at: Option<i64>,
    pub(super) counts: Counts,
}

/// What the writer has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) minutes: u64,
    pub(super) rows: u64,
    pub(super) failures: u64,
    pub(super) set_aside: u64,
    pub(super) deleted: u64,
    pub(super) bytes: u64,
}

impl Writer {
    /// Has the database open, or says why not. Findings that were open in it are given to `resume`, when it was opened now.
    pub(super) fn open(&mut self, config: &Config, now: Timestamp, resume: impl FnOnce(Vec<Episode>)) -> bool {
        if self.store.as_ref().is_some_and(Store::has_moved) {
            log::warn!("history: {} was moved or deleted; going on with a new one", config.path.display());
            self.store = None;
        }
        if self.store.is_some() {
            return true;
        }
        let opened = Store::open_or_replace(&config.path, now).and_then(|(store, damaged)| {
            if let Some((damage, aside)) = damaged {
                self.counts.set_aside += 1;
                log::error!("history: {damage}; it is now {}, and a new one was begun", aside.display());
            }
            Ok((store.open_episodes()?, store))
        });
        match opened {
            Ok((open, store)) => {
                self.counts.bytes = store.bytes();
                self.store = Some(store);
                resume(open);
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// Lets the database go, because another one is wanted or none.
    pub(super) fn close(&mut self) {
        self.store = None;
        self.error = None;
    }

    /// Writes a minute and tidies up. False: it could not be written, and has to be kept.
    pub(super) fn write(&mut self, minute: &Minute, boot: &Boot, config: &Config) -> bool {
        let Some(store) = &mut self.store else { return false };
        match store.write(minute, boot) {
            Ok(rows) => {
                self.counts.rows += rows;
                self.counts.minutes += 1;
            }
            Err(error) => {
                if error.is_damage() {
                    // Opening looks it through, and puts it aside if that is so.
                    self.store = None;
                } else {
                    // For the next attempt. If that fails too, nothing is worse than it was.
                    let _ = store.shorten_log();
                }
                self.failed(&error);
                return false;
            }
        }
        self.tidy_up(minute, config);
        true
    }

    fn tidy_up(&mut self, minute: &Minute, config: &Config) {
        let Some(store) = &mut self.store else { return };
        let is_steady = self.clock.is_steady(minute.wall_ms, minute.boottime_ms);
        let is_due = self.aged_at.is_none_or(|at| (minute.boottime_ms - at).abs() >= AGE_EVERY_MS);
        let mut tidy = || -> Result<(), StoreError> {
            if is_steady
                && is_due
                && let Ok(now) = Timestamp::from_millisecond(minute.wall_ms)
            {
                self.counts.deleted += store.keep_age(now, config.max_age)?;
                self.aged_at = Some(minute.boottime_ms);
            }
            self.counts.deleted += store.keep_size(config.max_size.as_u64())?;
            Ok(())
        };
        let tidied = tidy();
        self.counts.bytes = store.bytes();
        match tidied {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(&error),
        }
    }

    /// A disk that is full after so many pages; none: as large as it was.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: Option<u32>) {
        let store = self.store.as_ref().expect("an open database");
        super::open::run(&store.connection, &format!("PRAGMA max_page_count = {}", pages.unwrap_or(1 << 30))).unwrap();
    }

    /// What is wrong now.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn failed(&mut self, error: &StoreError) {
        self.counts.failures += 1;
        let text = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        if self.error.as_ref() != Some(&text) {
            log::error!("history: {text}; it is tried again each minute");
            self.error = Some(text);
        }
    }

    fn succeeded(&mut self) {
        if self.error.take().is_some() {
            log::warn!("history: written again");
        }
    }
}
