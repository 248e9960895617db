//! A recording -> the report of its session.

use std::io::{self, BufRead};

use thiserror::Error;

use super::{Line, VERSION, blocks::Position, lines::Lines};
use crate::{
    model::Census,
    report::{Report, SessionFacts, build},
    state::{Input, Limits, State},
};

/// Why a recording could not be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// A block is none, does not have its checksum, or could not be read
    #[error("the block at byte {at} cannot be read")]
    Damaged {
        /// Where it begins, in bytes
        at: u64,
        /// Why
        #[source]
        source: io::Error,
    },
    /// A line is not one of a recording
    #[error("{at} is not a line of a firstfin recording")]
    Malformed {
        /// Which line
        at: Position,
        /// Why
        #[source]
        source: serde_json::Error,
    },
    /// The first line is not a header, or there is a second one
    #[error("this is not a recording of firstfin: it does not begin with a header")]
    NoHeader,
    /// It was made by another version
    #[error("this is a recording of version {0}, and this firstfin reads version {VERSION}")]
    OtherVersion(u32),
    /// It ends before there is anything to report on
    #[error("the recording is cut off before its first look at the host was written")]
    CutOff,
}

/// Makes the report of a recorded session again: [`play`] with nobody who listens.
///
/// # Errors
/// Those of [`play`].
pub fn replay(recording: impl BufRead) -> Result<Report, ReplayError> {
    Ok(play(recording, &mut |_, _| {})?.report())
}

/// Plays a recording to its end. `listener` is told of each input, and of the state before it is taken in: at the time of
/// an event, that is what was known then. Of a recording without an end: the sockets and the facts are those of its last
/// census, and a blind spot says so.
///
/// # Errors
/// The recording is not one, or damaged, or cut off before anything can be said.
pub fn play(recording: impl BufRead, listener: &mut dyn FnMut(&State, &Input)) -> Result<Played, ReplayError> {
    let mut player = Player::of(recording);
    while player.step(listener)? {}
    player.played()
}

/// Plays a recording line by line, as far as is asked for.
pub struct Player<R> {
    lines: Lines<R>,
    session: Option<Replayed>,
    /// How it ended, once it has
    end: Option<End>,
}

/// How a recording ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    CutOff,
}

impl<R: BufRead> Player<R> {
    /// Nothing is read yet.
    pub const fn of(recording: R) -> Self {
        Self { lines: Lines::of(recording), session: None, end: None }
    }

    /// Takes in the next line, as [`play`] does. False where there is none: the recording has ended.
    ///
    /// # Errors
    /// Those of [`play`].
    pub fn step(&mut self, listener: &mut dyn FnMut(&State, &Input)) -> Result<bool, ReplayError> {
        if self.end.is_some() {
            return Ok(false);
        }
        let Some(line) = self.lines.next()? else {
            self.end = Some(End::CutOff);
            return Ok(false);
        };
        match (line, self.session.as_mut()) {
            (Line::Header { started, .. }, _) => {
                let state = State::new(started, Limits::default());
                self.session = Some(Replayed { state, census: None, facts: None });
            }
            (Line::Input(input), Some(session)) => session.take_in(input.into_owned(), listener),
            (Line::Facts(facts), Some(session)) => session.facts = Some(facts.into_owned()),
            (Line::End { census, facts }, Some(session)) => {
                session.census = Some(census.into_owned());
                session.facts = Some(facts.into_owned());
                self.end = Some(End::Whole);
            }
            (_, None) => return Err(ReplayError::NoHeader),
        }
        Ok(true)
    }

    /// What is known so far; none before the first line was taken in.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.session.as_ref().map(|session| &session.state)
    }

    /// The last look at every socket that was taken in.
    #[must_use]
    pub fn census(&self) -> Option<&Census> {
        self.session.as_ref()?.census.as_ref()
    }

    /// The rest of a report, as of the last time it was written down.
    #[must_use]
    pub fn facts(&self) -> Option<&SessionFacts> {
        self.session.as_ref()?.facts.as_ref()
    }

    /// The recorded session as it is now; at the end of the recording, as [`play`] gives it.
    ///
    /// # Errors
    /// Nothing can be said yet.
    pub fn played(self) -> Result<Played, ReplayError> {
        let session = self.session.ok_or(ReplayError::CutOff)?;
        let (Some(census), Some(mut facts)) = (session.census, session.facts) else { return Err(ReplayError::CutOff) };
        if self.end != Some(End::Whole) {
            facts.interrupted = true;
            facts.blind_spots.push(
                "the recording is cut off: sockets, and what was lost, are those of the last time it looked at the host"
                    .to_owned(),
            );
        }
        Ok(Played { state: session.state, census, facts })
    }
}

/// A recorded session as it was at its end.
#[derive(Debug)]
pub struct Played {
    /// What was known
    pub state: State,
    /// The sockets that were there
    pub census: Census,
    /// The rest of the report
    pub facts: SessionFacts,
}

impl Played {
    /// The report of the session.
    #[must_use]
    pub fn report(&self) -> Report {
        build(&self.state, &self.census, &self.facts)
    }
}

/// What was read so far.
struct Replayed {
    state: State,
    /// The last one
    census: Option<Census>,
    facts: Option<SessionFacts>,
}

impl Replayed {
    fn take_in(&mut self, input: Input, listener: &mut dyn FnMut(&State, &Input)) {
        listener(&self.state, &input);
        if let Input::Begin { census, .. } | Input::Census(census) = &input {
            self.census = Some(census.clone());
        }
        self.state.feed(input);
    }
}
