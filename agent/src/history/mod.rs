//! What was seen last night: minutes in a database, and the answers it gives.
//!
//! ```text
//! rollup     windows -> minutes, findings -> episodes (pure)
//! keeper     the daemon's handle: takes windows in, keeps minutes until they are written
//! writer     what its thread does with a minute
//! open       the database: made, looked through, put aside if damaged
//! store      minutes -> transactions; rows: what is in one; retention: which go; schema: the tables
//! reader     rows -> answers, while the daemon writes
//! ```
//!
//! It must never be what takes the daemon down, nor what fills a disk: a database that cannot be opened or written costs
//! minutes, in memory first and then counted as lost, and its size has a limit.

mod answer;
mod config;
mod keeper;
mod open;
mod query;
mod reader;
mod retention;
pub mod rollup;
mod rows;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use self::{
    answer::{
        Answer, At, ClockJump, DestinationSum, EpisodeState, FailureSum, Gap, HostSum, MinuteSum, OtherSum,
        PastFinding, PastHost, Period, ProcessSum, RouteSum, SCHEMA,
    },
    config::{Config, DEFAULT_PATH},
    keeper::{History, Stats, WAITING},
    open::StoreError,
    query::{Address, Filter, Question},
    reader::{DestinationRow, MinuteRow, ProcessRow, ReadError, Reader},
    store::{Boot, Store},
};
