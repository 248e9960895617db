//! Connections as the tables name them: a few words each, since a look at a table costs what it takes to reach it in
//! memory.

use std::net::IpAddr;

use crate::model::{Connection, Netns};

/// What names a connection, by the family of its addresses.
///
/// IPv4-mapped addresses are IPv4 ones here too. The flow label and the scope of an IPv6 address are left out: neither the
/// kernel's records nor sock_diag tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Nearly all
    V4(V4Key),
    /// The others
    V6(V6Key),
}

/// A connection between IPv4 addresses: namespace and local address, remote address and both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct V4Key(u64, u64);

/// Any other: namespace and both ports, and the halves of the local and of the remote address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct V6Key(u64, [u64; 2], [u64; 2]);

/// What both kinds tell.
pub(super) trait InNetns {
    /// Namespace of the connection.
    fn netns(&self) -> Netns;
}

impl Key {
    /// The name of a connection.
    pub(super) fn of(connection: &Connection) -> Self {
        let Connection { netns, local, remote } = connection;
        let ports = u64::from(local.port()) << 16 | u64::from(remote.port());
        match (local.ip().to_canonical(), remote.ip().to_canonical()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let from = u64::from(netns.0) << 32 | u64::from(local.to_bits());
                Self::V4(V4Key(from, u64::from(remote.to_bits()) << 32 | ports))
            }
            (local, remote) => Self::V6(V6Key(u64::from(netns.0) << 32 | ports, halves(local), halves(remote))),
        }
    }
}

/// An address as IPv6 writes it.
fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

impl InNetns for V4Key {
    fn netns(&self) -> Netns {
        Netns((self.0 >> 32) as u32)
    }
}

impl InNetns for V6Key {
    fn netns(&self) -> Netns {
        Netns((self.0 >> 32) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(netns: u32, local: &str, remote: &str) -> Key {
        Key::of(&Connection { netns: Netns(netns), local: local.parse().unwrap(), remote: remote.parse().unwrap() })
    }

    #[test]
    fn every_number_of_a_connection_is_in_its_key() {
        let keys = [
            key(1, "10.0.0.1:1", "10.0.0.2:2"),
            key(2, "10.0.0.1:1", "10.0.0.2:2"),
            key(1, "10.0.0.3:1", "10.0.0.2:2"),
            key(1, "10.0.0.1:1", "10.0.0.3:2"),
            key(1, "10.0.0.1:2", "10.0.0.2:1"),
            key(1, "[::1]:1", "[::2]:2"),
            key(2, "[::1]:1", "[::2]:2"),
            key(1, "[::2]:1", "[::1]:2"),
            key(1, "[::1]:2", "[::2]:1"),
            key(1, "[1::1]:1", "[::2]:2"),
            key(1, "[::]:1", "10.0.0.2:2"),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == key), Some(place), "{key:?}");
        }
    }

    #[test]
    fn a_mapped_connection_is_the_ipv4_one() {
        assert_eq!(key(1, "[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:2"), key(1, "10.0.0.1:1", "10.0.0.2:2"));
        assert_eq!((size_of::<V4Key>(), size_of::<V6Key>()), (16, 40));
    }

    #[test]
    fn a_key_tells_its_namespace() {
        let netns = |key| match key {
            Key::V4(key) => key.netns(),
            Key::V6(key) => key.netns(),
        };
        assert_eq!(netns(key(u32::MAX, "10.0.0.1:1", "10.0.0.2:2")), Netns(u32::MAX));
        assert_eq!(netns(key(77, "[::1]:65535", "[::2]:65535")), Netns(77));
    }
}
