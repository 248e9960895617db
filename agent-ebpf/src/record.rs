//! The records in the ring buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What follows the [`Header`]. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// [`TransitionRecord`], the [`Ends`] of its connection, and 16 bytes more if [`conn_flag::IN_FULL`] is set
    Transition = 1,
    /// [`SyscallRecord`]
    Syscall = 2,
    /// [`TaskRecord`]
    Task = 3,
    /// [`TimeWaitRecord`], and the [`Ends`] of its connection
    TimeWait = 4,
    /// A connection that was opened here ended as most do: the other side closed first, and nothing is left. A [`Header`]
    /// (what: 4 or 6, for the addresses; flags: remote port, host order), and the [`Ends`]
    ClosedByPeer = 5,
}

impl RecordKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Transition),
            2 => Some(Self::Syscall),
            3 => Some(Self::Task),
            4 => Some(Self::TimeWait),
            5 => Some(Self::ClosedByPeer),
            _ => None,
        }
    }
}

/// First bytes of every record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// [`RecordKind`] as a number
    pub kind: u8,
    /// What happened, by kind
    pub what: u8,
    /// Bits, by kind
    pub flags: u16,
    /// Network namespace of the socket, inode number; 0 in a [`TaskRecord`]
    pub netns: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds
    pub time_ns: u64,
}

/// Both addresses of a connection, behind the records that have them: local, then remote, of four bytes each or, if
/// [`conn_flag::IS_V6`] is set in the header, of sixteen; in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// `AF_INET`
    V4([u8; 4], [u8; 4]),
    /// `AF_INET6`
    V6([u8; 16], [u8; 16]),
}

impl Ends {
    /// Bytes of a pair of IPv4 addresses.
    pub const V4_SIZE: usize = 8;
    /// Bytes of a pair of IPv6 addresses.
    pub const V6_SIZE: usize = 32;
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

/// Stands for a [`Task`] that a [`TaskRecord`] before has told of. Never given to another one while the programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TaskNumber {
    /// Counted up by each program that gives numbers, on each CPU; 0: nobody was seen
    pub count: u32,
    /// Which program, in the lower [`TaskNumber::PROGRAM_BITS`], and which CPU
    pub origin: u16,
    /// Always zero
    pub reserved: u16,
}

impl TaskNumber {
    /// Bits of `origin` that say which program gave the number; 8,192 CPUs are left.
    pub const PROGRAM_BITS: u32 = 3;
    /// Nobody was seen.
    pub const NOBODY: Self = Self { count: 0, origin: 0, reserved: 0 };
    /// Somebody was seen, but there was no room in the ring buffer to tell who.
    pub const LOST: Self = Self { count: u32::MAX, origin: u16::MAX, reserved: 0 };
}

/// Bits of [`Header::flags`] of records of connections: what the programs saw of one.
pub mod conn_flag {
    /// connect() was seen
    pub const ACTIVE_OPEN: u16 = 1;
    /// The socket was made from a listener's
    pub const PASSIVE_OPEN: u16 = 1 << 1;
    /// The local port was chosen before connect()
    pub const PORT_BOUND: u16 = 1 << 2;
    /// A RST arrived (`tcp:tcp_receive_reset`)
    pub const RESET_RECEIVED: u16 = 1 << 3;
    /// A RST was sent (`tcp:tcp_send_reset`) before this transition
    pub const RESET_SENT: u16 = 1 << 4;
    /// It was seen to be established
    pub const ESTABLISHED: u16 = 1 << 5;
    /// The local side sent the first FIN
    pub const FIN_FIRST: u16 = 1 << 6;
    /// The remote side's FIN was seen first
    pub const FIN_SECOND: u16 = 1 << 7;
    /// Its SYN was answered for an earlier connection, and a RST was sent (RFC 9293, 3.10.7.3)
    pub const SYN_REJECTED: u16 = 1 << 8;
    /// It began during the session
    pub const SEEN_BEGIN: u16 = 1 << 9;
    /// The addresses are IPv6
    pub const IS_V6: u16 = 1 << 14;
    /// Two words follow the addresses: when it began (`CLOCK_BOOTTIME` in nanoseconds, 0: not seen), and the address of its
    /// timewait socket (0: none, or not observed)
    pub const IN_FULL: u16 = 1 << 15;
}

/// Bits of [`TransitionRecord::look`]: what a socket looked like when the record was written. The agent, not the program,
/// says what it means.
pub mod look {
    /// `sk_shutdown`: bit 0 receiving, bit 1 sending. Read where it tells something: not of a socket that left FIN_WAIT1 or
    /// any state behind it
    pub const SHUTDOWN: u8 = 0b11;
    /// First bit of `socket.state` (`SS_UNCONNECTED` is 1, `SS_CONNECTING` 2); 0 if the socket has no `struct socket`. Read
    /// where `SHUTDOWN` is
    pub const SOCKET_STATE_SHIFT: u8 = 2;
    /// Mask of `socket.state`, shifted
    pub const SOCKET_STATE: u8 = 0b111;
    /// SO_LINGER is on with a time of zero. Read where `SHUTDOWN` is
    pub const LINGER_ZERO: u8 = 1 << 5;
    /// `SOCK_DONE` is set: the peer's FIN was received
    pub const FIN_RECEIVED: u8 = 1 << 6;
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

/// A change of state of a TCP socket. In its header: what: the state before in the upper four bits, the state after in the
/// lower, as Linux numbers them; flags: [`conn_flag`].
///
/// Which changes are sent, [`Detail`](crate::Detail) says.
///
/// CLOSE to CLOSE takes back the record before it: a socket left FIN_WAIT2, as one does on the way to TIME_WAIT, but
/// then sent a RST, so that there is no timewait socket (data after close, negative TCP_LINGER2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TransitionRecord {
    /// [`RecordKind::Transition`]
    pub header: Header,
    /// Address of the `struct sock`, which names the socket until `tcp_destroy_sock` and is used again soon after. Not
    /// [in full](conn_flag::IN_FULL), and with a `timewait_state` of FIN_WAIT2 or TIME_WAIT, that of its timewait socket
    pub socket: u64,
    /// Who called connect() or accept() or, for a listener, listen(): its [`TaskNumber::count`]
    pub opener: u32,
    /// Who called the close() or shutdown() that ended the sending side: its [`TaskNumber::count`]
    pub closer: u32,
    /// [`TaskNumber::origin`] of `opener`
    pub opener_origin: u16,
    /// [`TaskNumber::origin`] of `closer`
    pub closer_origin: u16,
    /// `sk_err`, a positive errno
    pub err: u16,
    /// Positive errno of the search for a local port (`inet_hash_connect()`); 0: none, or not observed
    pub port_errno: u16,
    /// Local port, host order; 0 if none was chosen yet
    pub local_port: u16,
    /// Remote port, host order
    pub remote_port: u16,
    /// [`look`] bits
    pub look: u8,
    /// The byte of `skc_reuse` (bits 0-3), `skc_reuseport` (bit 4), `skc_ipv6only` (bit 5)
    pub reuse: u8,
    /// One of [`timewait_state`]: what became of the connection after this socket
    pub timewait_state: u8,
    /// Always zero
    pub reserved: u8,
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

/// A bind() or listen() of a TCP socket that was refused. In its header: what: [`Call`] as a number; flags: 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SyscallRecord {
    /// [`RecordKind::Syscall`]
    pub header: Header,
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
    /// What stands for it from now on
    pub number: TaskNumber,
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

/// A change of a timewait socket; only where fentry programs or kprobes can be used. In its header: what:
/// [`TimeWaitChange`] as a number; flags: [`conn_flag::IS_V6`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TimeWaitRecord {
    /// [`RecordKind::TimeWait`]
    pub header: Header,
    /// Address of the `struct inet_timewait_sock`: names it until it has left, is used again soon after
    pub timewait: u64,
    /// Local port, host order
    pub local_port: u16,
    /// Remote port, host order
    pub remote_port: u16,
    /// `tw_substate`: 5 (FIN_WAIT2) or 6 (TIME_WAIT), as it left or became
    pub substate: u8,
    /// Always zero
    pub reserved: [u8; 3],
}

const _: () = {
    // The ring buffer hands out 8-byte aligned memory, and what follows a record begins on such a boundary.
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Task>() == 48);
    assert!(size_of::<TaskNumber>() == 8);
    assert!(size_of::<TransitionRecord>() == 48);
    assert!(size_of::<SyscallRecord>() == 104);
    assert!(size_of::<TaskRecord>() == 72);
    assert!(size_of::<TimeWaitRecord>() == 32);
};
