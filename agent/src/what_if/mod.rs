//! What a change would have made of a recorded session: fewer TIME_WAITs, ports that last, connect() calls that find one.
//! Pure: a recording in, an answer out.
//!
//! ```text
//! workload   recording -> the connections that were made, and those that were wanted
//! change     what is to be different
//! model      a workload and a change -> what the kernel would have done (ports, TIME_WAIT)
//! outcome    two runs of the model, side by side
//! rank       one run for each remedy, best first
//! ```
//!
//! Both columns of an answer come from the model, so what it gets wrong it gets wrong in both. How far it can be trusted is
//! in the answer, too: its run without a change next to what the recording itself counted. The JSON form of [`Answer`] is
//! `firstfin.what-if/1`, with the same promise as the report's.

mod change;
mod model;
mod outcome;
mod rank;
#[cfg(test)]
mod tests;
mod words;
pub mod workload;

pub use self::{
    change::{Changes, Who},
    outcome::{Answer, Check, Difference, Exhaustion, Figures, Pair, PortFigures, Recorded, Remedy, SCHEMA, answer},
};
