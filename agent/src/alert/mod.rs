//! Alerts to on-call, made of findings.
//!
//! ```text
//! config     what is asked for: `[alerts]` of the configuration (pure)
//! identity   what makes two findings the same problem (pure)
//! rules      findings of each round -> fired, worsened, repeated, resolved (pure)
//! message    an alert -> labels, annotations, and the body each kind of receiver takes (pure)
//! queue      what a receiver is still owed, newest state only (pure)
//! delivery   one thread a receiver: sends, waits, sends again
//! store      the state on disk: what fired and what is owed survives a restart
//! service    runs them: what the daemon holds
//! ```
//!
//! A finding is what is wrong now; an alert is the delivery of a finding that held long enough. The daemon hands in each
//! round's report and the time; nothing here reads a clock but the threads that deliver.

pub mod config;
mod delivery;
mod error;
pub mod identity;
pub mod message;
pub mod moment;
pub mod queue;
pub mod rules;
pub mod secret;
mod service;
mod store;

pub use config::Config;
pub use error::AlertsError;
pub use identity::{AlertId, Identity};
pub use moment::Moment;
pub use rules::Alert;
pub use service::{Alerts, ReceiverStats, Stats};
