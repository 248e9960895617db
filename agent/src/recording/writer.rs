//! Lines -> blocks.

use std::{
    borrow::Cow::Borrowed,
    io::{self, Write},
};

use super::{FORMAT, Line, VERSION, blocks::BLOCK, redact::Redactor};
use crate::{
    model::{Census, Timestamp},
    report::SessionFacts,
    state::Input,
};

/// The fastest of zstd's usual levels: less than an eighth is left of the lines as it is, and a connection should cost little.
const LEVEL: i32 = 1;

/// Where a recording goes, and with what in it.
pub struct Destination {
    /// What it is written to
    pub out: Box<dyn Write>,
    /// [Without](super::redact) the names and addresses
    pub is_redacted: bool,
}

/// Writes a recording.
pub struct Writer {
    out: Box<dyn Write>,
    compressor: zstd::bulk::Compressor<'static>,
    /// Lines that are not written yet
    block: Vec<u8>,
    /// Replaces names and addresses, where it is redacted
    redactor: Option<Redactor>,
}

impl Writer {
    /// Begins a recording.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(to: Destination, started: Timestamp) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        let redactor = to.is_redacted.then(Redactor::default);
        let mut writer = Self { out: to.out, compressor, block: Vec::new(), redactor };
        writer.line(Line::Header { format: Borrowed(FORMAT), version: VERSION, started })?;
        Ok(writer)
    }

    /// Writes down an input.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn input(&mut self, input: &Input) -> io::Result<()> {
        self.line(Line::Input(Borrowed(input)))
    }

    /// Writes down what a report would say of the session if it ended now. What comes after the last of these is all that
    /// a recording without an end can lack.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn facts(&mut self, facts: &SessionFacts) -> io::Result<()> {
        self.line(Line::Facts(Borrowed(facts)))
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(mut self, census: &Census, facts: &SessionFacts) -> io::Result<()> {
        self.line(Line::End { census: Borrowed(census), facts: Borrowed(facts) })?;
        self.settle()
    }

    /// Writes the block out that was begun, if one was: what is in it can be replayed whatever comes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let frame = self.compressor.compress(&self.block)?;
        self.block.clear();
        self.out.write_all(&frame)?;
        self.out.flush()
    }

    pub(super) fn line(&mut self, mut line: Line<'_>) -> io::Result<()> {
        if let Some(redactor) = &mut self.redactor {
            redactor.line(&mut line).map_err(io::Error::other)?;
        }
        serde_json::to_writer(&mut self.block, &line).map_err(io::Error::from)?;
        self.block.push(b'\n');
        if self.block.len() >= BLOCK { self.settle() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let facts = SessionFacts { malformed: 3, ..SessionFacts::default() };
        let census = Census::default();
        for line in [
            Line::Header { format: Borrowed(FORMAT), version: VERSION, started: Timestamp(7) },
            Line::Facts(Borrowed(&facts)),
            Line::End { census: Borrowed(&census), facts: Borrowed(&facts) },
            Line::Input(Borrowed(&Input::Census(census.clone()))),
        ] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line<'_>>(&text).unwrap(), line, "{text}");
        }
    }
}
