//! What the other outputs say of themselves, as it is exposed.

/// What alerts and history say; none of what is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputStats {
    /// Of alerts
    pub alerts: Option<AlertStats>,
    /// Of the history
    pub history: Option<HistoryStats>,
}

/// What alerts say of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertStats {
    /// Alerts by state
    pub by_state: Vec<(&'static str, u64)>,
    /// Problems that were not followed because too many are, since the start
    pub overflowed: u64,
    /// Writes of their state that failed, since the start
    pub failed_saves: u64,
    /// Each receiver
    pub receivers: Vec<ReceiverStats>,
}

/// What is known of a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Its name in the configuration
    pub name: String,
    /// Deliveries by outcome, since the start
    pub deliveries: Vec<(&'static str, u64)>,
    /// Alerts that wait for delivery
    pub queued: u64,
}

/// What the history says of itself. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryStats {
    /// Minutes written
    pub minutes_written: u64,
    /// Minutes that wait
    pub minutes_waiting: u64,
    /// Minutes lost because too many waited
    pub minutes_dropped: u64,
    /// Attempts that failed
    pub failures: u64,
    /// Bytes on disk
    pub database_bytes: u64,
    /// Something is wrong now
    pub is_degraded: bool,
}
