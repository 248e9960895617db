//! Whether two sockets at the same port want the same connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the kernel takes two local addresses for the same, or one for a part of the other
/// (`inet_rcv_saddr_equal()` with wildcards, `ipv4_rcv_saddr_equal()`, `ipv6_rcv_saddr_equal()`; since Linux 6.1 also
/// `inet_bind2_bucket_match_addr_any()` and `__inet_bhash2_conflict()`).
///
/// `v6_only` is the kernel's (`sk_ipv6only`), false for an IPv4 socket. Not symmetric, and the kernel is not either:
/// 0.0.0.0 is refused because of a socket at [::1] that is not V6ONLY, such as a connection to a dual-stack listener,
/// while [::1] is allowed next to 0.0.0.0.
///
/// A holder's IPv4-mapped address may be given as IPv4. For the one that asks that makes a difference for
/// ::ffff:0.0.0.0, which is allowed next to [::1].
#[must_use]
pub fn is_overlap(asked: IpAddr, asked_v6_only: bool, held: IpAddr, held_v6_only: bool) -> bool {
    match (asked, Local::of(held)) {
        (IpAddr::V4(asked), held) => is_overlap_of_v4(asked, held, held_v6_only),
        (IpAddr::V6(asked), held) => match (Local::of(asked.into()), held) {
            (Local::V4(asked), held @ Local::V4(_)) => is_overlap_of_v4(asked, held, held_v6_only),
            (Local::V4(_), Local::V6(held)) => held.is_unspecified() && !held_v6_only,
            (Local::V6(asked), Local::V4(_)) => asked.is_unspecified() && !asked_v6_only,
            (Local::V6(asked), Local::V6(held)) => asked.is_unspecified() || held.is_unspecified() || asked == held,
        },
    }
}

/// `ipv4_rcv_saddr_equal()`. An IPv6 socket has an IPv4 address there: 0.0.0.0 if it is [::], and one that is nobody's
/// (`LOOPBACK4_IPV6`) if it has one of its own. The wildcard covers that as well.
fn is_overlap_of_v4(asked: Ipv4Addr, held: Local, held_v6_only: bool) -> bool {
    !held_v6_only
        && match held {
            Local::V4(held) => asked.is_unspecified() || held.is_unspecified() || asked == held,
            Local::V6(held) => asked.is_unspecified() || held.is_unspecified(),
        }
}

/// An address as the kernel compares it.
#[derive(Clone, Copy)]
enum Local {
    /// Of an IPv4 socket, or mapped (`IPV6_ADDR_MAPPED`)
    V4(Ipv4Addr),
    /// Any other, [::] included
    V6(Ipv6Addr),
}

impl Local {
    const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}
