//! How long connect() looked for a port.

use agent_ebpf::search_bucket_end_us;

use super::{PortSearch, SearchBucket};

/// Makes the histogram of a report. None if connect() was not seen to look for a port.
pub(super) fn histogram(counts: &[u64]) -> Option<PortSearch> {
    let buckets: Vec<SearchBucket> = (0..)
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(bucket, count)| SearchBucket { below_us: search_bucket_end_us(bucket), count: *count })
        .collect();
    let searches = buckets.iter().map(|bucket| bucket.count).sum();
    (searches > 0).then_some(PortSearch { searches, buckets })
}

impl PortSearch {
    /// What this share of the searches took less than, in microseconds; none if it is longer than the histogram tells.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let wanted = self.searches as f64 * share;
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|bucket| {
            seen += bucket.count;
            seen as f64 >= wanted
        });
        bucket?.below_us
    }
}

#[cfg(test)]
mod tests {
    use agent_ebpf::{SEARCH_BUCKETS, search_bucket};

    use super::*;

    #[test]
    fn a_duration_is_less_than_the_end_of_its_bucket() {
        for (ns, end) in [(0, Some(1)), (999, Some(1)), (1_000, Some(2)), (3_999, Some(4)), (4_000, Some(8))] {
            assert_eq!(search_bucket_end_us(search_bucket(ns)), end, "{ns} ns");
        }
        assert_eq!(search_bucket(u64::MAX), SEARCH_BUCKETS - 1);
        assert_eq!(search_bucket_end_us(SEARCH_BUCKETS - 1), None);
    }

    #[test]
    fn quantiles_are_the_ends_of_buckets() {
        let counts = [0, 50, 0, 49, 0, 0, 1];
        let search = histogram(&counts).unwrap();
        assert_eq!((search.searches, search.buckets.len()), (100, 3));
        assert_eq!(search.quantile_us(0.5), Some(2));
        assert_eq!(search.quantile_us(0.99), Some(8));
        assert_eq!(search.quantile_us(1.0), Some(64));
        assert_eq!(histogram(&[0; 24]), None);
    }
}
