//! The records in the ring buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What follows the [`Header`]. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// [`TransitionRecord`]
    Transition = 1,
    /// [`SyscallRecord`]
    Syscall = 2,
    /// [`TaskRecord`]
    Task = 3,
    /// [`TimeWaitRecord`]
    TimeWait = 4,
}

impl RecordKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Transition),
            2 => Some(Self::Syscall),
            3 => Some(Self::Task),
            4 => Some(Self::TimeWait),
            _ => None,
        }
    }

    /// Size of a whole record of this kind, header included, in bytes. Without a wildcard on purpose: a new kind that
    /// nobody gave a size does not compile.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Transition => size_of::<TransitionRecord>(),
            Self::Syscall => size_of::<SyscallRecord>(),
            Self::Task => size_of::<TaskRecord>(),
            Self::TimeWait => size_of::<TimeWaitRecord>(),
        }
    }
}

/// First bytes of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// [`RecordKind`] as a number
    pub kind: u32,
    /// CPU that wrote the record
    pub cpu: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds
    pub time_ns: u64,
}

/// An IP address, in network order. An `AF_INET` address is in the first four bytes, the rest is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Address(pub [u8; 16]);

/// A process as it was seen in its own context. All zero: nobody was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Task {
    /// Thread group id in the initial pid namespace: what userspace calls a pid
    pub tgid: u32,
    /// User id in the initial user namespace
    pub uid: u32,
    /// Start of the thread group leader, `CLOCK_BOOTTIME` in nanoseconds; with `tgid` it names a process for good
    pub start_ns: u64,
    /// cgroup v2 id (the root's on a host that puts processes into v1 hierarchies only)
    pub cgroup: u64,
    /// `comm` of the thread group leader, NUL terminated, arbitrary bytes
    pub comm: [u8; 16],
    /// [`task_flag`] bits
    pub flags: u32,
    /// Always zero
    pub reserved: u32,
}

/// Bits of [`Task::flags`].
pub mod task_flag {
    /// A task was recorded here
    pub const PRESENT: u32 = 1;
    /// It is a kernel thread (`PF_KTHREAD`): nobody's process
    pub const KERNEL_THREAD: u32 = 1 << 1;
    /// It is the agent
    pub const AGENT: u32 = 1 << 2;
}

/// Bits of [`SocketFacts::flags`]: what the programs saw of a connection.
pub mod conn_flag {
    /// connect() was seen
    pub const ACTIVE_OPEN: u32 = 1;
    /// The socket was seen being made from a listener's
    pub const PASSIVE_OPEN: u32 = 1 << 1;
    /// The local port was chosen before connect()
    pub const PORT_BOUND: u32 = 1 << 2;
    /// A RST arrived (`tcp:tcp_receive_reset`)
    pub const RESET_RECEIVED: u32 = 1 << 3;
    /// A RST was sent (`tcp:tcp_send_reset`) before this transition
    pub const RESET_SENT: u32 = 1 << 4;
    /// It was established
    pub const ESTABLISHED: u32 = 1 << 5;
    /// The local side sent the first FIN
    pub const FIN_FIRST: u32 = 1 << 6;
    /// The remote side's FIN was seen first
    pub const FIN_SECOND: u32 = 1 << 7;
    /// Its SYN was answered for an earlier connection, and a RST was sent (RFC 9293, 3.10.7.3)
    pub const SYN_REJECTED: u32 = 1 << 8;
}

/// What a socket looked like when the record was written. The agent, not the program, says what it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SocketFacts {
    /// When the connection was first seen, `CLOCK_BOOTTIME` in nanoseconds; 0: not seen before
    pub born_ns: u64,
    /// [`conn_flag`] bits
    pub flags: u32,
    /// `sk_err`, a positive errno
    pub err: u32,
    /// `sk_shutdown`: bit 0 receiving, bit 1 sending
    pub shutdown: u8,
    /// `socket.state` (`SS_UNCONNECTED` is 1, `SS_CONNECTING` 2); 0 if the socket has no `struct socket`
    pub socket_state: u8,
    /// 1 if `SOCK_DONE` is set: the peer's FIN was received
    pub fin_received: u8,
    /// 1 if SO_LINGER is on with a time of zero
    pub linger_zero: u8,
    /// The byte of `skc_reuse` (bits 0-3), `skc_reuseport` (bit 4), `skc_ipv6only` (bit 5)
    pub reuse: u8,
    /// Always zero
    pub reserved: [u8; 3],
}

/// Values of [`TransitionRecord::timewait_state`].
pub mod timewait_state {
    /// Not observed on this host, or there is none
    pub const UNKNOWN: u8 = 0;
    /// A timewait socket was made for an orphan in FIN_WAIT2 (`TCP_FIN_WAIT2`)
    pub const FIN_WAIT2: u8 = 5;
    /// A timewait socket was made for TIME_WAIT (`TCP_TIME_WAIT`)
    pub const TIME_WAIT: u8 = 6;
    /// It was refused: `tcp_max_tw_buckets` was reached, or memory was short
    pub const REFUSED: u8 = 255;
}

/// A change of state of a TCP socket.
///
/// By default only changes to CLOSE (one a connection) and to LISTEN are sent; with `every_transition` all.
///
/// CLOSE to CLOSE takes back the record before it: a socket left FIN_WAIT2, as one does on the way to TIME_WAIT, but
/// then sent a RST, so that there is no timewait socket (data after close, negative TCP_LINGER2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TransitionRecord {
    /// [`RecordKind::Transition`]
    pub header: Header,
    /// Address of the `struct sock`: names the socket until `tcp_destroy_sock`, is used again soon after
    pub sk: u64,
    /// Network namespace, inode number
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`
    pub family: u16,
    /// State before, Linux's number
    pub old_state: u8,
    /// State after, Linux's number
    pub new_state: u8,
    /// Local address
    pub local: Address,
    /// Remote address
    pub remote: Address,
    /// Local port, host order; 0 if none was chosen yet
    pub local_port: u16,
    /// Remote port, host order
    pub remote_port: u16,
    /// Positive errno of the search for a local port (`inet_hash_connect()`); 0: none, or not observed
    pub port_errno: u16,
    /// One of [`timewait_state`]: what became of the connection after this socket
    pub timewait_state: u8,
    /// Always zero
    pub reserved: u8,
    /// Address of its timewait socket; 0: none, or not observed
    pub timewait: u64,
    /// What the socket looked like
    pub facts: SocketFacts,
    /// Who called connect() or accept() or, for a listener, listen()
    pub opener: Task,
    /// Who called the close() or shutdown() that ended the sending side
    pub closer: Task,
}

/// The system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Call {
    /// bind(2)
    Bind = 1,
    /// listen(2)
    Listen = 2,
}

impl Call {
    /// The call with this number, if there is one.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Bind),
            2 => Some(Self::Listen),
            _ => None,
        }
    }
}

/// Options of a socket that asks for a port, beside those that decide who shares one.
pub mod ask_flag {
    /// IP_FREEBIND
    pub const FREE_BIND: u8 = 1;
    /// It is known whether IP_FREEBIND is set
    pub const FREE_BIND_KNOWN: u8 = 2;
    /// IP_BIND_ADDRESS_NO_PORT
    pub const NO_PORT: u8 = 4;
    /// It is known whether IP_BIND_ADDRESS_NO_PORT is set
    pub const NO_PORT_KNOWN: u8 = 8;
}

/// A bind() or listen() of a TCP socket that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SyscallRecord {
    /// [`RecordKind::Syscall`]
    pub header: Header,
    /// Address of the `struct sock`
    pub sk: u64,
    /// Network namespace of the socket, inode number
    pub netns: u32,
    /// [`Call`] as a number
    pub call: u32,
    /// Positive errno
    pub errno: u32,
    /// Family of the requested address; 0 if it could not be read
    pub family: u16,
    /// Requested port, host order
    pub port: u16,
    /// Requested address
    pub address: Address,
    /// The byte of `skc_reuse` (bits 0-3), `skc_reuseport` (bit 4), `skc_ipv6only` (bit 5)
    pub reuse: u8,
    /// [`ask_flag`] bits
    pub flags: u8,
    /// Always zero
    pub reserved: [u8; 2],
    /// `sk_bound_dev_if`: the interface the socket is bound to, 0 for none
    pub device: u32,
    /// `sk_uid`: the user the socket belongs to, in the initial user namespace
    pub uid: u32,
    /// Always zero
    pub padding: u32,
    /// Who called
    pub task: Task,
}

/// A process that appears for the first time, sent at once so that the agent can look it up while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TaskRecord {
    /// [`RecordKind::Task`]
    pub header: Header,
    /// The process
    pub task: Task,
}

/// What happens to a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TimeWaitChange {
    /// The peer's FIN came: a FIN_WAIT2 minisocket is in TIME_WAIT from here on
    BecameTimeWait = 1,
    /// Its timer ran out
    Expired = 2,
    /// connect() took its four numbers over
    Reused = 3,
    /// A SYN of the peer made a new connection of its four numbers
    NewSyn = 4,
    /// A RST arrived
    Reset = 5,
    /// Something arrived that a closed socket can only answer with a RST
    ResetAfterData = 6,
    /// SOCK_DESTROY (`ss -K`)
    Destroyed = 7,
    /// Its network namespace was dismantled
    NetnsGone = 8,
    /// It left in none of the ways above
    LeftUnexplained = 9,
    /// It stays: a SYN came that cannot have its four numbers, and was answered for the connection it stands for
    SynRejected = 10,
}

impl TimeWaitChange {
    /// The change with this number, if there is one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::BecameTimeWait,
            2 => Self::Expired,
            3 => Self::Reused,
            4 => Self::NewSyn,
            5 => Self::Reset,
            6 => Self::ResetAfterData,
            7 => Self::Destroyed,
            8 => Self::NetnsGone,
            9 => Self::LeftUnexplained,
            10 => Self::SynRejected,
            _ => return None,
        })
    }
}

/// A change of a timewait socket; only where fentry programs or kprobes can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TimeWaitRecord {
    /// [`RecordKind::TimeWait`]
    pub header: Header,
    /// Address of the `struct inet_timewait_sock`: names it until it has left, is used again soon after
    pub timewait: u64,
    /// Network namespace, inode number
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`
    pub family: u16,
    /// [`TimeWaitChange`] as a number
    pub change: u8,
    /// `tw_substate`: 5 (FIN_WAIT2) or 6 (TIME_WAIT), as it left or became
    pub substate: u8,
    /// Local address
    pub local: Address,
    /// Remote address
    pub remote: Address,
    /// Local port, host order
    pub local_port: u16,
    /// Remote port, host order
    pub remote_port: u16,
    /// Always zero
    pub reserved: u32,
}

const _: () = {
    // The ring buffer hands out 8-byte aligned memory, and the agent reads at these places.
    assert!(align_of::<TransitionRecord>() == 8);
    assert!(align_of::<SyscallRecord>() == 8);
    assert!(align_of::<TaskRecord>() == 8);
    assert!(align_of::<TimeWaitRecord>() == 8);
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Task>() == 48);
    assert!(size_of::<SocketFacts>() == 24);
    assert!(size_of::<TransitionRecord>() == 200);
    assert!(size_of::<SyscallRecord>() == 120);
    assert!(size_of::<TaskRecord>() == 64);
    assert!(size_of::<TimeWaitRecord>() == 72);
};
