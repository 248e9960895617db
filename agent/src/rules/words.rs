//! The rules in words.

use super::{Fact, Rule};

impl Rule {
    /// Why a port is refused: a sentence without its full stop, in which "it" is the holder.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::HolderListens => {
                "it listens, and a listener shares its port with nobody unless both sockets have SO_REUSEPORT and belong \
                 to one user; SO_REUSEADDR makes no difference"
            }
            Self::AnotherListens => {
                "it listens already: SO_REUSEADDR lets several sockets be bound to one port, but only one of them listen"
            }
            Self::RequestLacksReuseAddress => {
                "the socket that asks has no SO_REUSEADDR, and sockets that do not listen share a port only if both have it"
            }
            Self::HolderLacksReuseAddress => {
                "the socket that asks has SO_REUSEADDR, but it has not, and sockets that do not listen share a port only if \
                 both have it"
            }
            Self::TimeWaitLacksReuseAddress => {
                "the socket it was left by had no SO_REUSEADDR, and TIME_WAIT keeps that: setting it on the new socket \
                 alone is not enough"
            }
            Self::HolderLacksReusePort => "the socket that asks has SO_REUSEPORT, but it has not",
            Self::RequestLacksReusePort => {
                "it listens with SO_REUSEPORT, which the socket that asks has not set before bind()"
            }
            Self::ReusePortOfAnotherUser => {
                "both have SO_REUSEPORT, but belong to different users, and a port is shared among sockets of one"
            }
        }
    }
}

impl Fact {
    /// What is not known.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6Only => "IPV6_V6ONLY",
            Self::ReuseAddress => "SO_REUSEADDR",
            Self::ReusePort => "SO_REUSEPORT",
            Self::User => "its user",
            Self::Device => "the interface it is bound to",
            Self::Bucket => "what the kernel remembers of the sockets that had the port before",
        }
    }
}
