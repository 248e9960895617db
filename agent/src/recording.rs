//! A session on disk: everything its state took in, so that the same report can be made again.
//!
//! JSON Lines, one [`Line`] each: a header, the inputs in order, and the end. A file that was cut off (no end) has no
//! report. Unknown versions are refused; unknown fields of this version are ignored.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    model::{Census, Timestamp},
    report::{Report, SessionFacts, build},
    state::{Input, Limits, State},
};

/// First line's `format`.
pub const FORMAT: &str = "firstfin.recording";
/// Version this agent writes and reads.
pub const VERSION: u32 = 1;

/// One line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line
    Header {
        /// [`FORMAT`]
        format: String,
        /// [`VERSION`]
        version: u32,
        /// When the session began
        started: Timestamp,
    },
    /// Something the state took in
    Input(Box<Input>),
    /// The last line
    End {
        /// What was there at the end
        census: Census,
        /// The rest of the report
        facts: Box<SessionFacts>,
    },
}

/// Why a recording could not be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The file could not be read
    #[error("read line {line}")]
    Read {
        /// Which line, counted from 1
        line: usize,
        /// Why
        #[source]
        source: io::Error,
    },
    /// A line is not one of a recording
    #[error("line {line} is not a line of a firstfin recording")]
    Malformed {
        /// Which line, counted from 1
        line: usize,
        /// Why
        #[source]
        source: serde_json::Error,
    },
    /// The first line is not the header of this version
    #[error("the first line is not the header of a firstfin recording of version {VERSION}")]
    NoHeader,
    /// There is no last line
    #[error("the recording is cut off: it has no end")]
    CutOff,
}

/// Writes a recording.
pub struct Writer {
    out: Box<dyn Write>,
}

impl Writer {
    /// Begins a recording.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn begin(out: Box<dyn Write>, started: Timestamp) -> io::Result<Self> {
        let mut writer = Self { out };
        writer.line(&Line::Header { format: FORMAT.to_owned(), version: VERSION, started })?;
        Ok(writer)
    }

    /// Writes down an input.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn input(&mut self, input: &Input) -> io::Result<()> {
        self.line(&Line::Input(Box::new(input.clone())))
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(mut self, census: &Census, facts: &SessionFacts) -> io::Result<()> {
        self.line(&Line::End { census: census.clone(), facts: Box::new(facts.clone()) })?;
        self.out.flush()
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }
}

/// Makes the report of a recorded session again.
///
/// # Errors
/// The recording is not one, or cut off.
pub fn replay(recording: impl BufRead) -> Result<Report, ReplayError> {
    let mut state = None;
    for (number, text) in recording.lines().enumerate() {
        let line = number + 1;
        let text = text.map_err(|source| ReplayError::Read { line, source })?;
        let parsed = serde_json::from_str(&text).map_err(|source| ReplayError::Malformed { line, source })?;
        match (parsed, &mut state) {
            (Line::Header { format, version: VERSION, started }, state @ None) if format == FORMAT => {
                *state = Some(State::new(started, Limits::default()));
            }
            (Line::Input(input), Some(state)) => state.feed(*input),
            (Line::End { census, facts }, Some(state)) => return Ok(build(state, &census, &facts)),
            _ => return Err(ReplayError::NoHeader),
        }
    }
    Err(if state.is_some() { ReplayError::CutOff } else { ReplayError::NoHeader })
}
