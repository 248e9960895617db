//! `firstfin what-if`: its options.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    Format,
    values::{port_range, program, seconds},
};
use crate::what_if::{Changes, Who};

const EXIT_STATUS_WHAT_IF: &str = "\
Exit status:
  0  done
  2  could not run: bad usage, a file that cannot be read or is no recording, no process as --process wants it

Without a change it prints today's figures, and how far they are what the recording counted.";

/// `firstfin what-if`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_STATUS_WHAT_IF)]
pub struct WhatIf {
    /// The recording, as `firstfin record` wrote it; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// A pool: at most N connections of a process to a destination at once, which stay open; requests queue for one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub pool: Option<u32>,

    /// A connection that has been idle for less than this is used again: 5, 0.5, 30s, 2m
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub keep_alive: Option<Duration>,

    /// Another net.ipv4.ip_local_port_range: 10240-65535
    #[arg(long, value_name = "LOW-HIGH", value_parser = port_range)]
    pub port_range: Option<(u16, u16)>,

    /// Another net.ipv4.tcp_tw_reuse: 0 never, 1 always, 2 on loopback only
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub tw_reuse: Option<u8>,

    /// Connections are made from N local addresses in turn
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub local_addresses: Option<u16>,

    /// Each destination has N addresses, used in turn
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub remote_addresses: Option<u16>,

    /// The client closes first where the server does now: TIME_WAIT moves to the client
    #[arg(long)]
    pub client_closes_first: bool,

    /// Whoever closes first does so with SO_LINGER on and a time of zero: no TIME_WAIT, and data may be lost
    #[arg(long)]
    pub linger0: bool,

    /// Only connections of this process: its id, or its name
    ///
    /// A connection counts if either end is the process's. The port range and tcp_tw_reuse are for everybody all the same.
    #[arg(long, value_name = "PID|NAME", value_parser = program)]
    pub process: Option<Who>,

    /// Try each remedy by itself, and rank them by their effect
    ///
    /// Those that are given, too, have the values given.
    #[arg(long)]
    pub all: bool,

    /// Form of the output; JSON is "firstfin.what-if/1"
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

impl WhatIf {
    /// What is to be different.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes {
            pool: self.pool,
            keep_alive: self.keep_alive,
            port_range: self.port_range,
            tw_reuse: self.tw_reuse,
            local_addresses: self.local_addresses,
            remote_addresses: self.remote_addresses,
            client_closes_first: self.client_closes_first,
            linger0: self.linger0,
            process: self.process.clone(),
        }
    }
}
