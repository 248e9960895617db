//! What is to be different.

use std::{fmt, time::Duration};

use super::workload::{Close, End, Exchange, Program};
use crate::model::Name;

/// Whose connections a change is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The process with this id
    Pid(u32),
    /// Processes with this name
    Comm(Name),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "process {pid}"),
            Self::Comm(comm) => comm.fmt(f),
        }
    }
}

impl Who {
    /// Whether this is one.
    #[must_use]
    pub fn is(&self, program: &Program) -> bool {
        match self {
            Self::Pid(pid) => program.key.tgid == *pid,
            Self::Comm(comm) => program.comm == *comm,
        }
    }
}

/// Changes, all of them at once. What is none leaves things as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Connections of a process to a destination at once, at most; they stay open
    pub pool: Option<u32>,
    /// How long a connection that is idle stays open, to be used again
    pub keep_alive: Option<Duration>,
    /// `net.ipv4.ip_local_port_range`, both ends inclusive
    pub port_range: Option<(u16, u16)>,
    /// `net.ipv4.tcp_tw_reuse`
    pub tw_reuse: Option<u8>,
    /// Local addresses that connections are made from, in turn
    pub local_addresses: Option<u16>,
    /// Addresses a destination has, in turn
    pub remote_addresses: Option<u16>,
    /// The client closes where the server does now
    pub client_closes_first: bool,
    /// Whoever closes first closes with SO_LINGER on and a time of zero
    pub linger0: bool,
    /// Whose connections; of settings of the kernel it says nothing
    pub process: Option<Who>,
}

impl Changes {
    /// Whether nothing is to be different.
    #[must_use]
    pub fn is_none(&self) -> bool {
        Self { process: None, ..self.clone() } == Self::default()
    }

    /// Whether connections are used for more than one request.
    #[must_use]
    pub(super) const fn reuses_connections(&self) -> bool {
        self.pool.is_some() || self.keep_alive.is_some()
    }

    /// Whether connect() has the same ports to choose from, and chooses as often.
    pub(super) fn keep_ports(&self) -> bool {
        let one = |count: Option<u16>| count.unwrap_or(1) == 1;
        self.port_range.is_none()
            && self.tw_reuse.is_none()
            && !self.reuses_connections()
            && one(self.local_addresses)
            && one(self.remote_addresses)
    }

    /// Whether a connection is one of those the changes are for: either end is the process's.
    pub(super) fn is_for(&self, exchange: &Exchange, programs: &[Program]) -> bool {
        let mut ends = exchange.client.iter().chain(&exchange.server);
        self.process.is_none() || ends.any(|end| self.is_end_for(end, programs))
    }

    fn is_end_for(&self, end: &End, programs: &[Program]) -> bool {
        let Some(who) = &self.process else { return true };
        end.program.and_then(|place| programs.get(place)).is_some_and(|program| who.is(program))
    }

    /// How both ends of a connection would be closed: the client's, the server's.
    pub(super) fn closes(&self, exchange: &Exchange, programs: &[Program]) -> (Option<Close>, Option<Close>) {
        let close = |end: &Option<End>| end.as_ref().map(|end| end.close);
        let (mut client, mut server) = (close(&exchange.client), close(&exchange.server));
        if self.client_closes_first && self.is_for(exchange, programs) {
            let is_server_first = match (client, server) {
                (Some(client), _) => client == Close::Second,
                (None, server) => matches!(server, Some(Close::First(_))),
            };
            if is_server_first {
                client = client.map(|_| Close::FIRST);
                server = server.map(|_| Close::Second);
            }
        }
        if self.linger0 {
            for (end, close) in [(&exchange.client, &mut client), (&exchange.server, &mut server)] {
                let is_its = end.as_ref().is_some_and(|end| self.is_end_for(end, programs));
                if is_its && matches!(close, Some(Close::First(_))) {
                    *close = Some(Close::Neither);
                }
            }
        }
        (client, server)
    }
}
