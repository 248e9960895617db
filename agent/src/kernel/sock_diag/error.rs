//! Why sockets could not be dumped, told apart by what can be done about it.

use std::{fmt, io};

use rustix::{io::Errno, net::AddressFamily};

use super::{ANSWER_TIMEOUT, ATTEMPTS};

/// An address family, as it is called in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`
    Ipv4,
    /// `AF_INET6`
    Ipv6,
}

impl Family {
    pub(super) fn number(self) -> u8 {
        let family = match self {
            Self::Ipv4 => AddressFamily::INET,
            Self::Ipv6 => AddressFamily::INET6,
        };
        u8::try_from(family.as_raw()).unwrap_or_default()
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// Why sockets could not be dumped.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// The kernel cannot do it
    #[error(
        "dump {family} TCP sockets: this kernel has no tcp_diag (INET_TCP_DIAG), or may not load it here; \
         `modprobe tcp_diag` on the host helps where it is a module"
    )]
    NotSupported {
        /// What was to be dumped
        family: Family,
        /// The kernel's answer
        #[source]
        source: io::Error,
    },
    /// The kernel would, but not for us
    #[error(
        "dump {family} TCP sockets: a seccomp profile, a service's RestrictAddressFamilies= or a security module \
         does not permit NETLINK_SOCK_DIAG here"
    )]
    NotPermitted {
        /// What was to be dumped
        family: Family,
        /// The kernel's answer
        #[source]
        source: io::Error,
    },
    /// The kernel does not answer
    #[error("dump {family} TCP sockets: no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut {
        /// What was to be dumped
        family: Family,
    },
    /// The tables changed during each attempt
    #[error("dump {family} TCP sockets: the kernel called {ATTEMPTS} dumps running inconsistent")]
    Inconsistent {
        /// What was to be dumped
        family: Family,
    },
    /// The answer is not what netlink should look like
    #[error("dump {family} TCP sockets: an answer that is not understood")]
    Malformed {
        /// What was to be dumped
        family: Family,
    },
    /// Anything else the kernel answers
    #[error("dump {family} TCP sockets")]
    Os {
        /// What was to be dumped
        family: Family,
        /// The kernel's answer
        #[source]
        source: io::Error,
    },
}

impl SockDiagError {
    pub(super) fn from_errno(family: Family, errno: Errno) -> Self {
        let source = errno.into();
        match errno {
            // ENOENT: no handler for the family or for TCP; EPROTONOSUPPORT: not even NETLINK_SOCK_DIAG.
            Errno::NOENT | Errno::PROTONOSUPPORT => Self::NotSupported { family, source },
            // EAFNOSUPPORT: a service's RestrictAddressFamilies= without AF_NETLINK.
            Errno::PERM | Errno::ACCESS | Errno::AFNOSUPPORT => Self::NotPermitted { family, source },
            Errno::AGAIN => Self::TimedOut { family },
            _ => Self::Os { family, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_apart_what_can_be_done() {
        let error = |errno| SockDiagError::from_errno(Family::Ipv4, errno);
        assert!(matches!(error(Errno::NOENT), SockDiagError::NotSupported { .. }));
        assert!(matches!(error(Errno::PERM), SockDiagError::NotPermitted { .. }));
        assert!(matches!(error(Errno::AGAIN), SockDiagError::TimedOut { .. }));
        assert!(matches!(error(Errno::NOBUFS), SockDiagError::Os { .. }));
        assert!(error(Errno::NOENT).to_string().contains("modprobe tcp_diag"));
    }
}
