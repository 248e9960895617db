//! What a view looks at: a running session, or a recording.

use std::{collections::HashSet, future::Future, io::BufRead, time::Duration};

use super::{
    snapshot::{Look, Tick},
    watch::TICK,
};
use crate::{
    kernel::census::boottime,
    model::{ProcessKey, Timestamp},
    recording::{Player, ReplayError},
    report::{SessionFacts, build},
    session::{Session, Unheard},
    state::{Input, State},
};

/// Where snapshots come from.
#[expect(async_fn_in_trait, reason = "one thread runs it")]
pub trait Source {
    /// When the session began.
    fn began(&self) -> Timestamp;

    /// Goes on observing until `until` is done.
    ///
    /// # Errors
    /// The session has failed.
    async fn observe<F: Future>(&mut self, until: F) -> anyhow::Result<F::Output>;

    /// Goes on by one tick, where time is not the clock's. Whether there is no more to come.
    ///
    /// # Errors
    /// What there is to come cannot be read.
    fn advance(&mut self) -> anyhow::Result<bool>;

    /// What the events say now.
    fn tick(&self) -> Tick;

    /// A look at every socket; none if there is nothing new.
    ///
    /// # Errors
    /// The session has failed.
    async fn look(&mut self) -> anyhow::Result<Option<Look>>;
}

/// A session that observes.
pub struct Live {
    session: Session,
}

impl Live {
    /// Of a session that has begun.
    #[must_use]
    pub const fn of(session: Session) -> Self {
        Self { session }
    }

    /// Ends the session, and its recording.
    ///
    /// # Errors
    /// Those of [`Session::finish`].
    pub async fn end(self) -> anyhow::Result<()> {
        self.session.finish(false).await.map(|_| ())
    }
}

impl Source for Live {
    fn began(&self) -> Timestamp {
        self.session.started().1
    }

    async fn observe<F: Future>(&mut self, until: F) -> anyhow::Result<F::Output> {
        self.session.observe(until, &mut Unheard).await
    }

    fn advance(&mut self) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn tick(&self) -> Tick {
        Tick::of(self.session.state(), boottime())
    }

    async fn look(&mut self) -> anyhow::Result<Option<Look>> {
        let (census, facts) = self.session.look().await?;
        Ok(Some(Look::of(self.session.state(), &census, &facts, boottime())))
    }
}

/// A recording that is played.
pub struct Recorded<R> {
    player: Player<R>,
    began: Timestamp,
    /// The time that it is in the recording
    now: Timestamp,
    /// The time that was reached by what was read of it
    reached: Timestamp,
    speed: u16,
    is_over: bool,
    looked: Option<Looked>,
    /// There is one that was not shown
    is_new: bool,
}

/// The last look at every socket that was taken in.
struct Looked {
    look: Look,
    /// When what does not need one was brought up to date
    refreshed: Timestamp,
    /// Processes of which it was known then whether they run
    known: HashSet<ProcessKey>,
}

/// How often what does not need a look at every socket is brought up to date.
const REFRESH: Duration = Duration::from_secs(1);

impl<R: BufRead> Recorded<R> {
    /// Of a recording that nothing was played of yet, to be played `speed` times as fast as it happened.
    ///
    /// # Errors
    /// It is not one.
    pub fn open(mut player: Player<R>, speed: u16) -> Result<Self, ReplayError> {
        player.step(&mut |_, _| {})?;
        let began = player.state().map(State::started).ok_or(ReplayError::CutOff)?;
        let (now, reached) = (began, began);
        Ok(Self { player, began, now, reached, speed, is_over: false, looked: None, is_new: false })
    }

    /// Plays on until `until`, or to the end. Whether that has come.
    ///
    /// # Errors
    /// It is damaged.
    pub fn play_until(&mut self, until: Timestamp) -> Result<bool, ReplayError> {
        while !self.is_over && self.reached < until {
            let is_taken = self.step()?;
            let census = self.player.census().map(|census| census.at);
            if is_taken && census != self.looked.as_ref().map(|looked| looked.look.at) {
                // The facts of a census are in the line behind it.
                self.step()?;
                self.look_now();
            }
        }
        // At the end, its last moment stays.
        self.now = if self.is_over { self.reached } else { until };
        if self.looked.as_ref().is_some_and(|looked| self.now.since(looked.refreshed) >= REFRESH) {
            self.refresh();
        }
        Ok(self.is_over)
    }

    fn step(&mut self) -> Result<bool, ReplayError> {
        let reached = &mut self.reached;
        let mut note = |_: &State, input: &Input| *reached = input.at().map_or(*reached, |at| at.max(*reached));
        let is_taken = self.player.step(&mut note)?;
        self.is_over |= !is_taken;
        if let Some(census) = self.player.census() {
            self.reached = self.reached.max(census.at);
        }
        Ok(is_taken)
    }

    fn look_now(&mut self) {
        let Some((state, census)) = self.player.state().zip(self.player.census()) else { return };
        let known = state.mentioned();
        // Before the first facts it is not told who has ended.
        let facts = self.player.facts().cloned();
        let facts = facts.unwrap_or_else(|| SessionFacts { alive: known.clone(), ..SessionFacts::default() });
        let look = Look::of(state, census, &facts, self.reached);
        self.looked = Some(Looked { look, refreshed: self.reached, known });
        self.is_new = true;
    }

    /// Brings up to date what the events tell. The sockets stay those of the last look at them.
    fn refresh(&mut self) {
        let Some((state, census)) = self.player.state().zip(self.player.census()) else { return };
        let Some(looked) = &mut self.looked else { return };
        if self.is_over {
            return;
        }
        let mentioned = state.mentioned();
        let newer = mentioned.difference(&looked.known).copied();
        let mut facts = self.player.facts().cloned().unwrap_or_default();
        facts.alive.extend(looked.known.iter().filter(|key| !looked.look.gone.contains(key)).copied().chain(newer));
        facts.duration = self.now.since(self.began);
        looked.refreshed = self.now;
        looked.look.refresh(build(state, census, &facts));
        self.is_new = true;
    }

    /// The look at every socket that was not asked for yet.
    pub fn new_look(&mut self) -> Option<Look> {
        let is_new = std::mem::take(&mut self.is_new);
        self.looked.as_ref().filter(|_| is_new).map(|looked| looked.look.clone())
    }

    /// What the events say now.
    #[must_use]
    pub fn new_tick(&self) -> Tick {
        self.player.state().map_or_else(Tick::default, |state| Tick::of(state, self.now))
    }
}

impl<R: BufRead> Source for Recorded<R> {
    fn began(&self) -> Timestamp {
        self.began
    }

    async fn observe<F: Future>(&mut self, until: F) -> anyhow::Result<F::Output> {
        Ok(until.await)
    }

    fn advance(&mut self) -> anyhow::Result<bool> {
        Ok(self.play_until(self.now.plus(TICK * u32::from(self.speed)))?)
    }

    fn tick(&self) -> Tick {
        self.new_tick()
    }

    async fn look(&mut self) -> anyhow::Result<Option<Look>> {
        Ok(self.new_look())
    }
}
