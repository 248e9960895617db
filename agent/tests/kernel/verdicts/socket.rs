//! Sockets as the rules see them: an address, options, a user, an interface.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use firstfin::{
    model::{Call, SocketOptions},
    rules::{Holder, HolderState, Request},
};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with,
    sockopt::{self, Timeout},
};

use super::dice::Dice;
use crate::{actor::set_number, scene::NOBODY};

/// No call takes as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The loopback is the first interface of every namespace.
const LOOPBACK: u32 = 1;
/// An interface that is not there. The kernel asks for it only where an IPv6 socket is bound to an address.
const ELSEWHERE: u32 = 77;
const USERS: [u32; 3] = [0, 0, NOBODY];

const SECOND_LOCALHOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Local addresses, and whether the socket is V6ONLY.
const ADDRESSES: [(IpAddr, bool); 11] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), false),
    (IpAddr::V4(Ipv4Addr::LOCALHOST), false),
    (IpAddr::V4(SECOND_LOCALHOST), false),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), false),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), true),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), false),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), true),
    (IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()), false),
    (IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), false),
    (IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), false),
    (IpAddr::V6(SECOND_LOCALHOST.to_ipv6_mapped()), false),
];
/// What a client connects to, which is the address it gets if it leaves the choice to the kernel.
const CLIENTS: [(IpAddr, bool); 4] = [
    (IpAddr::V4(Ipv4Addr::LOCALHOST), false),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), false),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), true),
    (IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), false),
];

/// Whose socket it is to be, and what of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) address: IpAddr,
    pub(super) options: SocketOptions,
    pub(super) uid: u32,
    pub(super) device: u32,
}

impl Claim {
    /// Any.
    pub(super) fn any(dice: &mut Dice) -> Self {
        let (address, v6_only) = dice.pick(&ADDRESSES);
        Self::at(address, v6_only, dice)
    }

    fn at(address: IpAddr, v6_only: bool, dice: &mut Dice) -> Self {
        let coin = [false, true];
        let options = SocketOptions { reuse_address: dice.pick(&coin), reuse_port: dice.pick(&coin), v6_only };
        let is_anywhere = address.is_ipv4() || address.is_unspecified();
        let devices: &[u32] = if is_anywhere { &[0, 0, LOOPBACK, ELSEWHERE] } else { &[0, 0, LOOPBACK] };
        Self { address, options, uid: any_user(dice), device: dice.pick(devices) }
    }

    /// Any at the address of another one, every other time.
    pub(super) fn near(&self, dice: &mut Dice) -> Self {
        let any = Self::any(dice);
        if dice.is_one_in(2) { Self::at(self.address, self.options.v6_only, dice) } else { any }
    }

    /// Any that can connect to this host.
    pub(super) fn client(dice: &mut Dice) -> Self {
        let (address, v6_only) = dice.pick(&CLIENTS);
        Self::at(address, v6_only, dice).on_this_host()
    }

    /// Any that can be connected to from this host.
    pub(super) fn server(dice: &mut Dice) -> Self {
        Self::any(dice).on_this_host()
    }

    fn on_this_host(self) -> Self {
        Self { device: self.device.min(LOOPBACK), ..self }
    }

    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        let family = if self.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC;
        let socket = as_user(self.uid, || Ok(socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?))?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_reuseaddr(&socket, self.options.reuse_address)?;
        sockopt::set_socket_reuseport(&socket, self.options.reuse_port)?;
        if self.address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, self.options.v6_only)?;
        }
        if self.device != 0 {
            // include/uapi/asm-generic/socket.h; unlike SO_BINDTODEVICE it needs no interface of that index.
            const SO_BINDTOIFINDEX: i32 = 62;
            let index = i32::try_from(self.device).map_err(io::Error::other)?;
            set_number(socket.as_fd(), libc::SOL_SOCKET, SO_BINDTOIFINDEX, index)?;
        }
        Ok(socket)
    }

    pub(super) fn bound(&self, port: u16) -> io::Result<OwnedFd> {
        let socket = self.socket()?;
        bind(&socket, &SocketAddr::new(self.address, port))?;
        Ok(socket)
    }

    /// Where a client on this host reaches it.
    pub(super) fn reached_at(&self, port: u16, dice: &mut Dice) -> SocketAddr {
        let address = match self.address {
            address if !address.to_canonical().is_unspecified() => address.to_canonical(),
            IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
                let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
                if self.options.v6_only { v6 } else { dice.pick(&[v6, Ipv4Addr::LOCALHOST.into()]) }
            }
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        SocketAddr::new(address, port)
    }

    pub(super) const fn request(&self, call: Call, port: u16) -> Request {
        let local = SocketAddr::new(self.address, port);
        Request { call, local, options: self.options, uid: self.uid, device: self.device }
    }

    /// See [`Holder::v6_only`].
    const fn is_v6_only_by_address(&self) -> bool {
        let address = self.address.to_canonical();
        address.is_ipv6() && !address.is_unspecified()
    }

    pub(super) const fn holder(&self, state: HolderState, port: u16) -> Holder {
        Holder {
            state,
            local: SocketAddr::new(self.address, port),
            v6_only: Some(self.options.v6_only || self.is_v6_only_by_address()),
            reuse_address: Some(self.options.reuse_address),
            reuse_port: Some(self.options.reuse_port),
            uid: Some(self.uid),
            device: Some(self.device),
        }
    }
}

pub(super) fn any_user(dice: &mut Dice) -> u32 {
    dice.pick(&USERS)
}

/// Does something as a user, as far as files and sockets are concerned: a socket belongs to the `fsuid` of the thread
/// that makes or accepts it, which is this thread's own.
pub(super) fn as_user<T>(uid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: plain numbers, and nothing but this thread is affected.
    unsafe { libc::setfsuid(uid) };
    let result = work();
    // SAFETY: as above.
    unsafe { libc::setfsuid(0) };
    result
}

/// Whether the kernel granted a call; an error that is not about the port is one of the test.
pub(super) fn is_granted(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::ADDRINUSE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
