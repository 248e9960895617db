//! What a test can tell an actor, and what it gets back: one JSON value a line.

use std::{net::SocketAddr, os::fd::RawFd};

use serde::{Deserialize, Serialize};

/// A step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// socket(2); answered by [`Reply::Socket`]
    Socket { family: Family, protocol: Protocol },
    /// setsockopt(2)
    Set { fd: RawFd, option: SocketOption },
    /// bind(2)
    Bind { fd: RawFd, address: SocketAddr },
    /// listen(2); answered by [`Reply::Socket`], because listen() may choose the port
    Listen { fd: RawFd, backlog: i32 },
    /// connect(2); answered by [`Reply::Socket`]
    Connect { fd: RawFd, remote: SocketAddr },
    /// connect(2) without waiting for the handshake
    ConnectInBackground { fd: RawFd, remote: SocketAddr },
    /// getsockname(2), getpeername(2); answered by [`Reply::Socket`]
    Describe { fd: RawFd },
    /// connect(2) to `AF_UNSPEC`
    Disconnect { fd: RawFd },
    /// accept(2); answered by [`Reply::Socket`]
    Accept { listener: RawFd },
    /// shutdown(2), sending side
    ShutdownWrite { fd: RawFd },
    /// close(2)
    Close { fd: RawFd },
    /// close(2) by another thread, which has another name than the process
    CloseInThread { fd: RawFd, name: String },
    /// send(2) of that many bytes
    Send { fd: RawFd, bytes: usize },
    /// recv(2) of exactly that many bytes
    Receive { fd: RawFd, bytes: usize },
    /// recv(2) until the other side has finished sending
    ReceiveEnd { fd: RawFd },
    /// Waits until `TCP_INFO` shows this state (Linux's number)
    AwaitState { fd: RawFd, state: u8 },
    /// setresuid(2): gives up root
    BecomeUser { uid: u32 },
    /// prctl(PR_SET_NAME)
    Rename { comm: Vec<u8> },
    /// fork(2); the child has every descriptor and a name of its own, and obeys [`Command::Child`]. Answered by
    /// [`Reply::Pid`]
    Fork { comm: Vec<u8> },
    /// A step for the child made last
    Child(Box<Command>),
    /// _exit(2) with everything open
    Exit,
    /// connect() and close() again and again; answered by [`Reply::Ports`]. With `from` each connection has a port of
    /// its own, counted up from there; otherwise the kernel chooses
    Churn { remote: SocketAddr, count: usize, closes_first: bool, from: Option<u16> },
    /// accept() and close() again and again
    Serve { listener: RawFd, count: usize, closes_first: bool },
    /// connect() through io_uring; answered by [`Reply::Socket`]
    UringConnect { fd: RawFd, remote: SocketAddr },
    /// close() through io_uring
    UringClose { fd: RawFd },
    /// bind() through io_uring
    UringBind { fd: RawFd, address: SocketAddr },
    /// listen() through io_uring
    UringListen { fd: RawFd, backlog: i32 },
}

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// What the socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    Tcp,
    Mptcp,
    Udp,
}

/// Socket options the scenarios need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SocketOption {
    ReuseAddress(bool),
    ReusePort(bool),
    V6Only(bool),
    /// SO_LINGER on with a time of zero
    LingerZero,
    /// IP_BIND_ADDRESS_NO_PORT
    BindAddressNoPort,
    /// IP_LOCAL_PORT_RANGE: first and last port the kernel may choose
    LocalPortRange(u16, u16),
    /// TCP_LINGER2, seconds; negative: no FIN_WAIT2 at all after close()
    Linger2(i32),
    /// TCP_REPAIR: close() says nothing to the other side
    Repair,
}

/// What most servers set.
pub(crate) const REUSE: &[SocketOption] = &[SocketOption::ReuseAddress(true)];

/// What came of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// A descriptor and the addresses the kernel says it has; unspecified where it has none
    Socket {
        fd: RawFd,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    },
    Pid(u32),
    /// Local ports, in the order of their use
    Ports(Vec<u16>),
}

/// A reply, or the errno.
pub(crate) type Answer = Result<Reply, i32>;
