//! The history as the daemon holds it: windows go in without waiting, a thread of its own writes.

use std::{
    collections::VecDeque,
    fs, io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Config,
    rollup::{Episode, Limits, Minute, Moment, Rollup},
    store::Boot,
    writer::{Counts, Writer},
};
use crate::{kernel::census::boottime, report::Report};

/// Minutes that wait in memory while they cannot be written: an hour. Some 100 kB each where a lot goes on.
pub const WAITING: usize = 60;

/// After how long what failed is tried again, if no minute comes in before.
const AGAIN: Duration = Duration::from_secs(60);

/// How the history does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Minutes written since the start
    pub minutes_written: u64,
    /// Rows written since the start
    pub rows_written: u64,
    /// Minutes that wait to be written
    pub minutes_waiting: u64,
    /// Minutes lost since the start, because too many waited
    pub minutes_dropped: u64,
    /// Attempts to open, write or shorten the database that failed, since the start
    pub failures: u64,
    /// Damaged databases put aside since the start
    pub set_aside: u64,
    /// Minutes and findings deleted by age or size since the start
    pub deleted: u64,
    /// Bytes of the database and its log, when they were looked at last
    pub database_bytes: u64,
    /// What is wrong now; none if all is well
    pub last_error: Option<String>,
}

/// A history that is kept.
#[derive(Debug)]
pub struct History {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to do
    work: Condvar,
    /// The thread has ended
    ended: Condvar,
}

/// Nobody holds it for longer than a window takes to fold.
#[derive(Debug)]
struct State {
    config: Config,
    rollup: Rollup,
    boot: Boot,
    queue: VecDeque<Arc<Minute>>,
    /// Minutes that came into the queue so far
    arrived: u64,
    dropped: u64,
    is_reloaded: bool,
    is_stopping: bool,
    has_ended: bool,
    counts: Counts,
    error: Option<String>,
}

impl History {
    /// Begins a history. The database is opened by the history's own thread: one that cannot be opened now is in
    /// [`Stats::last_error`], and tried again each minute.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(config: &Config) -> io::Result<Self> {
        let state = State {
            config: config.clone(),
            rollup: Rollup::new(limits(config)),
            boot: Boot { boot_id: boot_id(), ..Boot::default() },
            queue: VecDeque::new(),
            arrived: 0,
            dropped: 0,
            is_reloaded: false,
            is_stopping: false,
            has_ended: false,
            counts: Counts::default(),
            error: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), ended: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        thread::Builder::new().name("history".to_owned()).spawn(move || {
            for_thread.keep();
            for_thread.lock().has_ended = true;
            for_thread.ended.notify_all();
        })?;
        Ok(Self { shared })
    }

    /// Takes a window in: a report whose counters are those of the window, which ended at `now`. Does not wait for the disk.
    pub fn take_in(&self, report: &Report, now: Timestamp) {
        let mut state = self.shared.lock();
        if !state.config.enabled {
            return;
        }
        if state.boot.version.is_empty() {
            state.boot.host = report.host.name.clone();
            state.boot.kernel = report.host.kernel.clone();
            state.boot.version = report.host.version.clone();
        }
        let at = Moment { wall: now, boottime_ms: boottime_ms() };
        if let Some(minute) = state.rollup.take_in(report, at) {
            state.enqueue(minute);
            self.shared.work.notify_all();
        }
    }

    /// Takes another configuration; it holds from the next minute on.
    pub fn reload(&self, config: &Config) {
        let mut state = self.shared.lock();
        if state.config == *config {
            return;
        }
        state.rollup.set_limits(limits(config));
        if !config.enabled
            && let Some(minute) = state.rollup.finish()
        {
            state.enqueue(minute);
        }
        state.config = config.clone();
        state.is_reloaded = true;
        self.shared.work.notify_all();
    }

    /// How it does.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats()
    }

    /// Writes what there is, the minute that is going on too, and ends, within `deadline`. What [`Stats::minutes_waiting`] says
    /// then is lost.
    #[must_use = "minutes may be lost"]
    pub fn stop(self, deadline: Duration) -> Stats {
        let end = Instant::now() + deadline;
        let mut state = self.shared.begin_to_stop();
        while !state.has_ended {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let stats = state.stats();
        if stats.minutes_waiting > 0 {
            let error = stats.last_error.as_deref().unwrap_or("there was no time left");
            log::error!("history: {} minute(s) could not be written and are lost: {error}", stats.minutes_waiting);
        }
        stats
    }
}

impl Drop for History {
    /// Whoever did not wait for the end lets it end by itself.
    fn drop(&mut self) {
        drop(self.shared.begin_to_stop());
    }
}

impl State {
    fn enqueue(&mut self, minute: Minute) {
        self.arrived += 1;
        self.queue.push_back(Arc::new(minute));
        while self.queue.len() > WAITING {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.dropped += 1;
            if let Some(next) = self.queue.front_mut() {
                rescue_findings(&oldest, Arc::make_mut(next));
            }
        }
    }

    fn stats(&self) -> Stats {
        let Counts { minutes, rows, failures, set_aside, deleted, bytes } = self.counts;
        Stats {
            minutes_written: minutes,
            rows_written: rows,
            minutes_waiting: u64::try_from(self.queue.len()).unwrap_or(u64::MAX),
            minutes_dropped: self.dropped,
            failures,
            set_aside,
            deleted,
            database_bytes: bytes,
            last_error: self.error.clone(),
        }
    }
}

/// Findings are few and say most: those of a minute that is lost go with the next one, unless that has them in a later form.
fn rescue_findings(lost: &Minute, next: &mut Minute) {
    /// As many as can be open, twice
    const CARRIED: usize = 1_024;
    for episode in &lost.findings {
        let is_same = |other: &Episode| other.key == episode.key && other.opened == episode.opened;
        if next.findings.iter().any(is_same) {
            continue;
        }
        if next.findings.len() < CARRIED {
            next.findings.push(episode.clone());
        } else {
            next.findings_omitted += 1;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_to_stop(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if !state.is_stopping {
            state.is_stopping = true;
            if let Some(minute) = state.rollup.finish() {
                state.enqueue(minute);
            }
            self.work.notify_all();
        }
        state
    }

    /// The thread: writes until it is told to stop.
    fn keep(&self) {
        let mut writer = Writer::default();
        // The database is opened at once: what is wrong with it is known before the first minute is over.
        let mut is_well = true;
        loop {
            let mut state = self.lock();
            if mem::take(&mut state.is_reloaded) {
                writer.close();
            }
            let config = state.config.clone();
            let next = state.queue.front().cloned();
            // A minute that comes in during the attempt is one more reason to try: it may have met what is over by then.
            let arrived = state.arrived;
            let (boot, is_stopping) = (state.boot.clone(), state.is_stopping);
            drop(state);

            let is_wanted = config.enabled || next.is_some();
            if is_well && is_wanted {
                is_well = writer.open(&config, Timestamp::now(), |open| self.lock().rollup.resume(open));
            }
            if is_well && let Some(minute) = &next {
                is_well = writer.write(minute, &boot, &config);
            }
            let mut state = self.lock();
            // At once with the counts: whoever asks in between would find it neither waiting nor written.
            if is_well && let Some(minute) = &next {
                state.forget(minute);
            }
            (state.counts, state.error) = (writer.counts, writer.error().map(str::to_owned));
            if is_stopping && (!is_well || state.queue.is_empty()) {
                return;
            }
            if is_well && !state.queue.is_empty() || state.is_reloaded || state.is_stopping {
                is_well = true;
                continue;
            }
            // Until a minute comes in; after a failure that is when it is tried again, too.
            drop(self.work.wait_timeout_while(state, AGAIN, |state| {
                !state.is_stopping && !state.is_reloaded && state.arrived == arrived
            }));
            is_well = true;
        }
    }
}

impl State {
    /// The minute was written.
    fn forget(&mut self, minute: &Arc<Minute>) {
        if self.queue.front().is_some_and(|front| Arc::ptr_eq(front, minute)) {
            self.queue.pop_front();
        } else {
            // It was dropped while it was being written, and is not lost after all.
            self.dropped = self.dropped.saturating_sub(1);
        }
    }
}

const fn limits(config: &Config) -> Limits {
    Limits { processes: config.processes_per_minute, destinations: config.destinations_per_minute }
}

fn boottime_ms() -> i64 {
    i64::try_from(boottime().0 / 1_000_000).unwrap_or(i64::MAX)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
