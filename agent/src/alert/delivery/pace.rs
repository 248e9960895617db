//! How long a receiver is left alone after it failed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};

use super::Target;

/// Where trying again soon is useless, it is this many times the longest wait.
const SLOWER: u32 = 5;
/// Nobody may ask to be left alone for longer.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The failures in a row of one receiver.
#[derive(Default)]
pub(super) struct Pace {
    target: Option<Arc<Target>>,
    waits: Option<<ExponentialBuilder as BackoffBuilder>::Backoff>,
    /// Not before
    until: Option<Instant>,
    failed: Option<Failed>,
    failed_since_last_call: bool,
}

struct Failed {
    attempts: u32,
    since: Instant,
}

impl Pace {
    /// Takes in how the receiver is reached now. Somebody changed that: the failures of before say nothing any more.
    pub(super) fn heed(&mut self, target: &Arc<Target>) {
        if !self.target.as_ref().is_some_and(|known| Arc::ptr_eq(known, target)) {
            *self = Self { target: Some(Arc::clone(target)), ..Self::default() };
        }
    }

    /// How long to wait before the next attempt.
    pub(super) fn wait(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(super) const fn is_retrying(&self) -> bool {
        self.failed.is_some()
    }

    pub(super) const fn has_failed_since_last_call(&self) -> bool {
        self.failed_since_last_call
    }

    /// It answered. If it had failed before: how often, and for how long.
    pub(super) fn succeed(&mut self) -> Option<(u32, Duration)> {
        self.waits = None;
        self.until = None;
        self.failed.take().map(|failed| (failed.attempts, failed.since.elapsed()))
    }

    /// It failed; whether that is news. `asked`: how long it wants to be left alone.
    pub(super) fn fail(&mut self, target: &Target, asked: Option<Duration>, is_slow: bool, last_call: bool) -> bool {
        let waits = self.waits.get_or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(target.retry_min)
                .with_max_delay(target.retry_max.max(target.retry_min))
                .with_jitter()
                .without_max_times()
                .build()
        });
        let wait = waits.next().unwrap_or(target.retry_max);
        let wait = if is_slow { wait.max(target.retry_max * SLOWER) } else { wait };
        let wait = wait.max(asked.unwrap_or_default().min(LONGEST_ASKED));
        self.until = Instant::now().checked_add(wait);
        self.failed_since_last_call = last_call;
        let failed = self.failed.get_or_insert_with(|| Failed { attempts: 0, since: Instant::now() });
        failed.attempts += 1;
        failed.attempts == 1
    }
}
