//! Who is told of each round besides the metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    alert::Alerts,
    config::Config,
    history::History,
    metrics::{AlertStats, HistoryStats, OutputStats, ReceiverStats},
    report::Report,
};

/// Somebody who is told of each round. Nothing here may wait: not for a disk, not for the network.
pub trait Output {
    /// Takes in the report of a window that ended at `at`.
    fn take_in(&mut self, report: &Arc<Report>, at: jiff::Timestamp);

    /// Takes over a new configuration, which is a valid one.
    ///
    /// # Errors
    /// It cannot, because of something outside of the configuration, such as a secret's file. It goes on as before.
    fn reload(&mut self, config: &Config) -> anyhow::Result<()>;

    /// Adds what it says of itself.
    fn stats(&self, into: &mut OutputStats);

    /// Ends, and waits for its thread for this long at most.
    fn stop(self: Box<Self>, within: Duration);
}

/// Everybody, in the order in which they are told.
pub(super) type Outputs = Vec<Box<dyn Output>>;

/// Those that there are; what is not wanted does nothing until a new configuration wants it.
///
/// # Errors
/// One of them could not begin.
pub(super) fn start(config: &Config) -> anyhow::Result<Outputs> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let alerts = Alerts::start(&config.alerts, Some(&config.alerts.state_folder), &host).context("start the alerts")?;
    let history = History::start(&config.history).context("start the thread of the history")?;
    Ok(vec![Box::new(alerts), Box::new(history)])
}

impl Output for Alerts {
    fn take_in(&mut self, report: &Arc<Report>, at: jiff::Timestamp) {
        Self::take_in(self, report, at);
    }

    fn reload(&mut self, config: &Config) -> anyhow::Result<()> {
        Ok(Self::reload(self, &config.alerts)?)
    }

    fn stats(&self, into: &mut OutputStats) {
        let stats = Self::stats(self);
        let receivers = stats.receivers.into_iter().map(|(name, it)| ReceiverStats {
            name,
            deliveries: vec![
                ("sent", it.sent),
                ("failed", it.failed),
                ("retried", it.retried),
                ("dropped", it.dropped),
            ],
            queued: it.queued as u64,
        });
        into.alerts = Some(AlertStats {
            by_state: vec![("pending", stats.pending as u64), ("firing", stats.firing as u64)],
            overflowed: stats.overflowed_total,
            failed_saves: stats.failed_saves,
            receivers: receivers.collect(),
        });
    }

    fn stop(self: Box<Self>, within: Duration) {
        Self::stop(*self, Instant::now() + within);
    }
}

impl Output for History {
    fn take_in(&mut self, report: &Arc<Report>, at: jiff::Timestamp) {
        Self::take_in(self, report, at);
    }

    fn reload(&mut self, config: &Config) -> anyhow::Result<()> {
        Self::reload(self, &config.history);
        Ok(())
    }

    fn stats(&self, into: &mut OutputStats) {
        let stats = Self::stats(self);
        into.history = Some(HistoryStats {
            minutes_written: stats.minutes_written,
            minutes_waiting: stats.minutes_waiting,
            minutes_dropped: stats.minutes_dropped,
            failures: stats.failures,
            database_bytes: stats.database_bytes,
            is_degraded: stats.last_error.is_some(),
        });
    }

    fn stop(self: Box<Self>, within: Duration) {
        // What is lost it has said itself.
        let _ = Self::stop(*self, within);
    }
}
