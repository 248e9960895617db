//! The system calls of an actor.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::ioctl_fionbio,
    net::{
        AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, bind,
        connect, connect_unspec, getpeername, getsockname, ipproto, listen, recv, send, shutdown, socket_with,
        sockopt::{self, Timeout},
    },
};

use super::protocol::{Command, Family, Protocol, Reply, SocketOption};

/// No call of an actor blocks for longer; a test that meets it has a mistake, and gets EAGAIN instead of hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// The descriptors an actor has been told to open.
#[derive(Default)]
pub(super) struct Sockets(HashMap<RawFd, OwnedFd>);

impl Sockets {
    /// Does what only needs sockets.
    pub(super) fn carry_out(&mut self, command: Command) -> io::Result<Reply> {
        match command {
            Command::Socket { family, protocol } => {
                let socket = open(family, protocol)?;
                self.keep(socket)
            }
            Command::Set { fd, option } => set(self.get(fd)?, option).map(|()| Reply::Done),
            Command::Bind { fd, address } => done(bind(self.get(fd)?, &address)),
            Command::Listen { fd, backlog } => {
                listen(self.get(fd)?, backlog)?;
                self.describe(fd)
            }
            Command::Connect { fd, remote } => {
                connect(self.get(fd)?, &remote)?;
                self.describe(fd)
            }
            Command::ConnectInBackground { fd, remote } => {
                let socket = self.get(fd)?;
                ioctl_fionbio(socket, true)?;
                match connect(socket, &remote) {
                    Ok(()) | Err(rustix::io::Errno::INPROGRESS) => self.describe(fd),
                    Err(error) => Err(error.into()),
                }
            }
            Command::Describe { fd } => self.describe(fd),
            Command::Disconnect { fd } => done(connect_unspec(self.get(fd)?)),
            Command::Accept { listener } => {
                let (socket, _) = acceptfrom_with(self.get(listener)?, SocketFlags::CLOEXEC)?;
                self.keep(socket)
            }
            Command::ShutdownWrite { fd } => done(shutdown(self.get(fd)?, Shutdown::Write)),
            Command::Close { fd } => {
                drop(self.take(fd)?);
                Ok(Reply::Done)
            }
            Command::CloseInThread { fd, name } => {
                let socket = self.take(fd)?;
                let closer = thread::Builder::new().name(name).spawn(move || drop(socket))?;
                closer.join().map_err(|_| io::ErrorKind::Other)?;
                Ok(Reply::Done)
            }
            Command::Send { fd, bytes } => send_all(self.get(fd)?, bytes).map(|()| Reply::Done),
            Command::Receive { fd, bytes } => receive(self.get(fd)?, bytes).map(|()| Reply::Done),
            Command::ReceiveEnd { fd } => receive_end(self.get(fd)?).map(|()| Reply::Done),
            Command::AwaitState { fd, state } => await_state(self.get(fd)?, state).map(|()| Reply::Done),
            Command::Churn { remote, count, closes_first, from } => {
                churn(remote, count, closes_first, from).map(Reply::Ports)
            }
            Command::Serve { listener, count, closes_first } => {
                serve(self.get(listener)?, count, closes_first).map(|()| Reply::Done)
            }
            // The rest is not for sockets alone, see `process`.
            _ => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        }
    }

    /// The socket behind a descriptor number.
    pub(super) fn get(&self, fd: RawFd) -> io::Result<BorrowedFd<'_>> {
        self.0.get(&fd).map(OwnedFd::as_fd).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// The same, to be closed by the caller.
    pub(super) fn take(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        self.0.remove(&fd).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// The addresses of a socket.
    pub(super) fn describe(&self, fd: RawFd) -> io::Result<Reply> {
        let socket = self.get(fd)?;
        let local = ip_address(getsockname(socket)?);
        let remote = getpeername(socket).ok().flatten().map(ip_address);
        Ok(Reply::Socket { fd, local, remote })
    }

    fn keep(&mut self, socket: OwnedFd) -> io::Result<Reply> {
        let fd = socket.as_raw_fd();
        self.0.insert(fd, socket);
        self.describe(fd)
    }
}

fn done(result: rustix::io::Result<()>) -> io::Result<Reply> {
    result?;
    Ok(Reply::Done)
}

fn open(family: Family, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Mptcp => (SocketType::STREAM, ipproto::MPTCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    Ok(socket)
}

fn ip_address(address: SocketAddrAny) -> SocketAddr {
    // A UDP socket that is not connected, or one that was disconnected, has no family.
    SocketAddr::try_from(address).unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

fn set(socket: BorrowedFd<'_>, option: SocketOption) -> io::Result<()> {
    match option {
        SocketOption::ReuseAddress(value) => sockopt::set_socket_reuseaddr(socket, value)?,
        SocketOption::ReusePort(value) => sockopt::set_socket_reuseport(socket, value)?,
        SocketOption::V6Only(value) => sockopt::set_ipv6_v6only(socket, value)?,
        SocketOption::LingerZero => sockopt::set_socket_linger(socket, Some(Duration::ZERO))?,
        SocketOption::LocalPortRange(first, last) => set_port_range(socket, first, last)?,
        SocketOption::BindAddressNoPort => set_number(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?,
        SocketOption::Linger2(seconds) => set_number(socket, libc::SOL_TCP, libc::TCP_LINGER2, seconds)?,
        SocketOption::Repair => set_number(socket, libc::SOL_TCP, libc::TCP_REPAIR, 1)?,
    }
    Ok(())
}

/// Whether this kernel has `IP_LOCAL_PORT_RANGE`, or why not.
pub(crate) fn is_port_range_usable() -> Result<(), String> {
    let ready = open(Family::V4, Protocol::Tcp).and_then(|socket| set_port_range(socket.as_fd(), 40_000, 40_001));
    ready.map_err(|error| format!("IP_LOCAL_PORT_RANGE: {error}"))
}

fn set_port_range(socket: BorrowedFd<'_>, first: u16, last: u16) -> io::Result<()> {
    // include/uapi/linux/in.h (Linux 6.3)
    const IP_LOCAL_PORT_RANGE: i32 = 51;
    set_number(socket, libc::SOL_IP, IP_LOCAL_PORT_RANGE, (i32::from(last) << 16) | i32::from(first))
}

pub(crate) fn set_number(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: the value outlives the call and is as long as the length says.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What is sent or received at a time, at most.
const CHUNK: usize = 256 << 10;

fn send_all(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let data = vec![b'x'; bytes.min(CHUNK)];
    let mut left = bytes;
    while left > 0 {
        left -= send(socket, &data[..left.min(CHUNK)], SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let mut buffer = vec![0; bytes.min(CHUNK)];
    let mut left = bytes;
    while left > 0 {
        match recv(socket, &mut buffer[..left.min(CHUNK)], RecvFlags::empty())?.0 {
            0 => return Err(io::Error::from_raw_os_error(libc::ENODATA)),
            received => left -= received,
        }
    }
    Ok(())
}

pub(crate) fn receive_end(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while recv(socket, &mut buffer, RecvFlags::empty())?.0 > 0 {}
    Ok(())
}

/// Asks `TCP_INFO` until it says what is wanted: the only way to know that the other side's ACK has arrived.
pub(crate) fn await_state(socket: BorrowedFd<'_>, wanted: u8) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut state = 0_u8;
        let mut length = libc::socklen_t::try_from(size_of::<u8>()).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes of `struct tcp_info`, whose first byte is `tcpi_state`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_TCP,
                libc::TCP_INFO,
                (&raw mut state).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        if state == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::from_raw_os_error(libc::ETIME));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// One byte asks and one answers, so that a client never runs ahead of its server and the backlog stays short. And a
/// socket that has received data delays the ACK of a FIN by 40 ms and not by one tick, in which time the server has
/// closed too: hardly any connection is left to a timer, which would run on top of whoever is on that CPU.
const MESSAGE: &[u8] = b"m";

fn churn(remote: SocketAddr, count: usize, closes_first: bool, from: Option<u16>) -> io::Result<Vec<u16>> {
    let mut ports = Vec::with_capacity(count);
    let mut own_ports = from.into_iter().flat_map(|first| first..);
    for _ in 0..count {
        let socket = open(Family::of(remote), Protocol::Tcp)?;
        if let Some(port) = own_ports.next() {
            bind(&socket, &SocketAddr::new(loopback(Family::of(remote)), port))?;
        }
        connect(&socket, &remote)?;
        ports.push(ip_address(getsockname(&socket)?).port());
        send(&socket, MESSAGE, SendFlags::NOSIGNAL)?;
        receive(socket.as_fd(), MESSAGE.len())?;
        if !closes_first {
            receive_end(socket.as_fd())?;
        }
    }
    Ok(ports)
}

fn serve(listener: BorrowedFd<'_>, count: usize, closes_first: bool) -> io::Result<()> {
    for _ in 0..count {
        let (socket, _) = acceptfrom_with(listener, SocketFlags::CLOEXEC)?;
        receive(socket.as_fd(), MESSAGE.len())?;
        send(&socket, MESSAGE, SendFlags::NOSIGNAL)?;
        if !closes_first {
            receive_end(socket.as_fd())?;
        }
    }
    Ok(())
}

/// Where a socket of this family listens when the test does not care.
pub(super) const fn loopback(family: Family) -> std::net::IpAddr {
    match family {
        Family::V4 => std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => std::net::IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
