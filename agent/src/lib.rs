//! firstfin: which process is behind TIME_WAIT, a refused bind(), an exhausted port range.
//!
//! The way of the data, which is also the order of the modules:
//!
//! ```text
//! kernel    what touches the running kernel: host facts, plan, loader, ring buffer, sock_diag, /proc
//! decode    bytes of the ring buffer -> model::Event
//! rules     what the kernel allows: may this socket have that port, given those that are there (pure)
//! ports     a census and rates -> how long ephemeral ports last (pure)
//! state     events and censuses -> who owns what (pure)
//! course    state and what comes -> the course of a session: what a report does not keep (pure)
//! report    state -> the report of a session (pure)
//! analysis  report -> findings (pure)
//! why       who has a port now -> what bind() would say (pure)
//! what_if   a recording -> what a change would have made of it (pure)
//! metrics   reports -> counters that never fall, in the formats of Prometheus (pure)
//! history   reports -> minutes in a database -> answers about the past
//! output    report, events, answers -> text, JSON
//! alert     findings that last -> on-call
//! config    the configuration of the daemon
//! session   runs them: the only place with a clock and an event loop
//! http      the daemon's endpoint
//! serve     the daemon: rounds, outputs, signals
//! top       the live view: what it knows and draws (pure), its terminal
//! commands  one file a subcommand: wiring
//! ```
//!
//! `model` holds the words all of them share. `decode`, `rules`, `ports`, `state`, `course`, `report`, `analysis`,
//! `what_if` and `why` know neither clock nor I/O: the same input gives the same output, which is what recordings, golden
//! tests and property tests stand on.

pub mod alert;
pub mod analysis;
pub mod cli;
pub mod commands;
pub mod config;
pub mod course;
pub mod decode;
mod hash;
pub mod history;
pub mod http;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod output;
pub mod ports;
pub mod recording;
pub mod report;
pub mod rules;
pub mod serve;
pub mod session;
pub mod state;
pub mod top;
pub mod what_if;
pub mod why;
