//! Reading `struct sock`, at the offsets the agent resolved.

use core::ffi::c_void;

use agent_ebpf::{Address, Counter, SocketFacts, ask_flag};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::{
    emit,
    settings::{config, offset},
    task::{read, read_or_zero},
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
    let family = read_or_zero(sk, offset!(skc_family));
    if family == AF_INET || family == AF_INET6 { family } else { 0 }
}

/// Writes the local address, in network order, to `address`.
#[inline(always)]
pub(crate) fn read_local_address(sk: u64, family: u16, address: *mut Address) {
    read_address(sk, family, offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr), address);
}

/// Writes the remote address, in network order, to `address`.
#[inline(always)]
pub(crate) fn read_remote_address(sk: u64, family: u16, address: *mut Address) {
    read_address(sk, family, offset!(skc_daddr), offset!(skc_v6_daddr), address);
}

/// The IPv4 members of an `AF_INET6` socket hold junk, so the family says where to read, and how much: sixteen bytes,
/// or four with zeroes behind them.
#[inline(always)]
fn read_address(sk: u64, family: u16, v4: usize, v6: usize, address: *mut Address) {
    let (offset, size) = if family == AF_INET6 { (v6, 16) } else { (v4, 4) };
    let source = (sk as usize).wrapping_add(offset) as *const c_void;
    // SAFETY: the caller hands over an address of its own, sixteen bytes long; the helper checks the source itself, and
    // on failure leaves zeroes.
    unsafe {
        address.write(Address([0; 16]));
        let _ = bpf_probe_read_kernel(address.cast(), size, source);
    }
}

/// Local port in host order, also of a socket whose port has just been released.
#[inline(always)]
pub(crate) fn local_port(sk: u64) -> u16 {
    u16::from_be(read_or_zero(sk, offset!(inet_sport)))
}

/// Local port in host order, 0 if none is held.
#[inline(always)]
pub(crate) fn held_port(sk: u64) -> u16 {
    read_or_zero(sk, offset!(skc_num))
}

/// Remote port in host order.
#[inline(always)]
pub(crate) fn remote_port(sk: u64) -> u16 {
    u16::from_be(read_or_zero(sk, offset!(skc_dport)))
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
    read_or_zero(sk, offset!(skc_reuse_byte))
}

/// `sk_bound_dev_if`: index of the interface it is bound to, or 0.
#[inline(always)]
pub(crate) fn device(sk: u64) -> u32 {
    read_or_zero(sk, offset!(skc_bound_dev_if))
}

/// `sk_uid`: the user it belongs to.
#[inline(always)]
pub(crate) fn uid(sk: u64) -> u32 {
    read_or_zero(sk, offset!(sk_uid))
}

/// Its options that only matter while it asks for a port: `ask_flag` bits.
#[inline(always)]
pub(crate) fn ask_flags(sk: u64) -> u8 {
    let bit = |offset: usize, mask: u32, set: u8, known: u8| match mask {
        0 => 0,
        mask if u32::from(read_or_zero::<u8>(sk, offset)) & mask != 0 => set | known,
        _ => known,
    };
    bit(
        config!(offsets.inet_free_bind.offset) as usize,
        config!(offsets.inet_free_bind.mask),
        ask_flag::FREE_BIND,
        ask_flag::FREE_BIND_KNOWN,
    ) | bit(
        config!(offsets.inet_bind_address_no_port.offset) as usize,
        config!(offsets.inet_bind_address_no_port.mask),
        ask_flag::NO_PORT,
        ask_flag::NO_PORT_KNOWN,
    )
}

/// `sk_state`, Linux's number.
#[inline(always)]
pub(crate) fn state(sk: u64) -> u8 {
    read_or_zero(sk, offset!(skc_state))
}

/// `tw_substate`: what a timewait socket stands for.
#[inline(always)]
pub(crate) fn substate(tw: u64) -> u8 {
    read_or_zero(tw, offset!(tw_substate))
}

/// `sk_shutdown`.
#[inline(always)]
pub(crate) fn shutdown(sk: u64) -> u8 {
    // Two bits at the start of a word before 5.6, a byte since.
    read_or_zero::<u8>(sk, offset!(sk_shutdown)) & 3
}

/// `socket.state`, or 0 without a `struct socket` (an orphan, or a connection nobody accepted yet).
#[inline(always)]
pub(crate) fn socket_state(sk: u64) -> u8 {
    // Reading at the null pointer fails.
    read_or_zero(read_or_zero(sk, offset!(sk_socket)), offset!(socket_state))
}

/// `sk_err`.
#[inline(always)]
pub(crate) fn error(sk: u64) -> u32 {
    read_or_zero(sk, offset!(sk_err))
}

/// What the socket looks like now, apart from what was seen of the connection before.
#[inline(always)]
pub(crate) fn facts(sk: u64) -> SocketFacts {
    let flags = read_or_zero::<u64>(sk, offset!(skc_flags));
    let bit = |number: usize| (flags >> (number & 63) & 1) as u8;
    let lingers_not = u8::from(read_or_zero::<u64>(sk, offset!(sk_lingertime)) == 0);
    SocketFacts {
        born_ns: 0,
        flags: 0,
        err: error(sk),
        shutdown: shutdown(sk),
        socket_state: socket_state(sk),
        fin_received: bit(offset!(sock_done_bit)),
        linger_zero: bit(offset!(sock_linger_bit)) & lingers_not,
        reuse: reuse(sk),
        reserved: [0; 3],
    }
}
