//! A session on disk: everything its state took in, so that the same report can be made again, elsewhere and without
//! privileges.
//!
//! Zstandard frames one after the other, each a block of whole lines with a checksum; so `zstdcat` shows what is in a
//! recording, and what that shows can be replayed, too. The lines are JSON, one [`Line`] each: a header, the inputs in
//! order, after each census the facts a report would have had then, and the end. Blocks are only ever appended: one that
//! was cut off is all that is lost. Unknown versions are refused; unknown fields of this version are ignored.

mod blocks;
mod replay;
mod writer;

use serde::{Deserialize, Serialize};

pub use self::{
    replay::{ReplayError, replay},
    writer::Writer,
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
    /// The rest of a report, had the session ended here, with the census before it
    Facts(Box<SessionFacts>),
    /// The last line
    End {
        /// What was there at the end
        census: Census,
        /// The rest of the report
        facts: Box<SessionFacts>,
    },
}
