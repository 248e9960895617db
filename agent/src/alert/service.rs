//! Alerts as the daemon has them: started, fed with each round's report, reloaded, stopped.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use garde::Validate as _;

use super::{
    AlertsError, Config,
    delivery::{self, Counters, Lane, Shared, State, Target},
    message::Context,
    moment::Moment,
    rules::Settings,
    store::{self, Saved, Store},
};
use crate::report::Report;

/// Between two writes of the state file: what comes meanwhile is in the next one.
const SAVE_PAUSE: Duration = Duration::from_millis(100);
/// After a write that failed.
const SAVE_AGAIN: Duration = Duration::from_secs(30);

/// Alerts of this process. Threads of their own deliver and save; no call here waits for a receiver or a disk but
/// [`Alerts::start`] and [`Alerts::stop`].
pub struct Alerts {
    shared: Arc<Shared>,
    store: Option<Store>,
    host: String,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What is counted of alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Alerts that wait for their hold
    pub pending: usize,
    /// Alerts that fire
    pub firing: usize,
    /// Problems of the last round that were not followed, because `max_active` are
    pub overflowed: usize,
    /// The same, added up over all rounds of this process
    pub overflowed_total: u64,
    /// Writes of the state file that failed, in this process
    pub failed_saves: u64,
    /// By receiver
    pub receivers: BTreeMap<String, ReceiverStats>,
}

/// What is counted of a receiver, in this process unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Messages it took
    pub sent: u64,
    /// Attempts that failed
    pub failed: u64,
    /// Attempts after one that failed
    pub retried: u64,
    /// Alerts that were dropped, over restarts: it refused them, or it was owed more than `max_queued`
    pub dropped: u64,
    /// Alerts it is owed something of, now
    pub queued: usize,
}

impl Alerts {
    /// Reads secrets and the state file, and starts a thread for each receiver. `state_dir`: where the state file is;
    /// without it, a restart forgets what was told and what is owed. `host`: what this host is called in messages.
    ///
    /// # Errors
    /// When the configuration is not valid, a secret or the state file cannot be read, or there is no thread to be had.
    pub fn start(config: &Config, state_dir: Option<&Path>, host: &str) -> Result<Self, AlertsError> {
        let targets = open(config, host)?;
        let (store, saved) = match state_dir.map(Store::open).transpose()? {
            Some((store, saved)) => (Some(store), saved),
            None => (None, Saved::default()),
        };
        let Saved { mut rules, mut receivers } = saved;
        rules.resume();
        let mut state = State { rules, ..State::default() };
        let threads = state.take_targets(config, targets, |name| receivers.remove(name).unwrap_or_default());
        for (name, queue) in receivers.iter().filter(|(_, queue)| queue.owed() > 0) {
            log::warn!("alerts: {name} is not configured any more; {} alerts it was owed are dropped", queue.owed());
        }
        let this = Self { shared: Shared::new(state), store, host: host.to_owned(), threads: Mutex::default() };
        threads.into_iter().try_for_each(|(name, thread)| this.spawn_delivery(name, thread))?;
        if let Some(store) = this.store.clone() {
            let shared = Arc::clone(&this.shared);
            this.spawn(move || keep(&shared, &store))?;
        }
        Ok(this)
    }

    /// Takes in what is wrong now. To be called every round, also when nothing is.
    pub fn take_in(&self, report: &Report, now: jiff::Timestamp) {
        let now = Moment(now);
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(settings) = &state.settings else { return };
        let was_empty = state.rules.is_empty();
        let round = state.rules.round(now, &report.findings, settings);
        let overflowed = u64::try_from(round.overflowed).unwrap_or(u64::MAX);
        state.overflowed = (round.overflowed, state.overflowed.1.saturating_add(overflowed));
        for lane in state.lanes.values_mut() {
            round.transitions.iter().for_each(|transition| lane.queue.tell(transition, now, state.max_queued));
            round.firing.iter().for_each(|(id, alert)| lane.queue.refresh(id, alert));
        }
        if !was_empty || !state.rules.is_empty() {
            state.changes += 1;
            drop(guard);
            self.shared.tell_all();
        }
    }

    /// Goes on with another configuration. What fires and what is owed stays; a receiver that is new is told what fires, and
    /// one that is gone is told nothing any more.
    ///
    /// # Errors
    /// As [`Alerts::start`]; nothing has changed then.
    pub fn reload(&self, config: &Config) -> Result<(), AlertsError> {
        let targets = open(config, &self.host)?;
        let threads = {
            let mut state = self.shared.lock();
            state.changes += 1;
            state.take_targets(config, targets, |_| super::queue::Queue::default())
        };
        self.shared.tell_all();
        threads.into_iter().try_for_each(|(name, thread)| self.spawn_delivery(name, thread))
    }

    /// What is counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        let (pending, firing) = state.rules.counts();
        let receivers = state.lanes.iter().map(|(name, lane)| {
            let Counters { sent, failed, retried } = lane.counters;
            let (dropped, queued) = (lane.queue.dropped(), lane.queue.owed());
            (name.clone(), ReceiverStats { sent, failed, retried, dropped, queued })
        });
        Stats {
            pending,
            firing,
            overflowed: state.overflowed.0,
            overflowed_total: state.overflowed.1,
            failed_saves: state.failed_saves,
            receivers: receivers.collect(),
        }
    }

    /// Tries once more to deliver what is owed, until the deadline, and saves the rest. Alerts that fire are not resolved by
    /// that. Blocks until the deadline at most, and for one write.
    pub fn stop(self, deadline: Instant) {
        let mut state = self.shared.lock();
        state.last_call = Some(deadline);
        self.shared.tell_all();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.running == 0 || left.is_zero() {
                break;
            }
            state = self.shared.wait(state, left);
        }
        let all_ended = state.running == 0;
        let owed: usize = state.lanes.values().map(|lane| lane.queue.owed()).sum();
        drop(state);
        if all_ended {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            for thread in threads.drain(..) {
                let _ = thread.join();
            }
        }
        match &self.store {
            Some(store) => {
                if let Err(error) = save(&self.shared, store) {
                    log::error!(
                        "alerts: write {}: {error}; {owed} alerts that are owed are lost",
                        store.path().display()
                    );
                } else if owed > 0 {
                    log::warn!("alerts: {owed} alerts could not be delivered yet; the next start goes on with them");
                }
            }
            None if owed > 0 => {
                log::error!("alerts: {owed} alerts could not be delivered, and there is no state folder");
            }
            None => {}
        }
    }

    fn spawn_delivery(&self, name: String, thread: u64) -> Result<(), AlertsError> {
        let shared = Arc::clone(&self.shared);
        self.shared.lock().running += 1;
        let spawned = self.spawn(move || delivery::run(&shared, &name, thread));
        if spawned.is_err() {
            self.shared.lock().running -= 1;
        }
        spawned
    }

    fn spawn(&self, body: impl FnOnce() + Send + 'static) -> Result<(), AlertsError> {
        let thread = thread::Builder::new().name("alerts".to_owned()).spawn(body).map_err(AlertsError::Thread)?;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }
}

impl Drop for Alerts {
    /// Without [`Alerts::stop`] nothing is tried or saved any more; the threads end by themselves.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.last_call.is_none() {
            state.last_call = Some(Instant::now());
        }
        drop(state);
        self.shared.tell_all();
    }
}

fn open(config: &Config, host: &str) -> Result<BTreeMap<String, Arc<Target>>, AlertsError> {
    config.validate()?;
    let context = Arc::new(Context {
        host: host.to_owned(),
        labels: config.labels.clone(),
        documentation_url: Some(config.documentation_url.clone()).filter(|url| !url.is_empty()),
    });
    let receivers = config.receivers();
    let opened = receivers.iter().map(|(name, receiver)| {
        let target = Target::open(name, receiver, config, &context)?;
        Ok((name.clone(), Arc::new(target)))
    });
    opened.collect()
}

impl State {
    /// Goes on with these receivers. The threads that have to be started for it, by the receiver's name.
    fn take_targets(
        &mut self,
        config: &Config,
        targets: BTreeMap<String, Arc<Target>>,
        mut queue_of: impl FnMut(&str) -> super::queue::Queue,
    ) -> Vec<(String, u64)> {
        self.settings = Some(Settings::from(config));
        self.max_queued = config.max_queued.max(config.max_active);
        self.lanes.retain(|name, lane| {
            let stays = targets.contains_key(name);
            if !stays && lane.queue.owed() > 0 {
                log::warn!("alerts: {name} is gone; {} alerts it was owed are dropped", lane.queue.owed());
            }
            stays
        });
        let now = Moment(jiff::Timestamp::now());
        let firing = self.rules.firing();
        let mut threads = Vec::new();
        for (name, target) in targets {
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.target = target;
                continue;
            }
            let mut queue = queue_of(&name);
            queue.reconcile(&firing, now, self.max_queued);
            self.next_thread += 1;
            threads.push((name.clone(), self.next_thread));
            self.lanes.insert(name, Lane { queue, target, counters: Counters::default(), thread: self.next_thread });
        }
        threads
    }
}

/// The life of the thread that saves.
fn keep(shared: &Shared, store: &Store) {
    let mut saved = 0;
    let mut is_failing = false;
    loop {
        let mut state = shared.lock();
        while state.changes == saved && state.last_call.is_none() {
            state = shared.wait(state, SAVE_AGAIN);
        }
        if state.last_call.is_some() {
            return;
        }
        let changes = state.changes;
        drop(state);
        let pause = match save(shared, store) {
            Ok(()) => {
                saved = changes;
                if is_failing {
                    log::warn!("alerts: {} can be written again", store.path().display());
                }
                is_failing = false;
                SAVE_PAUSE
            }
            Err(error) => {
                shared.lock().failed_saves += 1;
                if !is_failing {
                    log::error!(
                        "alerts: write {}: {error}; a restart would tell again what was told",
                        store.path().display()
                    );
                }
                is_failing = true;
                SAVE_AGAIN
            }
        };
        pause_unless_last(shared, pause);
    }
}

/// Waits, but not for a process that ends.
fn pause_unless_last(shared: &Shared, pause: Duration) {
    let until = Instant::now() + pause;
    let mut state = shared.lock();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || state.last_call.is_some() {
            return;
        }
        state = shared.wait(state, left);
    }
}

fn save(shared: &Shared, store: &Store) -> std::io::Result<()> {
    let state = shared.lock();
    let queues = state.lanes.iter().map(|(name, lane)| (name.as_str(), &lane.queue));
    let bytes = store::bytes(&state.rules, queues)?;
    drop(state);
    store.write(&bytes)
}
