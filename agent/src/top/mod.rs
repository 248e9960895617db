//! The live view, `firstfin top`.
//!
//! [`snapshot`] says what is shown, from state and report; [`model`] remembers the last minutes of it; [`app`] takes keys and
//! snapshots in, and [`screens`] draw what came of them. All of that is pure: no clock, no terminal. [`terminal`] has the
//! screen and the keyboard, [`source`] a running session or a recording, and [`watch`] runs one against the other.

pub mod app;
mod filter;
pub mod keys;
pub mod model;
pub mod screens;
mod series;
pub mod snapshot;
mod sort;
pub mod source;
pub mod terminal;
pub mod watch;
