//! Reading `struct sock`, at the offsets the agent resolved.

use core::{ffi::c_void, marker::PhantomData, mem::MaybeUninit};

use agent_ebpf::{Address, Counter, Offsets, ask_flag, look};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use zerocopy::FromBytes;

use crate::{
    emit,
    memory::{Memory, read_or_zero},
    settings::{config, offset},
};

/// `IPPROTO_TCP`. MPTCP sockets send transitions of their own under protocol 262, for the same connection.
const IPPROTO_TCP: u16 = 6;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Whether `sk` is a plain TCP socket. One that cannot be read is not, and is counted: none has the protocol 0.
#[inline(always)]
pub(crate) fn is_tcp<M: Memory>(sk: u64) -> bool {
    // A `u8` before 5.6.
    let protocol = if config!(offsets.sk_protocol_size) == 2 {
        M::get::<u16>(sk, offset!(sk_protocol))
    } else {
        u16::from(M::get::<u8>(sk, offset!(sk_protocol)))
    };
    if protocol == 0 {
        emit::count(Counter::ReadFault);
    }
    protocol == IPPROTO_TCP
}

/// `AF_INET`, `AF_INET6`, or 0.
#[inline(always)]
pub(crate) fn family(sk: u64) -> u16 {
    let family = read_or_zero(sk, offset!(skc_family));
    if family == AF_INET || family == AF_INET6 { family } else { 0 }
}

/// What is at the start of every socket, of a timewait socket too. By a helper it is read at once, since a call for each
/// member costs more than all of them.
pub(crate) struct Common<M> {
    sk: u64,
    /// Not read where the verifier knows types
    bytes: MaybeUninit<[u64; Offsets::COMMON_SIZE / 8]>,
    by: PhantomData<M>,
}

impl<M: Memory> Common<M> {
    #[inline(always)]
    pub(crate) fn of(sk: u64) -> Self {
        let bytes = if M::IS_TYPED { MaybeUninit::uninit() } else { MaybeUninit::new(read_or_zero(sk, 0)) };
        Self { sk, bytes, by: PhantomData }
    }

    /// The member at `offset`.
    #[inline(always)]
    fn member<T: FromBytes>(&self, offset: usize) -> T {
        if M::IS_TYPED {
            return M::get(self.sk, offset);
        }
        let within = offset & (Offsets::COMMON_SIZE - size_of::<T>());
        // SAFETY: the offset of a whole `T`, aligned as the kernel aligns it, within the array, which was read: the agent has
        // made sure, and the mask makes it so whatever it is.
        unsafe { self.bytes.as_ptr().cast::<u8>().add(within).cast::<T>().read() }
    }

    /// Whether it is `AF_INET6`.
    #[inline(always)]
    pub(crate) fn is_v6(&self) -> bool {
        self.member::<u16>(offset!(skc_family)) == AF_INET6
    }

    /// Local port in host order, 0 if none is held.
    #[inline(always)]
    pub(crate) fn held_port(&self) -> u16 {
        self.member(offset!(skc_num))
    }

    /// Remote port in host order.
    #[inline(always)]
    pub(crate) fn remote_port(&self) -> u16 {
        u16::from_be(self.member(offset!(skc_dport)))
    }

    /// The byte of `skc_reuse` (bits 0-3), `skc_reuseport` (bit 4), `skc_ipv6only` (bit 5).
    #[inline(always)]
    pub(crate) fn reuse(&self) -> u8 {
        self.member(offset!(skc_reuse_byte))
    }

    /// As [`netns`].
    #[inline(always)]
    pub(crate) fn netns(&self) -> u32 {
        M::get(self.member(offset!(skc_net)), offset!(net_inum))
    }

    /// Both addresses, as [`agent_ebpf::Ends`] has them. The IPv4 members of an `AF_INET6` socket hold junk.
    #[inline(always)]
    pub(crate) fn v4_ends(&self) -> [u32; 2] {
        [self.member(offset!(skc_rcv_saddr)), self.member(offset!(skc_daddr))]
    }

    /// The same of an `AF_INET6` socket.
    #[inline(always)]
    pub(crate) fn v6_ends(&self) -> [u64; 4] {
        let half = |offset: usize| M::get(self.sk, offset);
        let (local, remote) = (offset!(skc_v6_rcv_saddr), offset!(skc_v6_daddr));
        [half(local), half(local + 8), half(remote), half(remote + 8)]
    }
}

/// Writes the local address, in network order, to `address`. The IPv4 members of an `AF_INET6` socket hold junk, so the
/// family says where to read, and how much: sixteen bytes, or four with zeroes behind them.
#[inline(always)]
pub(crate) fn read_local_address(sk: u64, family: u16, address: *mut Address) {
    let (offset, size) = if family == AF_INET6 { (offset!(skc_v6_rcv_saddr), 16) } else { (offset!(skc_rcv_saddr), 4) };
    let source = (sk as usize).wrapping_add(offset) as *const c_void;
    // SAFETY: the caller hands over an address of its own, sixteen bytes long; the helper checks the source itself, and
    // on failure leaves zeroes.
    unsafe {
        address.write(Address([0; 16]));
        let _ = bpf_probe_read_kernel(address.cast(), size, source);
    }
}

/// Local port in host order, also of a socket whose port has just been released: then only the copy is left, which takes a
/// call to look at.
#[inline(always)]
pub(crate) fn local_port<M: Memory>(common: &Common<M>) -> u16 {
    match common.held_port() {
        0 => u16::from_be(read_or_zero(common.sk, offset!(inet_sport))),
        held => held,
    }
}

/// Inode number of the network namespace; 0 if it could not be read.
#[inline(always)]
pub(crate) fn netns<M: Memory>(sk: u64) -> u32 {
    M::get(M::get(sk, offset!(skc_net)), offset!(net_inum))
}

/// Local port in host order, 0 if none is held.
#[inline(always)]
pub(crate) fn held_port<M: Memory>(sk: u64) -> u16 {
    M::get(sk, offset!(skc_num))
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
pub(crate) fn shutdown<M: Memory>(sk: u64) -> u8 {
    // Two bits at the start of a word before 5.6, a byte since.
    M::get::<u8>(sk, offset!(sk_shutdown)) & 3
}

/// `socket.state`, or 0 without a `struct socket` (an orphan, or a connection nobody accepted yet).
#[inline(always)]
pub(crate) fn socket_state<M: Memory>(sk: u64) -> u8 {
    // Reading at the null pointer fails, and is zero.
    M::get::<u32>(M::get(sk, offset!(sk_socket)), offset!(socket_state)) as u8
}

/// `sk_err`.
#[inline(always)]
pub(crate) fn error<M: Memory>(sk: u64) -> u32 {
    M::get(sk, offset!(sk_err))
}

/// The backlog listen() was given, of a listener and of every socket made from it: `sk_clone_lock()` copies it, and a socket
/// that was never a listener has none. So what is not zero tells that a connection was accepted, also one from before the
/// session; zero tells nothing, as listen() may have been given that.
#[inline(always)]
pub(crate) fn is_of_a_listener<M: Memory>(sk: u64) -> bool {
    M::get::<u32>(sk, offset!(sk_max_ack_backlog)) != 0
}

/// Whether no dump of all sockets has shown it: sock_diag gives every socket it shows a cookie (`sock_gen_cookie()`), and a
/// socket is made without one. The agent dumps them when the session begins, so this one is younger.
#[inline(always)]
pub(crate) fn is_younger_than_dumps<M: Memory>(sk: u64) -> bool {
    M::get::<u64>(sk, offset!(skc_cookie)) == 0
}

/// Whether everything that was to be sent has been acknowledged, a FIN included: that is what tells FIN_WAIT2 and TIME_WAIT
/// from FIN_WAIT1 (`tcp_rcv_state_process()`).
#[inline(always)]
pub(crate) fn is_all_acknowledged(sk: u64) -> bool {
    read_or_zero::<u32>(sk, offset!(snd_una)) == read_or_zero::<u32>(sk, offset!(write_seq))
}

/// What the socket looks like now: [`look`] bits. `was_open`: it left none of the states behind a FIN of this side, so what
/// close() and the process did to it matters.
#[inline(always)]
pub(crate) fn look<M: Memory>(sk: u64, was_open: bool) -> u8 {
    let flags = M::get::<u64>(sk, offset!(skc_flags));
    let bit = |number: usize| (flags >> (number & 63) & 1) as u8;
    let mut seen = bit(offset!(sock_done_bit)) * look::FIN_RECEIVED;
    if was_open {
        let lingers_not = u8::from(M::get::<u64>(sk, offset!(sk_lingertime)) == 0);
        seen |= shutdown::<M>(sk)
            | (socket_state::<M>(sk) & look::SOCKET_STATE) << look::SOCKET_STATE_SHIFT
            | bit(offset!(sock_linger_bit)) * lingers_not * look::LINGER_ZERO;
    }
    seen
}
