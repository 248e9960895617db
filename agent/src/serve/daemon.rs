//! The loop: observe, make a report, tell everybody.

use std::{
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant as StdInstant},
};

use tokio::time::{Instant, sleep_until, timeout};

use super::{
    configuration::Configuration,
    manager::Manager,
    outputs::{self, Outputs},
    signals::{Asked, Signals},
    since_epoch,
};
use crate::{
    config::ConfigError,
    http::{self, Page, Shared},
    kernel::{heap, netns},
    metrics::{OutputStats, Round, Totals},
    report::{Report, Severity},
    session::{Session, Unheard},
    state::Sizes,
};

/// How long the last window may take once the daemon is told to stop.
const LAST_WINDOW: Duration = Duration::from_millis(1_200);
/// How long each output gets to write down what it still has.
const LAST_WORDS: Duration = Duration::from_millis(900);
/// How often memory is given back that nothing uses any more.
const GIVE_BACK: Duration = Duration::from_secs(60);
/// When whatever still hangs is left behind.
const DEADLINE: Duration = Duration::from_millis(4_800);

/// What ended the observation of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Its time is over
    Round,
    /// A signal came
    Asked(Asked),
}

/// A daemon that observes.
pub(super) struct Daemon {
    session: Session,
    configuration: Configuration,
    shared: Arc<Shared>,
    manager: Manager,
    signals: Signals,
    totals: Totals,
    outputs: Outputs,
    round: Round,
    last: Option<Arc<Report>>,
    last_done: Option<StdInstant>,
    gave_back: StdInstant,
    /// The last configuration was refused: what the status line says until one is taken over
    complaint: Option<String>,
}

impl Daemon {
    pub(super) fn new(
        session: Session,
        configuration: Configuration,
        shared: Arc<Shared>,
        manager: Manager,
    ) -> anyhow::Result<Self> {
        let totals = Totals::new(configuration.metrics(), netns::current().ok());
        let outputs = outputs::start(configuration.current())?;
        Ok(Self {
            session,
            configuration,
            shared,
            manager,
            signals: Signals::listen()?,
            totals,
            outputs,
            round: Round::default(),
            last: None,
            last_done: None,
            gave_back: StdInstant::now(),
            complaint: None,
        })
    }

    /// Observes until it is told to stop.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        for spot in self.session.blind_spots() {
            log::warn!("{spot}");
        }
        self.publish(false);
        self.manager.ready(self.interval(), "observing; the first round is not done yet");
        log::info!("observing, a round every {:?}", self.interval());
        let mut due = Instant::now() + self.interval();
        loop {
            let signals = &mut self.signals;
            let until = async {
                tokio::select! {
                    () = sleep_until(due) => Ended::Round,
                    asked = signals.next() => Ended::Asked(asked),
                }
            };
            match self.session.observe(until, &mut Unheard).await? {
                Ended::Round => {
                    if self.round_unless_stopped().await == Some(Asked::Stop) {
                        break;
                    }
                    due = next(due, self.interval());
                }
                Ended::Asked(Asked::Reload) => {
                    self.reload();
                    due = due.min(Instant::now() + self.interval());
                }
                Ended::Asked(Asked::Stop) => break,
            }
        }
        self.stop().await;
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.configuration.current().observe.interval
    }

    /// A round, unless it is told to stop meanwhile.
    async fn round_unless_stopped(&mut self) -> Option<Asked> {
        let begun = StdInstant::now();
        let mut wants_reload = false;
        let result = {
            let window = self.session.window();
            tokio::pin!(window);
            loop {
                tokio::select! {
                    result = &mut window => break result,
                    asked = self.signals.next() => match asked {
                        Asked::Stop => return Some(Asked::Stop),
                        Asked::Reload => wants_reload = true,
                    },
                }
            }
        };
        self.take_in(result, begun);
        if wants_reload {
            self.reload();
        }
        None
    }

    /// Tells everybody of a window.
    fn take_in(&mut self, window: anyhow::Result<Report>, begun: StdInstant) {
        let report = match window {
            Ok(report) => Arc::new(report),
            Err(error) => {
                // The watchdog is not told of this one.
                log::error!("this round gave no report: {error:#}");
                self.totals.fail();
                self.publish(false);
                return;
            }
        };
        let at = jiff::Timestamp::now();
        self.totals.take_in(&report);
        self.round.done_at = since_epoch();
        self.round.took = begun.elapsed();
        self.round.tables = tables(&self.session.state().sizes());
        self.last = Some(Arc::clone(&report));
        self.last_done = Some(StdInstant::now());
        for output in &mut self.outputs {
            output.take_in(&report, at);
        }
        if self.gave_back.elapsed() >= GIVE_BACK {
            heap::give_back();
            self.gave_back = StdInstant::now();
        }
        self.publish(false);
        self.manager.round(&self.status(&report));
        log::debug!("a round of {} s took {:?}", report.session.duration_s, self.round.took);
    }

    fn publish(&self, is_stopping: bool) {
        let mut stats = OutputStats::default();
        for output in &self.outputs {
            output.stats(&mut stats);
        }
        self.shared.page.store(Arc::new(Page {
            families: self.totals.families(self.last.as_deref(), &self.round, &stats),
            report: self.last.clone(),
            done: self.last_done,
            interval: self.interval(),
            is_stopping,
        }));
    }

    /// What `systemctl status` shows.
    fn status(&self, report: &Report) -> String {
        let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
        let (critical, warning) = (count(Severity::Critical), count(Severity::Warning));
        let complaint = self.complaint.as_deref().map(|it| format!("; {it}")).unwrap_or_default();
        format!("{} in TIME_WAIT, {critical} critical, {warning} warning{complaint}", report.time_wait.total)
    }

    /// Reads the configuration again.
    fn reload(&mut self) {
        self.manager.reloading();
        let status = match self.configuration.reload() {
            Ok(needing_restart) => self.take_over(&needing_restart),
            Err(error) => self.keep(&error),
        };
        let is_current = self.complaint.is_none();
        let before = self.shared.config.load().read_at;
        let read_at = if is_current { since_epoch() } else { before };
        self.shared.config.store(Arc::new(http::Config { is_current, read_at }));
        self.manager.ready(self.interval(), &status);
    }

    fn take_over(&mut self, needing_restart: &[String]) -> String {
        self.complaint = None;
        self.totals.set(self.configuration.metrics());
        for output in &mut self.outputs {
            if let Err(error) = output.reload(self.configuration.current()) {
                log::error!("a part of the new configuration is not in force: {error:#}");
                self.complaint = Some(format!("a part of the new configuration is not in force: {error:#}"));
            }
        }
        self.publish(false);
        if let Some(complaint) = &self.complaint {
            return complaint.clone();
        }
        if needing_restart.is_empty() {
            log::info!("the configuration was read again and is in force");
            return "the new configuration is in force".to_owned();
        }
        let keys = needing_restart.join(", ");
        log::warn!("the configuration was read again and is in force, but for what takes a restart: {keys}");
        format!("the new configuration is in force, but for what takes a restart: {keys}")
    }

    fn keep(&mut self, error: &ConfigError) -> String {
        log::error!("the new configuration cannot be used, the old one stays in force:\n{error}");
        let first = error.problems.first().map(ToString::to_string).unwrap_or_default();
        let status = format!("the new configuration cannot be used, the old one is in force: {first}");
        // One line: that is what a status is.
        let status = status.replace('\n', " ");
        self.complaint = Some(status.clone());
        status
    }

    /// Takes the last window in, and lets everybody write down what they have.
    async fn stop(mut self) {
        log::info!("stopping");
        leave_behind();
        self.manager.stopping();
        let begun = StdInstant::now();
        match timeout(LAST_WINDOW, self.session.window()).await {
            Ok(window) => self.take_in(window, begun),
            Err(_) => log::warn!("the last window is not in the report: it took too long"),
        }
        self.publish(true);
        for output in self.outputs {
            output.stop(LAST_WORDS);
        }
    }
}

/// Entries of each table, as they are exposed.
fn tables(sizes: &Sizes) -> Vec<(&'static str, u64)> {
    let tables = [
        ("timewait_sockets", sizes.timewait_sockets),
        ("processes", sizes.processes),
        ("failures", sizes.failures),
        ("known_holders", sizes.known_holders),
        ("listeners", sizes.listeners),
        ("older_sockets", sizes.older_sockets),
        ("routes", sizes.routes),
        ("peaks", sizes.peaks),
    ];
    tables.map(|(table, entries)| (table, entries as u64)).to_vec()
}

/// Ends the process when the time is over, whatever hangs. That takes a thread of its own.
fn leave_behind() {
    let watcher = thread::Builder::new().name("deadline".to_owned()).spawn(|| {
        thread::sleep(DEADLINE);
        log::error!("something did not end in time and is left behind");
        process::exit(0);
    });
    if let Err(error) = watcher {
        log::warn!("nothing ends this if it hangs: {error}");
    }
}

/// When the next round is due: as if none had been late, unless it would be due already.
fn next(due: Instant, interval: Duration) -> Instant {
    let now = Instant::now();
    let next = due + interval;
    if next > now { next } else { now + interval }
}
