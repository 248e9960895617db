//! Reading `struct sock`, at the offsets the agent resolved.

use agent_ebpf::{Address, Counter, SocketFacts};

use crate::{
    emit,
    settings::{config, offset},
    task::read,
};

/// `IPPROTO_TCP`. MPTCP sockets send transitions of their own under protocol 262, for the same connection.
const IPPROTO_TCP: u16 = 6;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Whether `sk` is a plain TCP socket. One that cannot be read is not, and is counted.
#[inline(always)]
pub(crate) fn is_tcp(sk: u64) -> bool {
    // A `u8` before 5.6.
    let protocol = if config!(offsets.sk_protocol_size) == 2 {
        read::<u16>(sk, offset!(sk_protocol))
    } else {
        read::<u8>(sk, offset!(sk_protocol)).map(u16::from)
    };
    match protocol {
        Ok(protocol) => protocol == IPPROTO_TCP,
        Err(_) => {
            emit::count(Counter::ReadFault);
            false
        }
    }
}

/// `AF_INET`, `AF_INET6`, or 0.
#[inline(always)]
pub(crate) fn family(sk: u64) -> u16 {
    match read::<u16>(sk, offset!(skc_family)) {
        Ok(AF_INET) => AF_INET,
        Ok(AF_INET6) => AF_INET6,
        _ => 0,
    }
}

/// Local address, in network order.
#[inline(always)]
pub(crate) fn local_address(sk: u64, family: u16) -> Address {
    address(sk, family, offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr))
}

/// Remote address, in network order.
#[inline(always)]
pub(crate) fn remote_address(sk: u64, family: u16) -> Address {
    address(sk, family, offset!(skc_daddr), offset!(skc_v6_daddr))
}

/// The IPv4 members of an `AF_INET6` socket hold junk, so the family says where to read.
#[inline(always)]
fn address(sk: u64, family: u16, v4: usize, v6: usize) -> Address {
    let mut bytes = [0_u8; 16];
    if family == AF_INET6 {
        bytes = read(sk, v6).unwrap_or(bytes);
    } else if let Ok([a, b, c, d]) = read::<[u8; 4]>(sk, v4) {
        (bytes[0], bytes[1], bytes[2], bytes[3]) = (a, b, c, d);
    }
    Address(bytes)
}

/// Local port in host order, also of a socket whose port has just been released.
#[inline(always)]
pub(crate) fn local_port(sk: u64) -> u16 {
    u16::from_be(read(sk, offset!(inet_sport)).unwrap_or(0))
}

/// Local port in host order, 0 if none is held.
#[inline(always)]
pub(crate) fn held_port(sk: u64) -> u16 {
    read(sk, offset!(skc_num)).unwrap_or(0)
}

/// Remote port in host order.
#[inline(always)]
pub(crate) fn remote_port(sk: u64) -> u16 {
    u16::from_be(read(sk, offset!(skc_dport)).unwrap_or(0))
}

/// Inode number of the network namespace, or 0.
#[inline(always)]
pub(crate) fn netns(sk: u64) -> Result<u32, i32> {
    let net = read::<u64>(sk, offset!(skc_net))?;
    read(net, offset!(net_inum))
}

/// The byte of `skc_reuse` (bits 0-3), `skc_reuseport` (bit 4), `skc_ipv6only` (bit 5).
#[inline(always)]
pub(crate) fn reuse(sk: u64) -> u8 {
    read(sk, offset!(skc_reuse_byte)).unwrap_or(0)
}

/// `sk_shutdown`.
#[inline(always)]
pub(crate) fn shutdown(sk: u64) -> u8 {
    // Two bits at the start of a word before 5.6, a byte since.
    read::<u8>(sk, offset!(sk_shutdown)).unwrap_or(0) & 3
}

/// `socket.state`, or 0 without a `struct socket` (an orphan, or a connection nobody accepted yet).
#[inline(always)]
pub(crate) fn socket_state(sk: u64) -> u8 {
    match read::<u64>(sk, offset!(sk_socket)) {
        Ok(0) | Err(_) => 0,
        Ok(socket) => read(socket, offset!(socket_state)).unwrap_or(0),
    }
}

/// `sk_err`.
#[inline(always)]
pub(crate) fn error(sk: u64) -> u32 {
    read(sk, offset!(sk_err)).unwrap_or(0)
}

/// What the socket looks like now, apart from what was seen of the connection before.
#[inline(always)]
pub(crate) fn facts(sk: u64) -> SocketFacts {
    let flags = read::<u64>(sk, offset!(skc_flags)).unwrap_or(0);
    let bit = |number: usize| flags >> (number & 63) & 1 == 1;
    let linger_zero =
        bit(offset!(sock_linger_bit)) && read::<u64>(sk, offset!(sk_lingertime)).is_ok_and(|time| time == 0);
    SocketFacts {
        born_ns: 0,
        flags: 0,
        err: error(sk),
        shutdown: shutdown(sk),
        socket_state: socket_state(sk),
        fin_received: u8::from(bit(offset!(sock_done_bit))),
        linger_zero: u8::from(linger_zero),
        reuse: reuse(sk),
        reserved: [0; 3],
    }
}
