//! What leaves the program: the report as text, as JSON and as a page, events as lines of either.
//!
//! Everything here but [`write_stdout`], [`NewFile`] and the two functions that look at the terminal is pure: a report in, a string
//! out. What it says comes from the report alone. Text that came from outside was made safe to print where it entered
//! (`model::Name`), so nothing is escaped here a second time.

mod clock;
pub mod csv;
mod file;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod html;
pub mod json;
pub mod lines;
pub mod text;
pub(crate) mod words;

use std::io::{self, IsTerminal as _, Write as _};

use clap::ColorChoice;

pub use self::{clock::Clock, file::NewFile};

/// Why output ended.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read standard output has gone, as `head` does: the end of the work, but not a failure.
    #[error("standard output was closed by its reader")]
    ReaderGone,
    /// Standard output takes no more, for example because the disk is full.
    #[error("write to standard output")]
    Write(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Write(error),
        }
    }
}

/// For callbacks that know no other error; [`is_reader_gone`] still sees what it was.
impl From<OutputError> for io::Error {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::ReaderGone => Self::new(io::ErrorKind::BrokenPipe, error),
            OutputError::Write(error) => error,
        }
    }
}

/// If what ended the work is that nobody reads its output any more, which is a success.
///
/// Another broken pipe, of a recording for example, is none: only standard output's counts.
#[must_use]
pub fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        // io::Error does not name what it wraps as its source.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let cause = wrapped.map_or_else(|| cause.downcast_ref(), |wrapped| wrapped.downcast_ref());
        matches!(cause, Some(OutputError::ReaderGone))
    })
}

/// Writes `text` to standard output, all of it, and lets go of what was held back.
///
/// # Errors
/// Those of write(2); that the reader has gone is told apart.
pub fn write_stdout(text: impl AsRef<[u8]>) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()?;
    Ok(())
}

/// If colours are wanted on standard output, by `--color`, NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM.
#[must_use]
pub fn is_coloured(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
    }
}

/// Columns of the terminal that is standard output; none if it is no terminal: then nothing must be wrapped, because
/// the next program reads lines.
#[must_use]
pub fn terminal_width() -> Option<u16> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    // A terminal that does not know its size (a serial console) says 0.
    let columns = rustix::termios::tcgetwinsize(&out).map_or(0, |size| size.ws_col);
    Some(if columns == 0 { 80 } else { columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        assert!(matches!(OutputError::from(io::Error::from(io::ErrorKind::BrokenPipe)), OutputError::ReaderGone));
        assert!(matches!(OutputError::from(io::Error::from(io::ErrorKind::StorageFull)), OutputError::Write(_)));
    }

    #[test]
    fn it_is_seen_through_whatever_is_around_it() {
        let gone = || OutputError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_reader_gone(&anyhow::Error::from(gone()).context("print the report")));
        assert!(is_reader_gone(&anyhow::Error::from(io::Error::from(gone())).context("observe")));
        let full = OutputError::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!is_reader_gone(&anyhow::Error::from(full)));
        assert!(!is_reader_gone(&anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("record")));
    }

    #[test]
    fn a_choice_of_colours_is_kept() {
        assert!(is_coloured(ColorChoice::Always));
        assert!(!is_coloured(ColorChoice::Never));
    }
}
