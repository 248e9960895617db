//! The metrics of `firstfin serve`.
//!
//! ```text
//! catalogue  every metric there is
//! labels     which processes are one group (pure)
//! totals     reports of windows -> counters that never fall, bounded (pure)
//! families   totals -> what is exposed, as a value that nobody changes any more (pure)
//! text       families -> OpenMetrics, or the older text format (pure)
//! ```

pub mod catalogue;
mod families;
mod labels;
mod outputs;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod tests;
mod text;
mod totals;

pub use self::{
    families::{Families, Series, Value},
    labels::{Group, OTHER, ProcessLabel},
    outputs::{AlertStats, HistoryStats, OutputStats, ReceiverStats},
    text::{Format, encode},
    totals::{Round, SelfStats, Settings, Totals},
};
