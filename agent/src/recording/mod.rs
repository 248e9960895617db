//! A session on disk: everything its state took in, so that the same report can be made again, elsewhere and without
//! privileges.
//!
//! Zstandard frames one after the other, each a block of whole lines with a checksum; so `zstdcat` shows what is in a
//! recording, and what that shows can be replayed, too. The lines are JSON, one [`Line`] each: a header, the inputs in
//! order, after each census the facts a report would have had then, and the end. Blocks are only ever appended: what a session
//! that was killed leaves lacks the last one. Unknown versions are refused; unknown fields of this version are ignored.

mod blocks;
mod lines;
mod redact;
mod replay;
mod writer;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use self::{
    redact::{RedactError, TooMany, redact},
    replay::{Played, Player, ReplayError, play, replay},
    writer::{Destination, Writer},
};
use crate::{
    model::{Census, Timestamp},
    report::SessionFacts,
    state::Input,
};

/// First line's `format`.
pub const FORMAT: &str = "firstfin.recording";
/// Version this agent writes and reads.
pub const VERSION: u32 = 1;

/// One line of a recording: borrowed when it is written, owned when it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'line> {
    /// The first line
    Header {
        /// [`FORMAT`]
        format: Cow<'line, str>,
        /// [`VERSION`]
        version: u32,
        /// When the session began
        started: Timestamp,
    },
    /// Something the state took in
    Input(Cow<'line, Input>),
    /// The rest of a report, had the session ended here, with the census before it
    Facts(Cow<'line, SessionFacts>),
    /// The last line
    End {
        /// What was there at the end
        census: Cow<'line, Census>,
        /// The rest of the report
        facts: Cow<'line, SessionFacts>,
    },
}
