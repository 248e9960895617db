//! What the service manager is told: readiness, reloads, the status line, and that rounds are done (the watchdog).
//!
//! Without a manager (`NOTIFY_SOCKET` is not set) nobody is told, and that is fine.

use std::time::Duration;

use sd_notify::NotifyState;

/// Rounds that may be missed before the watchdog bites.
const MISSED_ROUNDS: u32 = 3;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    /// What it waits for a sign of life; none if it does not
    watchdog: Option<Duration>,
}

impl Manager {
    pub(super) fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// The daemon observes; `interval` is how often it will give a sign of life.
    pub(super) fn ready(&mut self, interval: Duration, status: &str) {
        self.allow(interval);
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A round was done.
    pub(super) fn round(&self, status: &str) {
        match self.watchdog {
            Some(_) => tell(&[NotifyState::Watchdog, NotifyState::Status(status)]),
            None => tell(&[NotifyState::Status(status)]),
        }
    }

    /// The configuration is read again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!("the service manager cannot be told of the reload: {error}"),
        }
    }

    /// The daemon ends.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// A sign of life comes with each round and not otherwise. Where the unit's watchdog is too short for that, it is made
    /// longer.
    fn allow(&mut self, interval: Duration) {
        let needed = interval * MISSED_ROUNDS;
        if let Some(allowed) = self.watchdog.filter(|allowed| *allowed < needed) {
            log::warn!("rounds of {interval:?} are too long for a watchdog of {allowed:?}: made it {needed:?}");
            tell(&[NotifyState::WatchdogUsec(u32::try_from(needed.as_micros()).unwrap_or(u32::MAX))]);
            self.watchdog = Some(needed);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("the service manager cannot be told: {error}");
    }
}
