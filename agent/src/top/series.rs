//! The last minutes of a number, and how fast it grows.

use std::{collections::VecDeque, time::Duration};

use crate::model::Timestamp;

/// Time between two samples of a level: a column of a sparkline.
pub(super) const SAMPLE: Duration = Duration::from_secs(2);
/// Samples kept: seven minutes.
const SAMPLES: usize = 210;
/// How long a rate is taken over.
const RATE_OVER: Duration = Duration::from_secs(2);
/// Readings kept of a counter, however short the time between them is.
const READINGS: usize = 64;

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    samples: VecDeque<u64>,
    /// Which sample is being taken: the number of its interval since boot
    current: Option<u128>,
}

impl Level {
    /// Notes what it is at `at`. Of several within the time of a sample, the highest counts.
    pub(super) fn note(&mut self, at: Timestamp, value: u64) {
        let interval = u128::from(at.0) / SAMPLE.as_nanos();
        let passed = self.current.map_or(1, |current| interval.saturating_sub(current));
        self.current = Some(self.current.map_or(interval, |current| current.max(interval)));
        if passed == 0 {
            if let Some(last) = self.samples.back_mut() {
                *last = value.max(*last);
            }
            return;
        }
        let before = self.samples.back().copied().unwrap_or(value);
        // Nothing was noted meanwhile: it stayed as it was, as far as is known.
        let unseen = usize::try_from(passed - 1).unwrap_or(SAMPLES).min(SAMPLES);
        self.samples.extend(std::iter::repeat_n(before, unseen).chain([value]));
        let surplus = self.samples.len().saturating_sub(SAMPLES);
        self.samples.drain(..surplus);
    }

    /// The last `count` samples, oldest first; fewer where there were fewer.
    pub(super) fn last(&self, count: usize) -> Vec<u64> {
        self.samples.iter().skip(self.samples.len().saturating_sub(count)).copied().collect()
    }
}

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Growth {
    readings: VecDeque<(Timestamp, u64)>,
}

impl Growth {
    /// Notes what it is at `at`.
    pub(super) fn note(&mut self, at: Timestamp, value: u64) {
        self.readings.push_back((at, value));
        let is_old = |&(then, _): &(Timestamp, u64)| at.since(then) >= RATE_OVER;
        while self.readings.get(1).is_some_and(is_old) || self.readings.len() > READINGS {
            self.readings.pop_front();
        }
    }

    /// How much it grows per second, over the last two; none before there were two readings.
    pub(super) fn per_second(&self) -> Option<f64> {
        let (&(from, before), &(to, now)) = self.readings.front().zip(self.readings.back())?;
        let seconds = to.since(from).as_secs_f64();
        (seconds > 0.0).then(|| now.saturating_sub(before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(milliseconds * 1_000_000)
    }

    #[test]
    fn a_level_has_a_sample_every_two_seconds_and_the_highest_counts() {
        let mut level = Level::default();
        for (when, value) in [(0, 1), (500, 7), (1_500, 3), (2_000, 4), (8_100, 9)] {
            level.note(at(when), value);
        }
        assert_eq!(level.last(10), [7, 4, 4, 4, 9]);
        assert_eq!(level.last(2), [4, 9]);
        level.note(at(1_000_000_000), 5);
        assert_eq!(level.last(1_000).len(), SAMPLES);
    }

    #[test]
    fn growth_is_that_of_the_last_two_seconds() {
        let mut growth = Growth::default();
        assert_eq!(growth.per_second(), None);
        for half in 0..20 {
            growth.note(at(half * 500), if half < 10 { 0 } else { (half - 9) * 50 });
        }
        assert_eq!(growth.per_second(), Some(100.0));
        (0..1_000).for_each(|_| growth.note(at(10_000), 1));
        assert!(growth.readings.len() <= READINGS);
    }
}
