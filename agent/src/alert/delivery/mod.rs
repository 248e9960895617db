//! One thread a receiver: sends what its queue says, waits, sends again.
//!
//! A receiver that does not answer costs nobody else anything. What failed is sent again after a wait that doubles, with a
//! random part (many hosts lose the same receiver at the same moment), or after what the receiver asks for.

mod http;
mod pace;
mod target;

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use self::pace::Pace;
pub(super) use self::target::Target;
use super::{
    moment::Moment,
    queue::{Batch, Next, Queue},
    rules::{Rules, Settings},
};

/// Nothing is waited for longer without a look: the wall clock, by which messages are due, may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What came of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver took it
    Delivered,
    /// It will never take this message, whatever comes: the message is at fault
    Refused(String),
    /// It could not take it now
    Later { reason: String, after: Option<Duration> },
    /// It will take nothing until somebody changes something: its certificate, its address, the key
    Misconfigured(String),
}

/// What is counted of a receiver since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Messages it took
    pub(super) sent: u64,
    /// Attempts that failed
    pub(super) failed: u64,
    /// Attempts after one that failed
    pub(super) retried: u64,
}

/// A receiver, as the rest of the process sees it.
pub(super) struct Lane {
    pub(super) queue: Queue,
    /// How to reach it; another one after a reload
    pub(super) target: Arc<Target>,
    pub(super) counters: Counters,
    /// Names its thread
    pub(super) thread: u64,
}

/// All there is to know, under one lock that nobody holds while it reads, writes or sends.
#[derive(Default)]
pub(super) struct State {
    pub(super) rules: Rules,
    pub(super) lanes: BTreeMap<String, Lane>,
    pub(super) settings: Option<Settings>,
    pub(super) max_queued: usize,
    /// Problems that were not followed: in the last round, and in all
    pub(super) overflowed: (usize, u64),
    /// Counts changes that have to be saved
    pub(super) changes: u64,
    /// Threads that deliver
    pub(super) running: usize,
    pub(super) next_thread: u64,
    /// The process ends: until then what is owed may be tried once more
    pub(super) last_call: Option<Instant>,
    /// Saving failed so often
    pub(super) failed_saves: u64,
}

/// The state, and the news that it changed.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(state: State) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left each of the values whole, if not what it was about to change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for news, at most so long.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>, longest: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn tell_all(&self) {
        self.changed.notify_all();
    }
}

/// The life of a receiver's thread.
pub(super) fn run(shared: &Shared, name: &str, thread: u64) {
    deliver(shared, name, thread);
    shared.lock().running -= 1;
    shared.tell_all();
}

fn deliver(shared: &Shared, name: &str, thread: u64) {
    let mut pace = Pace::default();
    let mut state = shared.lock();
    loop {
        let last_call = state.last_call;
        let Some(lane) = state.lanes.get_mut(name).filter(|lane| lane.thread == thread) else { return };
        let target = Arc::clone(&lane.target);
        pace.heed(&target);
        if last_call.is_some_and(|until| pace.has_failed_since_last_call() || Instant::now() >= until) {
            return;
        }
        if let Some(wait) = pace.wait().filter(|_| last_call.is_none()) {
            state = shared.wait(state, wait.min(LONGEST_SLEEP));
            continue;
        }
        let now = Moment(jiff::Timestamp::now());
        match lane.queue.next(now, target.style, &|alert| target.group_of(alert), last_call.is_some()) {
            Next::Send(batch) => {
                lane.counters.retried += u64::from(pace.is_retrying());
                drop(state);
                let left = last_call.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
                let outcome = target.send(&batch, now, target.timeout.min(left));
                state = shared.lock();
                let last_call = state.last_call.is_some();
                if let Some(lane) = state.lanes.get_mut(name).filter(|lane| lane.thread == thread) {
                    settle(lane, &target, &batch, outcome, &mut pace, last_call);
                }
                state.changes += 1;
                shared.tell_all();
            }
            Next::Wait(_) | Next::Idle if last_call.is_some() => return,
            Next::Wait(at) => state = shared.wait(state, at.since(now).clamp(Duration::from_millis(1), LONGEST_SLEEP)),
            Next::Idle => state = shared.wait(state, LONGEST_SLEEP),
        }
    }
}

/// Takes in what came of sending.
fn settle(lane: &mut Lane, target: &Target, batch: &Batch, outcome: Outcome, pace: &mut Pace, last_call: bool) {
    let name = &target.name;
    match outcome {
        Outcome::Delivered => {
            lane.counters.sent += 1;
            // The answer is of now, not of when the message was made.
            lane.queue.delivered(batch, Moment(jiff::Timestamp::now()), target.style);
            if let Some((attempts, since)) = pace.succeed() {
                log::warn!("alerts: {name} answers again, after {attempts} attempts in {:.0} s", since.as_secs_f64());
            }
        }
        Outcome::Refused(reason) => {
            lane.counters.failed += 1;
            pace.succeed();
            let dropped = lane.queue.refused(batch);
            let about = batch.steps.first().map(|step| step.alert.finding.summary.as_str()).unwrap_or_default();
            match dropped {
                0 => log::warn!(
                    "alerts: {name} refuses a message of {} alerts, each goes alone: {reason}",
                    batch.steps.len()
                ),
                _ => log::error!("alerts: {name} refuses an alert, which is dropped ({about}): {reason}"),
            }
        }
        Outcome::Later { reason, after } => {
            lane.counters.failed += 1;
            if pace.fail(target, after, false, last_call) {
                log::warn!("alerts: {name}: {reason}; what it is owed is kept and sent again");
            } else {
                log::info!("alerts: {name}: {reason}");
            }
        }
        Outcome::Misconfigured(reason) => {
            lane.counters.failed += 1;
            if pace.fail(target, None, true, last_call) {
                log::error!(
                    "alerts: {name}: {reason}; it will take nothing until that is changed. What it is owed is kept, and \
                     tried again now and then"
                );
            } else {
                log::info!("alerts: {name}: {reason}");
            }
        }
    }
}
