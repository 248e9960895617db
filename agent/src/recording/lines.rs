//! Text -> lines, with where each of them stands.

use std::io::BufRead;

use super::{
    FORMAT, Line, ReplayError, VERSION,
    blocks::{Block, Blocks, Position, Unreadable},
};

/// The lines of a recording, one after the other. The first one is a header of this version, and no other one is.
pub(super) struct Lines<R> {
    blocks: Blocks<R>,
    /// The block that is being read, and how many bytes and lines of it were
    block: Option<(Block, usize, usize)>,
    has_begun: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn of(recording: R) -> Self {
        Self { blocks: Blocks::of(recording), block: None, has_begun: false }
    }

    /// The next line. None after the last one, and where the recording is cut off.
    ///
    /// # Errors
    /// It is not a recording, or damaged.
    pub(super) fn next(&mut self) -> Result<Option<Line<'static>>, ReplayError> {
        loop {
            if let Some(line) = self.of_block()? {
                let (is_ours, version) = match &line {
                    Line::Header { format, version, .. } => (format == FORMAT, Some(*version)),
                    _ => (true, None),
                };
                // A second header is the beginning of something else.
                if !is_ours || version.is_some() == self.has_begun {
                    return Err(ReplayError::NoHeader);
                }
                if let Some(version) = version.filter(|version| *version != VERSION) {
                    return Err(ReplayError::OtherVersion(version));
                }
                self.has_begun = true;
                return Ok(Some(line));
            }
            match self.blocks.next() {
                Ok(Some(block)) => self.block = Some((block, 0, 0)),
                Ok(None) | Err(Unreadable::CutOff) => return Ok(None),
                Err(Unreadable::Damaged { at, source }) => return Err(ReplayError::Damaged { at, source }),
            }
        }
    }

    /// The next line of the block.
    fn of_block(&mut self) -> Result<Option<Line<'static>>, ReplayError> {
        let Some((block, bytes, lines)) = &mut self.block else { return Ok(None) };
        let rest = block.text.get(*bytes..).unwrap_or_default();
        let Some(text) = rest.split_inclusive(|byte| *byte == b'\n').next() else { return Ok(None) };
        let at = Position { line: block.at.line + *lines, ..block.at };
        *bytes += text.len();
        *lines += 1;
        serde_json::from_slice(text).map(Some).map_err(|source| ReplayError::Malformed { at, source })
    }
}
