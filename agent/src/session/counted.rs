//! What the kernel and the reader of the ring buffer have counted, and how much of it is a window's. Pure.

use crate::{kernel::Losses, report::Lost};

/// Counts since the programs were attached, or of a part of that time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// What the kernel could not tell
    pub(super) losses: Losses,
    /// Records that were not understood
    pub(super) malformed: u64,
    /// Bytes of all records
    pub(super) bytes: u64,
    /// How often connect() looked for a port for how long; none where that is not observed
    pub(super) port_searches: Option<Vec<u64>>,
    /// How many handshakes took how long; none where they are not timed
    pub(super) handshakes: Option<Vec<u64>>,
}

impl Counted {
    /// How much there is more than `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    /// Until here everything is told, if `told` was told before. Some counts are the difference of two that are not read
    /// at once, and may come out a little lower than before: what was told stays told.
    pub(super) fn after(&self, told: &Self) -> Self {
        self.with(told, u64::max)
    }

    /// Whether anything was lost that can cost a timewait socket its owner.
    pub(super) const fn has_losses(&self) -> bool {
        self.losses.lost.total() + self.losses.sockets_not_followed + self.malformed > 0
    }

    fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let (mine, theirs) = (&self.losses, &other.losses);
        let histogram = |of: fn(&Self) -> &Option<Vec<u64>>| {
            let theirs = of(other).iter().flatten().copied().chain(std::iter::repeat(0));
            let mine = of(self).as_ref()?.iter();
            Some(mine.zip(theirs).map(|(mine, theirs)| join(*mine, theirs)).collect())
        };
        Self {
            losses: Losses {
                lost: Lost {
                    transitions: join(mine.lost.transitions, theirs.lost.transitions),
                    refused_calls: join(mine.lost.refused_calls, theirs.lost.refused_calls),
                    processes: join(mine.lost.processes, theirs.lost.processes),
                    timewait: join(mine.lost.timewait, theirs.lost.timewait),
                    skipped_programs: join(mine.lost.skipped_programs, theirs.lost.skipped_programs),
                },
                sockets_not_followed: join(mine.sockets_not_followed, theirs.sockets_not_followed),
                calls_not_followed: join(mine.calls_not_followed, theirs.calls_not_followed),
                details_missed: join(mine.details_missed, theirs.details_missed),
                read_faults: join(mine.read_faults, theirs.read_faults),
            },
            malformed: join(self.malformed, other.malformed),
            bytes: join(self.bytes, other.bytes),
            port_searches: histogram(|counted| &counted.port_searches),
            handshakes: histogram(|counted| &counted.handshakes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts that [`counted`] makes up.
    const NUMBERS: usize = 21;

    fn counted(numbers: &[u64]) -> Counted {
        let mut numbers = numbers.iter().copied().cycle();
        let mut next = || numbers.next().unwrap();
        Counted {
            losses: Losses {
                lost: Lost {
                    transitions: next(),
                    refused_calls: next(),
                    processes: next(),
                    timewait: next(),
                    skipped_programs: next(),
                },
                sockets_not_followed: next(),
                calls_not_followed: next(),
                details_missed: next(),
                read_faults: next(),
            },
            malformed: next(),
            bytes: next(),
            port_searches: Some((0..5).map(|_| next()).collect()),
            handshakes: Some((0..5).map(|_| next()).collect()),
        }
    }

    /// Every count of it.
    fn numbers(counted: &Counted) -> Vec<u64> {
        let losses = &counted.losses;
        let lost = &losses.lost;
        let mut all = vec![lost.transitions, lost.refused_calls, lost.processes, lost.timewait, lost.skipped_programs];
        all.extend([losses.sockets_not_followed, losses.calls_not_followed, losses.details_missed, losses.read_faults]);
        all.extend([counted.malformed, counted.bytes]);
        all.extend(counted.port_searches.iter().chain(&counted.handshakes).flatten());
        all
    }

    proptest! {
        #[test]
        fn windows_add_up_to_the_session(steps in prop::collection::vec(prop::collection::vec(0_u64..1_000, NUMBERS), 1..20)) {
            let (mut ever, mut told, mut sum) = (vec![0; NUMBERS], Counted::default(), vec![0; NUMBERS]);
            for step in &steps {
                ever.iter_mut().zip(step).for_each(|(ever, more)| *ever += more);
                let now = counted(&ever);
                let window = now.since(&told);
                prop_assert_eq!(&numbers(&window), step);
                sum.iter_mut().zip(numbers(&window)).for_each(|(sum, more)| *sum += more);
                told = now.after(&told);
            }
            prop_assert_eq!(sum, ever);
        }
    }

    #[test]
    fn what_comes_out_lower_is_not_told_again() {
        let [five, four, six] = [[5], [4], [6]].map(|number| counted(&number));
        let told = four.after(&five);
        assert_eq!(numbers(&four.since(&five)), [0; NUMBERS]);
        assert_eq!(numbers(&six.since(&told)), [1; NUMBERS]);
        assert!(five.has_losses() && !four.since(&five).has_losses());
    }

    #[test]
    fn what_is_not_observed_is_not_counted() {
        let unobserved = Counted { port_searches: None, ..counted(&[7]) };
        assert_eq!(unobserved.since(&counted(&[3])).port_searches, None);
        assert_eq!(counted(&[7]).since(&unobserved).port_searches, Some(vec![7; 5]));
    }
}
