//! Blocks -> text, with where it stands in the file.

use std::{
    fmt,
    io::{self, BufRead, Read as _},
};

/// Bytes of lines in a block, about: it ends with the line that fills it.
pub(super) const BLOCK: usize = 1 << 20;
/// The longest block that is read. The longest line is a census of a large host: a million sockets, 250 bytes each.
const MAX_BLOCK: u64 = 1 << 29;
/// How a Zstandard frame begins (RFC 8878, 3.1.1), little endian.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Text of a recording: a block, or a line of one that is not compressed.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) text: Vec<u8>,
    pub(super) at: Position,
}

/// Where a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Where the block begins, in bytes; none if the recording is not compressed
    pub block: Option<u64>,
    /// Which line of it, counted from 1
    pub line: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        match self.block {
            Some(block) => write!(f, " of the block at byte {block}"),
            None => Ok(()),
        }
    }
}

/// Why there is no further block.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The input gave an error, or the block is none
    Damaged { at: u64, source: io::Error },
    /// The input ends within the block
    CutOff,
}

/// The blocks of a recording.
pub(super) struct Blocks<R> {
    input: Counting<R>,
    /// Lines so far, of one that is not compressed
    lines: usize,
}

impl<R: BufRead> Blocks<R> {
    pub(super) const fn of(input: R) -> Self {
        Self { input: Counting { input, count: 0 }, lines: 0 }
    }

    /// The next block. None after the last one.
    pub(super) fn next(&mut self) -> Result<Option<Block>, Unreadable> {
        let at = self.input.count;
        let damaged = |source| Unreadable::Damaged { at, source };
        let begin = self.input.fill_buf().map_err(damaged)?;
        if begin.is_empty() {
            return Ok(None);
        }
        // JSON begins with a brace, and a frame that was cut off within its magic number as that does.
        if MAGIC.first() == begin.first() { self.frame(at).map(Some) } else { self.line(at).map(Some) }
    }

    fn frame(&mut self, at: u64) -> Result<Block, Unreadable> {
        let damaged = |source| Unreadable::Damaged { at, source };
        let mut text = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(&mut self.input).map_err(damaged)?;
        match decoder.single_frame().take(MAX_BLOCK).read_to_end(&mut text) {
            Ok(length) if length as u64 == MAX_BLOCK => {
                Err(damaged(io::Error::other(format!("the block is longer than {MAX_BLOCK} bytes"))))
            }
            Ok(_) => Ok(Block { text, at: Position { block: Some(at), line: 1 } }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Unreadable::CutOff),
            Err(error) => Err(damaged(error)),
        }
    }

    fn line(&mut self, at: u64) -> Result<Block, Unreadable> {
        let damaged = |source| Unreadable::Damaged { at, source };
        let mut text = Vec::new();
        (&mut self.input).take(MAX_BLOCK).read_until(b'\n', &mut text).map_err(damaged)?;
        self.lines += 1;
        if text.last() == Some(&b'\n') {
            Ok(Block { text, at: Position { block: None, line: self.lines } })
        } else {
            Err(Unreadable::CutOff)
        }
    }
}

/// Counts what is read.
struct Counting<R> {
    input: R,
    count: u64,
}

impl<R: BufRead> io::Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.count += length as u64;
    }
}
