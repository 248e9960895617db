//! How durations are counted: by powers of two of microseconds.

/// Buckets of the histograms in the per-CPU arrays `SEARCHES` and `HANDSHAKES`.
pub const DURATION_BUCKETS: u32 = 24;

/// The bucket of a duration: 0 for less than a microsecond, `n` for less than `2^n` and not less than half of that, the
/// last one for everything longer.
#[must_use]
pub const fn duration_bucket(duration_ns: u64) -> u32 {
    let bucket = u64::BITS - (duration_ns / 1_000).leading_zeros();
    if bucket < DURATION_BUCKETS { bucket } else { DURATION_BUCKETS - 1 }
}

/// What a duration of this bucket is less than, in microseconds; none for the last one.
#[must_use]
pub const fn duration_bucket_end_us(bucket: u32) -> Option<u64> {
    if bucket + 1 < DURATION_BUCKETS { Some(1 << bucket) } else { None }
}
