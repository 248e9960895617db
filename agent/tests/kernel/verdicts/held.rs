//! Ways to hold a port.

use std::{
    fs::File,
    io,
    net::{Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    time::Duration,
};

use firstfin::{
    model::TcpState,
    rules::{Holder, HolderState},
};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, acceptfrom_with, bind, connect, getsockname, ipproto, listen,
    shutdown, socket_with,
    sockopt::{set_ipv6_v6only, set_socket_linger, set_tcp_quickack},
};

use super::{
    dice::Dice,
    socket::{Claim, any_user, as_user},
};
use crate::actor::{await_state, receive_end};

/// Where clients connect to.
const SERVER_PORT: u16 = 9_000;

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Listener,
    Bound,
    /// Listens once the other socket is bound
    BoundThenListens,
    /// Of a listener that is gone
    Served,
    /// connect() after bind()
    BoundClient,
    /// The port is the kernel's choice
    Client,
    TimeWaitOfServer,
    FinWait2OfServer,
    TimeWaitOfClient,
}

impl Way {
    pub(super) const ALL: [Self; 9] = [
        Self::Listener,
        Self::Bound,
        Self::BoundThenListens,
        Self::Served,
        Self::BoundClient,
        Self::Client,
        Self::TimeWaitOfServer,
        Self::FinWait2OfServer,
        Self::TimeWaitOfClient,
    ];
}

/// A port that is held.
pub(super) struct Held {
    /// The claim of its own or, for a connection, of its listener
    pub(super) claim: Claim,
    /// As the rules see it
    pub(super) holder: Holder,
    /// The socket, unless it is a timewait socket
    pub(super) socket: Option<OwnedFd>,
    /// The other side
    _peer: Option<OwnedFd>,
}

/// The clients' server, and the choice of their ports.
pub(super) struct Stage {
    server: OwnedFd,
    range: File,
}

impl Stage {
    /// In the namespace of the thread.
    pub(super) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let server = socket_with(AddressFamily::INET6, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        set_ipv6_v6only(&server, false)?;
        bind(&server, &SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), SERVER_PORT))?;
        listen(&server, 8)?;
        let range = File::options().write(true).open("/proc/sys/net/ipv4/ip_local_port_range")?;
        Ok(Self { server, range })
    }

    /// Where the kernel's choice of a port is from.
    fn choose_from(&self, low: u16, high: u16) -> io::Result<()> {
        self.range.write_all_at(format!("{low} {high}").as_bytes(), 0)
    }

    /// Has the port held by any socket.
    pub(super) fn hold(&self, port: u16, way: Way, dice: &mut Dice) -> io::Result<Held> {
        match way {
            Way::Listener | Way::Bound | Way::BoundThenListens => {
                let claim = Claim::any(dice);
                let socket = claim.bound(port)?;
                let mut state = HolderState::Bound;
                if way == Way::Listener {
                    listen(&socket, 8)?;
                    state = HolderState::Listener;
                }
                Ok(Held { claim, holder: claim.holder(state, port), socket: Some(socket), _peer: None })
            }
            Way::Served | Way::TimeWaitOfServer | Way::FinWait2OfServer => {
                let claim = Claim::server(dice);
                let listener = claim.bound(port)?;
                listen(&listener, 8)?;
                let remote = claim.reached_at(port, dice);
                let peer = socket_for(remote)?;
                self.choose_from(30_000, 60_999)?;
                connect(&peer, &remote)?;
                let uid = any_user(dice);
                let served = accept(listener.as_fd(), uid)?;
                drop(listener);
                Self::held(way, Claim { uid, ..claim }, port, served, peer)
            }
            Way::BoundClient | Way::Client | Way::TimeWaitOfClient => {
                let claim = Claim::client(dice);
                let socket = if way == Way::BoundClient {
                    claim.bound(port)?
                } else {
                    self.choose_from(port, port)?;
                    claim.socket()?
                };
                connect(&socket, &SocketAddr::new(claim.address, SERVER_PORT))?;
                let peer = accept(self.server.as_fd(), 0)?;
                Self::held(way, claim, port, socket, peer)
            }
        }
    }

    fn held(way: Way, claim: Claim, port: u16, socket: OwnedFd, peer: OwnedFd) -> io::Result<Held> {
        let local = local(socket.as_fd())?;
        assert_eq!(local.port(), port, "{way:?} {claim:?}");
        let held = |state, socket, peer| {
            let mut holder = Holder { local, ..claim.holder(state, port) };
            if matches!(way, Way::Client | Way::TimeWaitOfClient) {
                // It was never bound.
                holder.v6_only = Some(claim.options.v6_only);
            }
            Ok(Held { claim, holder, socket, _peer: peer })
        };
        if matches!(way, Way::Served | Way::Client | Way::BoundClient) {
            // Leaves nothing behind.
            for side in [&socket, &peer] {
                set_socket_linger(side, Some(Duration::ZERO))?;
            }
            return held(HolderState::Connected, Some(socket), Some(peer));
        }
        // The timewait socket is there for certain when the full one is seen to have done its part.
        shutdown(&socket, Shutdown::Write)?;
        receive_end(peer.as_fd())?;
        if way == Way::FinWait2OfServer {
            // Or the ACK would wait for a timer.
            set_tcp_quickack(&peer, true)?;
            await_state(socket.as_fd(), TcpState::FinWait2 as u8)?;
            drop(socket);
            return held(HolderState::TimeWait, None, Some(peer));
        }
        drop(peer);
        await_state(socket.as_fd(), TcpState::Close as u8)?;
        drop(socket);
        held(HolderState::TimeWait, None, None)
    }
}

fn socket_for(remote: SocketAddr) -> io::Result<OwnedFd> {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?)
}

fn accept(listener: BorrowedFd<'_>, uid: u32) -> io::Result<OwnedFd> {
    as_user(uid, || Ok(acceptfrom_with(listener, SocketFlags::CLOEXEC)?.0))
}

fn local(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let local = SocketAddr::try_from(getsockname(socket)?)?;
    // As sock_diag's rows are written, see `model::Connection`.
    Ok(SocketAddr::new(local.ip().to_canonical(), local.port()))
}

/// Hides what the dice say of what is known of a holder.
pub(super) fn hide(holder: Holder, dice: &mut Dice) -> Holder {
    let mut hides = || dice.is_one_in(2);
    Holder {
        v6_only: holder.v6_only.filter(|_| !hides()),
        reuse_address: holder.reuse_address.filter(|_| !hides()),
        reuse_port: holder.reuse_port.filter(|_| !hides()),
        uid: holder.uid.filter(|_| !hides()),
        device: holder.device.filter(|_| !hides()),
        ..holder
    }
}
