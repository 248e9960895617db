//! How long connect() took, and how long it looked for a port.

use agent_ebpf::duration_bucket_end_us;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long it took from connect() to the end of the handshake (SYN_SENT to ESTABLISHED), the search for a port and the
/// kernel's retransmissions of the SYN included. Connections that were never established are not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectLatency {
    /// Connections that were opened here and established
    pub connections: u64,
    /// How many for how long, shortest first; what did not occur is left out
    pub buckets: Vec<DurationBucket>,
}

/// How long connect() looked for a port (`inet_hash_connect()`), those included that found none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortSearch {
    /// How often it looked
    pub searches: u64,
    /// How often for how long, shortest first; what did not occur is left out
    pub buckets: Vec<DurationBucket>,
}

/// What took a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DurationBucket {
    /// Less than this many microseconds, and not less than half; null: longer than four seconds
    pub below_us: Option<u64>,
    /// How many
    pub count: u64,
}

impl ConnectLatency {
    /// Out of the counts of all buckets. None if nothing was counted.
    pub(super) fn of(counts: &[u64]) -> Option<Self> {
        let (connections, buckets) = histogram(counts)?;
        Some(Self { connections, buckets })
    }

    /// What this share of the connections took less than, in microseconds; none if it is longer than the histogram tells.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        quantile_us(self.connections, &self.buckets, share)
    }
}

impl PortSearch {
    /// Out of the counts of all buckets. None if connect() was not seen to look for a port.
    pub(super) fn of(counts: &[u64]) -> Option<Self> {
        let (searches, buckets) = histogram(counts)?;
        Some(Self { searches, buckets })
    }

    /// What this share of the searches took less than, in microseconds; none if it is longer than the histogram tells.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        quantile_us(self.searches, &self.buckets, share)
    }
}

/// Everything counted, and the buckets of what occurred.
fn histogram(counts: &[u64]) -> Option<(u64, Vec<DurationBucket>)> {
    let buckets: Vec<DurationBucket> = (0..)
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(bucket, count)| DurationBucket { below_us: duration_bucket_end_us(bucket), count: *count })
        .collect();
    let all = buckets.iter().map(|bucket| bucket.count).sum();
    (all > 0).then_some((all, buckets))
}

fn quantile_us(all: u64, buckets: &[DurationBucket], share: f64) -> Option<u64> {
    let wanted = all as f64 * share;
    let mut seen = 0;
    let bucket = buckets.iter().find(|bucket| {
        seen += bucket.count;
        seen as f64 >= wanted
    });
    bucket?.below_us
}

#[cfg(test)]
mod tests {
    use agent_ebpf::{DURATION_BUCKETS, duration_bucket};

    use super::*;

    #[test]
    fn a_duration_is_less_than_the_end_of_its_bucket() {
        for (ns, end) in [(0, Some(1)), (999, Some(1)), (1_000, Some(2)), (3_999, Some(4)), (4_000, Some(8))] {
            assert_eq!(duration_bucket_end_us(duration_bucket(ns)), end, "{ns} ns");
        }
        assert_eq!(duration_bucket(u64::MAX), DURATION_BUCKETS - 1);
        assert_eq!(duration_bucket_end_us(DURATION_BUCKETS - 1), None);
    }

    #[test]
    fn quantiles_are_the_ends_of_buckets() {
        let counts = [0, 50, 0, 49, 0, 0, 1];
        let search = PortSearch::of(&counts).unwrap();
        assert_eq!((search.searches, search.buckets.len()), (100, 3));
        assert_eq!(search.quantile_us(0.5), Some(2));
        assert_eq!(search.quantile_us(0.99), Some(8));
        assert_eq!(search.quantile_us(1.0), Some(64));
        assert_eq!(PortSearch::of(&[0; 24]), None);
        let latency = ConnectLatency::of(&counts).unwrap();
        assert_eq!((latency.connections, latency.buckets), (100, search.buckets));
    }
}
