//! What the kernel allows: may this socket have that port, given those that are there. Pure, and compared with the
//! running kernel by the kernel tests (`verdicts`).
//!
//! It is what `inet_csk_get_port()` decides for TCP, in `net/ipv4/inet_connection_sock.c`, for a port that was asked for
//! by number. The kernel walks the sockets of that port and refuses because of the first one in the way, so the rule is
//! one for a pair of sockets ([`conflict`]), applied to each that is there ([`decide`]).
//!
//! Where it is exact: Linux 5.10 to 7.3 have the same rule. In 6.1 sockets were sorted by their address too (`bhash2`),
//! and that was meant to change no answer. Until 6.9 it did, for wildcards next to IPv4 and IPv4-mapped addresses ("tcp:
//! Fix bind() regression ..."); Debian's 6.1 still overlooks ::ffff:0.0.0.0, and 0.0.0.0 next to [::].
//!
//! Where it is not, because the kernel looks at something else first. The bucket of a port (`struct inet_bind_bucket`)
//! remembers whether every socket bound so far had SO_REUSEADDR (`fastreuse`), and which user and address had
//! SO_REUSEPORT (`fastreuseport`, `fastuid`, `fast_rcv_saddr`); who matches that is let in without a look at the sockets
//! (`inet_csk_update_fastreuse()`, `sk_reuseport_match()`). For two sockets it comes to the same. It does not:
//!
//! - Among three, when the second has both options. The first, with SO_REUSEADDR only, is in the way of a third with
//!   SO_REUSEPORT only; but the second has left its user and address in the bucket. Devices are not in the bucket at all.
//!   [`decide`] then says [`Outcome::Undecided`], since what the bucket remembers depends on who came last.
//! - When that second socket is gone and others are left: then the rule refuses what the kernel may grant.
//! - With a connection of another user than the listener it was accepted from, or an orphan, which belonged to root
//!   before Linux 6.17 (`sock_i_uid()`): the bucket knows the listener's user. This is [`Verdict::Undecided`].
//! - When a holder has changed an option after bind(): the bucket remembers it as it was.
//!
//! The bucket only ever lets in. What the rule accepts, the kernel grants.
//!
//! Not considered: TCP_REPAIR (`SK_FORCE_REUSE`), VRFs (each has its own buckets), a socket with an eBPF program to
//! choose among its SO_REUSEPORT group before it is bound (it has a group already and joins none), and an address that
//! nobody uses: in Linux 5.10 an IPv6 socket that is not V6ONLY also has 127.0.0.6 (`LOOPBACK4_IPV6`).

mod bind;
mod overlap;
mod remedy;
#[cfg(test)]
mod tests;
mod words;

pub use bind::{Fact, Holder, HolderState, Outcome, Request, Rule, Verdict, conflict, decide};
pub use overlap::is_overlap;
pub use remedy::{Remedy, remedies};
