//! A recording -> the report of its session.

use std::io::{self, BufRead};

use thiserror::Error;

use super::{
    FORMAT, Line, VERSION,
    blocks::{Block, Blocks, Position, Unreadable},
};
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

/// Makes the report of a recorded session again. Of a recording without an end: with the sockets and the facts of its last
/// census, and a blind spot that says so.
///
/// # Errors
/// The recording is not one, or damaged, or cut off before anything can be said.
pub fn replay(recording: impl BufRead) -> Result<Report, ReplayError> {
    let mut blocks = Blocks::of(recording);
    let mut session = None;
    loop {
        match blocks.next() {
            Ok(Some(block)) => {
                if let Some(report) = take_in(&mut session, &block)? {
                    return Ok(report);
                }
            }
            Ok(None) | Err(Unreadable::CutOff) => return session.ok_or(ReplayError::CutOff)?.cut_off(),
            Err(Unreadable::Damaged { at, source }) => return Err(ReplayError::Damaged { at, source }),
        }
    }
}

/// Takes in the lines of a block. The report, if the end is among them.
fn take_in(session: &mut Option<Replayed>, block: &Block) -> Result<Option<Report>, ReplayError> {
    for (number, text) in block.text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let at = Position { line: block.at.line + number, ..block.at };
        let line = serde_json::from_slice(text).map_err(|source| ReplayError::Malformed { at, source })?;
        match (line, session.as_mut()) {
            (Line::Header { format, version: VERSION, started }, None) if format == FORMAT => {
                let state = State::new(started, Limits::default());
                *session = Some(Replayed { state, census: None, facts: None });
            }
            (Line::Header { format, version, .. }, None) if format == FORMAT => {
                return Err(ReplayError::OtherVersion(version));
            }
            (Line::Input(input), Some(session)) => session.take_in(input.into_owned()),
            (Line::Facts(facts), Some(session)) => session.facts = Some(facts.into_owned()),
            (Line::End { census, facts }, Some(session)) => return Ok(Some(build(&session.state, &census, &facts))),
            _ => return Err(ReplayError::NoHeader),
        }
    }
    Ok(None)
}

/// What was read so far.
struct Replayed {
    state: State,
    /// The last one
    census: Option<Census>,
    facts: Option<SessionFacts>,
}

impl Replayed {
    fn take_in(&mut self, input: Input) {
        if let Input::Begin { census, .. } | Input::Census(census) = &input {
            self.census = Some(census.clone());
        }
        self.state.feed(input);
    }

    fn cut_off(self) -> Result<Report, ReplayError> {
        let (Some(census), Some(mut facts)) = (self.census, self.facts) else { return Err(ReplayError::CutOff) };
        facts.interrupted = true;
        facts.blind_spots.push(
            "the recording is cut off: sockets, and what was lost, are those of the last time it looked at the host"
                .to_owned(),
        );
        Ok(build(&self.state, &census, &facts))
    }
}
