//! What is shown: the state that a round leaves behind, and the pages made of it.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use crate::{
    kernel::{host, usage::usage},
    metrics::{Families, Format, SelfStats, encode},
    report::Report,
};

/// Rounds that may be missed before the daemon counts as not ready.
const MISSED_ROUNDS: u32 = 3;
/// What a round may take on top of that.
const GRACE: Duration = Duration::from_secs(5);

/// What a round leaves behind.
#[derive(Debug, Default)]
pub struct Page {
    /// What is exposed
    pub families: Families,
    /// The report of the last window; none before the first round
    pub report: Option<Arc<Report>>,
    /// When the last round was done
    pub done: Option<Instant>,
    /// Time between rounds
    pub interval: Duration,
    /// The daemon stops
    pub is_stopping: bool,
}

/// The configuration, as far as it is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The last one that was read was taken over
    pub is_current: bool,
    /// When one was taken over last, since 1970
    pub read_at: Duration,
}

/// What the endpoint looks at.
#[derive(Debug)]
pub struct Shared {
    /// Changes with each round
    pub page: ArcSwap<Page>,
    /// Changes when the configuration is read
    pub config: ArcSwap<Config>,
    started_at: Duration,
    kernel: String,
    /// Nanoseconds; 0 before the first scrape
    last_scrape: AtomicU64,
}

impl Shared {
    /// Before the first round. `started_at`: since 1970.
    #[must_use]
    pub fn new(started_at: Duration, interval: Duration) -> Self {
        Self {
            page: ArcSwap::from_pointee(Page { interval, ..Page::default() }),
            config: ArcSwap::from_pointee(Config { is_current: true, read_at: started_at }),
            started_at,
            kernel: host::release(),
            last_scrape: AtomicU64::new(0),
        }
    }

    /// `/metrics`
    ///
    /// # Errors
    /// Those of the encoder; none is known.
    pub fn metrics(&self, format: Format) -> Result<String, std::fmt::Error> {
        let begun = Instant::now();
        let (page, config, used) = (self.page.load(), self.config.load(), usage());
        let last_scrape = match self.last_scrape.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        };
        let own = SelfStats {
            cpu: used.cpu,
            resident_bytes: used.resident_bytes,
            open_fds: used.open_fds,
            max_fds: used.max_fds,
            started_at: self.started_at,
            last_scrape,
            kernel: self.kernel.clone(),
            is_config_current: config.is_current,
            config_read_at: config.read_at,
        };
        let text = encode(&[&page.families, &own.families()], format)?;
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_scrape.store(took, Ordering::Relaxed);
        Ok(text)
    }

    /// Why the daemon is not ready at this moment; what it has to do without, if it is.
    ///
    /// # Errors
    /// It is not ready.
    pub fn readiness(&self, now: Instant) -> Result<String, String> {
        let page = self.page.load();
        if page.is_stopping {
            return Err("not ready: stopping\n".to_owned());
        }
        let (Some(done), Some(report)) = (page.done, &page.report) else {
            return Err("not ready: the first round is not done yet\n".to_owned());
        };
        let age = now.saturating_duration_since(done);
        if age > page.interval * MISSED_ROUNDS + GRACE {
            let (age, interval) = (age.as_secs(), page.interval.as_secs());
            return Err(format!("not ready: the last round was {age} s ago, one is due every {interval} s\n"));
        }
        let mut text = format!("ready: the last round was {} s ago\n", age.as_secs());
        for hook in report.session.hooks.iter().filter(|hook| hook.rung == "none") {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "not observed: {}: {}", hook.observes, hook.reason);
        }
        if !self.config.load().is_current {
            text.push_str("the configuration that was read last could not be used: the one before is in force\n");
        }
        Ok(text)
    }

    /// `/report`: the last window's, as JSON. None before the first round.
    #[must_use]
    pub fn report(&self) -> Option<Arc<Report>> {
        self.page.load().report.clone()
    }
}

/// `/`
pub(super) const LANDING: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>firstfin</title>
<h1>firstfin</h1>
<p>Which process is behind TIME_WAIT, a refused bind(), an exhausted port range.</p>
<ul>
<li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>
<li><a href=\"/report\">/report</a>: the report of the last round, in JSON</li>
<li><a href=\"/healthz\">/healthz</a>: the process is alive</li>
<li><a href=\"/readyz\">/readyz</a>: it observes, and rounds are done</li>
</ul>
</html>
";
