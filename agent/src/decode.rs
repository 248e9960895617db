//! Bytes of the ring buffer -> [`Event`]. Total: any bytes give an event or an error, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_ebpf::{
    Address, RecordKind, SyscallRecord, TaskRecord, TimeWaitRecord, TransitionRecord, ask_flag, conn_flag, task_flag,
    timewait_state,
};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::model::{
    Asker, Call, Connection, Event, Leaving, Name, Netns, OpenKind, ProcessKey, RefusedCall, Retraction, SocketFacts,
    SocketId, SocketOptions, Task, TcpState, TimeWaitChange, TimeWaitEvent, TimeWaitId, TimeWaitMade, TimeWaitSubstate,
    Timestamp, Transition,
};

/// Why a record was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Shorter than a header
    #[error("record of {0} bytes has no header")]
    Short(usize),
    /// A kind this agent does not know
    #[error("record of unknown kind {0}")]
    UnknownKind(u32),
    /// Not the size of its kind
    #[error("{kind:?} record of {actual} bytes, {expected} wanted")]
    WrongSize {
        /// What the header says
        kind: RecordKind,
        /// Size of such a record in bytes
        expected: usize,
        /// Bytes there are
        actual: usize,
    },
    /// A member has a value that means nothing
    #[error("{member} is {value}")]
    BadValue {
        /// Which member
        member: &'static str,
        /// Its value
        value: u32,
    },
}

// include/linux/socket.h, include/linux/net.h
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SS_UNCONNECTED: u8 = 1;
const SHUTDOWN_MASK: u8 = 3;
/// `USER_HZ`: what `/proc/PID/stat` counts a start time in, on every architecture Rust and BPF share
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Decodes one record.
///
/// # Errors
/// The bytes are not a record of [`agent_ebpf::ABI_VERSION`].
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let kind = bytes.first_chunk::<4>().map(|word| u32::from_ne_bytes(*word)).ok_or(DecodeError::Short(bytes.len()))?;
    let kind = RecordKind::from_u32(kind).ok_or(DecodeError::UnknownKind(kind))?;
    match kind {
        RecordKind::Transition => transition(&read(kind, bytes)?),
        RecordKind::TimeWait => timewait(&read(kind, bytes)?),
        RecordKind::Syscall => refused(&read(kind, bytes)?),
        RecordKind::Task => {
            let record: TaskRecord = read(kind, bytes)?;
            task(&record.task).map(Event::ProcessSeen).ok_or(DecodeError::BadValue { member: "task.flags", value: 0 })
        }
    }
}

fn read<T: FromBytes>(kind: RecordKind, bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::WrongSize { kind, expected: kind.size(), actual: bytes.len() })
}

fn transition(record: &TransitionRecord) -> Result<Event, DecodeError> {
    let at = Timestamp(record.header.time_ns);
    let socket = SocketId(record.sk);
    let connection = Connection {
        netns: Netns(record.netns),
        local: endpoint(record.family, record.local, record.local_port)?,
        remote: endpoint(record.family, record.remote, record.remote_port)?,
    };
    let (old, new) = (state("old_state", record.old_state)?, state("new_state", record.new_state)?);
    if (old, new) == (TcpState::Close, TcpState::Close) {
        return Ok(Event::Retraction(Retraction { at, socket, connection }));
    }
    let facts = &record.facts;
    let has = |flag| facts.flags & flag != 0;
    let opened = if has(conn_flag::ACTIVE_OPEN) {
        Some(OpenKind::Active)
    } else if has(conn_flag::PASSIVE_OPEN) {
        Some(OpenKind::Passive)
    } else {
        None
    };
    // One place for both: a connection is either opened here, or accepted.
    let (opener, accepter) = match opened {
        Some(OpenKind::Passive) => (None, task(&record.opener)),
        _ => (task(&record.opener), None),
    };
    Ok(Event::Transition(Box::new(Transition {
        at,
        socket,
        connection,
        old,
        new,
        opened,
        born: (facts.born_ns != 0).then_some(Timestamp(facts.born_ns)),
        opener,
        accepter,
        closer: task(&record.closer),
        timewait: made(record)?,
        facts: SocketFacts {
            port_bound: has(conn_flag::PORT_BOUND),
            established: has(conn_flag::ESTABLISHED),
            fin_first: has(conn_flag::FIN_FIRST),
            fin_second: has(conn_flag::FIN_SECOND),
            fin_received: facts.fin_received != 0,
            reset_received: has(conn_flag::RESET_RECEIVED),
            reset_sent: has(conn_flag::RESET_SENT),
            syn_rejected: has(conn_flag::SYN_REJECTED),
            errno: facts.err,
            port_errno: u32::from(record.port_errno),
            is_shut_down: facts.shutdown & SHUTDOWN_MASK == SHUTDOWN_MASK,
            has_socket: facts.socket_state != 0,
            is_unconnected: facts.socket_state == SS_UNCONNECTED,
            linger_zero: facts.linger_zero != 0,
            options: Some(options(facts.reuse)),
        },
    })))
}

fn made(record: &TransitionRecord) -> Result<Option<TimeWaitMade>, DecodeError> {
    let made = |substate| Some(TimeWaitMade::Made { id: TimeWaitId(record.timewait), substate });
    Ok(match record.timewait_state {
        timewait_state::UNKNOWN => None,
        timewait_state::REFUSED => Some(TimeWaitMade::Refused),
        state => made(substate("timewait_state", state)?),
    })
}

fn substate(member: &'static str, value: u8) -> Result<TimeWaitSubstate, DecodeError> {
    match value {
        timewait_state::FIN_WAIT2 => Ok(TimeWaitSubstate::FinWait2),
        timewait_state::TIME_WAIT => Ok(TimeWaitSubstate::TimeWait),
        _ => Err(DecodeError::BadValue { member, value: u32::from(value) }),
    }
}

fn timewait(record: &TimeWaitRecord) -> Result<Event, DecodeError> {
    use agent_ebpf::TimeWaitChange as Change;

    let change = Change::from_u8(record.change)
        .ok_or(DecodeError::BadValue { member: "change", value: u32::from(record.change) })?;
    let change = match (change, substate("substate", record.substate)?) {
        (Change::BecameTimeWait, _) => TimeWaitChange::Became,
        (Change::SynRejected, _) => TimeWaitChange::SynRejected,
        (Change::Expired, TimeWaitSubstate::TimeWait) => TimeWaitChange::Left(Leaving::Expired),
        (Change::Expired, TimeWaitSubstate::FinWait2) => TimeWaitChange::Left(Leaving::FinNeverCame),
        (Change::Reused, _) => TimeWaitChange::Left(Leaving::Reused),
        (Change::NewSyn, _) => TimeWaitChange::Left(Leaving::NewSyn),
        (Change::Reset, _) => TimeWaitChange::Left(Leaving::Reset),
        (Change::ResetAfterData, _) => TimeWaitChange::Left(Leaving::ResetAfterData),
        (Change::Destroyed, _) => TimeWaitChange::Left(Leaving::Destroyed),
        (Change::NetnsGone, _) => TimeWaitChange::Left(Leaving::NetnsGone),
        (Change::LeftUnexplained, _) => TimeWaitChange::Left(Leaving::Unexplained),
    };
    Ok(Event::TimeWait(TimeWaitEvent {
        at: Timestamp(record.header.time_ns),
        id: TimeWaitId(record.timewait),
        connection: Connection {
            netns: Netns(record.netns),
            local: endpoint(record.family, record.local, record.local_port)?,
            remote: endpoint(record.family, record.remote, record.remote_port)?,
        },
        change,
    }))
}

fn refused(record: &SyscallRecord) -> Result<Event, DecodeError> {
    let call = match agent_ebpf::Call::from_u32(record.call) {
        Some(agent_ebpf::Call::Bind) => Call::Bind,
        Some(agent_ebpf::Call::Listen) => Call::Listen,
        None => return Err(DecodeError::BadValue { member: "call", value: record.call }),
    };
    Ok(Event::Refused(RefusedCall {
        at: Timestamp(record.header.time_ns),
        call,
        netns: Netns(record.netns),
        local: match record.family {
            0 => None,
            family => Some(endpoint(family, record.address, record.port)?),
        },
        errno: record.errno,
        options: options(record.reuse),
        asker: Asker {
            uid: Some(record.uid),
            device: Some(record.device),
            free_bind: known(record.flags, ask_flag::FREE_BIND_KNOWN, ask_flag::FREE_BIND),
            bind_address_no_port: known(record.flags, ask_flag::NO_PORT_KNOWN, ask_flag::NO_PORT),
        },
        task: task(&record.task).ok_or(DecodeError::BadValue { member: "task.flags", value: 0 })?,
    }))
}

const fn known(flags: u8, known: u8, set: u8) -> Option<bool> {
    if flags & known == 0 { None } else { Some(flags & set != 0) }
}

/// The byte of `skc_reuse` (bits 0-3), `skc_reuseport` (bit 4) and `skc_ipv6only` (bit 5) of `struct sock_common`.
const fn options(byte: u8) -> SocketOptions {
    SocketOptions { reuse_address: byte & 0xf != 0, reuse_port: byte & 0x10 != 0, v6_only: byte & 0x20 != 0 }
}

fn state(member: &'static str, value: u8) -> Result<TcpState, DecodeError> {
    TcpState::from_number(value).ok_or(DecodeError::BadValue { member, value: u32::from(value) })
}

fn endpoint(family: u16, address: Address, port: u16) -> Result<SocketAddr, DecodeError> {
    let Address(bytes) = address;
    let [a, b, c, d, ..] = bytes;
    let ip = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        // A v4-mapped connection of a dual-stack socket is the IPv4 connection the other end sees.
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        _ => return Err(DecodeError::BadValue { member: "family", value: u32::from(family) }),
    };
    Ok(SocketAddr::new(ip, port))
}

fn task(task: &agent_ebpf::Task) -> Option<Task> {
    (task.flags & task_flag::PRESENT != 0).then(|| Task {
        key: ProcessKey { tgid: task.tgid, start_ticks: task.start_ns / NANOSECONDS_PER_TICK },
        uid: task.uid,
        comm: Name::from_comm(&task.comm),
        cgroup_id: task.cgroup,
        is_kernel_thread: task.flags & task_flag::KERNEL_THREAD != 0,
        is_agent: task.flags & task_flag::AGENT != 0,
    })
}
