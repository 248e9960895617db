//! What a row of the matrix is made of.

use firstfin::{
    kernel::plan::Observed,
    model::{Call, SocketOptions},
    report::HolderKind,
};
use libtest_mimic::Failed;

use crate::{
    actor::{Protocol, SocketOption},
    rung,
};

/// What is there, and who wants its port.
pub(super) type Row = (There, Wants);

/// A socket of the process that holds the port.
#[derive(Clone, Copy, Debug)]
pub(super) struct There {
    pub(super) kind: Kind,
    pub(super) claim: Claim,
    /// Another process listens at the same port of another address
    pub(super) has_neighbour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Listening,
    Bound,
    /// A connection it served, from a listener like this; the process is gone
    TimeWaitOfServer,
    /// A connection it made from this address, the port being the kernel's choice
    Client,
    /// The same, closed
    TimeWaitOfClient,
}

/// A socket, and the address it is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) address: &'static str,
    pub(super) options: &'static [SocketOption],
    pub(super) protocol: Protocol,
}

/// A call, and what comes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// A socket that wants to listen was bound before the other one listened
    pub(super) call: Call,
    pub(super) claim: Claim,
    pub(super) by_another_user: bool,
    pub(super) through_io_uring: bool,
    pub(super) is_granted: bool,
}

const fn claim(address: &'static str, options: &'static [SocketOption]) -> Claim {
    Claim { address, options, protocol: Protocol::Tcp }
}

const fn there(kind: Kind, claim: Claim) -> There {
    There { kind, claim, has_neighbour: false }
}

/// A listener.
pub(super) const fn listening(address: &'static str, options: &'static [SocketOption]) -> There {
    there(Kind::Listening, claim(address, options))
}

/// A socket that is bound and nothing else.
pub(super) const fn bound(address: &'static str, options: &'static [SocketOption]) -> There {
    there(Kind::Bound, claim(address, options))
}

/// What a server has left that closed first and is gone.
pub(super) const fn time_wait(address: &'static str, options: &'static [SocketOption]) -> There {
    there(Kind::TimeWaitOfServer, claim(address, options))
}

/// A client's connection, from a port of the kernel's choice.
pub(super) const fn client(address: &'static str) -> There {
    there(Kind::Client, claim(address, &[]))
}

/// What a client has left that closed first.
pub(super) const fn client_in_time_wait(address: &'static str) -> There {
    there(Kind::TimeWaitOfClient, claim(address, &[]))
}

/// bind() to the port that is held.
pub(super) const fn bind(address: &'static str, options: &'static [SocketOption]) -> Wants {
    let claim = claim(address, options);
    Wants { call: Call::Bind, claim, by_another_user: false, through_io_uring: false, is_granted: false }
}

/// listen() of a socket that could be bound, because nothing listened then.
pub(super) const fn listen(address: &'static str, options: &'static [SocketOption]) -> Wants {
    Wants { call: Call::Listen, ..bind(address, options) }
}

impl There {
    /// Another protocol than TCP.
    pub(super) const fn over(self, protocol: Protocol) -> Self {
        Self { claim: Claim { protocol, ..self.claim }, ..self }
    }

    /// Somebody else has the port at another address, which is in nobody's way.
    pub(super) const fn with_a_neighbour(self) -> Self {
        Self { has_neighbour: true, ..self }
    }

    /// As what it is to be named.
    pub(super) const fn holder_kind(&self) -> HolderKind {
        match self.kind {
            Kind::Listening => HolderKind::Listener,
            Kind::Bound => HolderKind::Bound,
            Kind::Client => HolderKind::Connection,
            Kind::TimeWaitOfServer | Kind::TimeWaitOfClient => HolderKind::TimeWait,
        }
    }
}

impl Wants {
    pub(super) const fn by_another_user(self) -> Self {
        Self { by_another_user: true, ..self }
    }

    pub(super) const fn through_io_uring(self) -> Self {
        Self { through_io_uring: true, ..self }
    }

    /// Another protocol than TCP.
    pub(super) const fn over(self, protocol: Protocol) -> Self {
        Self { claim: Claim { protocol, ..self.claim }, ..self }
    }

    pub(super) const fn granted(self) -> Self {
        Self { is_granted: true, ..self }
    }

    pub(super) const fn refused(self) -> Self {
        Self { is_granted: false, ..self }
    }

    /// Whether its failure is to be reported, on the rung the tests run on.
    pub(super) fn is_reported(&self) -> Result<bool, Failed> {
        let is_plain_call = !self.through_io_uring && self.claim.protocol == Protocol::Tcp;
        Ok(!self.is_granted && (is_plain_call || rung::is_upper(Observed::PortConflicts)?))
    }
}

impl Claim {
    /// Its options as they are to be reported.
    pub(super) fn reported_options(&self) -> SocketOptions {
        let mut all = SocketOptions::default();
        for option in self.options {
            match option {
                SocketOption::ReuseAddress(value) => all.reuse_address = *value,
                SocketOption::ReusePort(value) => all.reuse_port = *value,
                SocketOption::V6Only(value) => all.v6_only = *value,
                _ => {}
            }
        }
        all
    }
}
