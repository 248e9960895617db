//! The endpoint: what the daemon shows of itself over HTTP.
//!
//! It runs on a thread of its own, with an event loop of its own: whoever asks, and however slowly, the thread that reads
//! events is not held up. It is shown a [`Page`] after each round, and never anything that changes while it looks.

mod listener;
mod pages;
mod refusal;
mod server;

pub use self::{
    pages::{Config, Page, Shared},
    refusal::{CannotListen, listen},
    server::Server,
};
