//! Bytes of the ring buffer -> [`Event`]. Total: any bytes give an event or an error, never a panic.

use std::{
    cell::Cell,
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use agent_ebpf::{
    Address, Ends, Header, RecordKind, SyscallRecord, TaskNumber, TaskRecord, TimeWaitRecord, TransitionRecord,
    ask_flag, conn_flag, look, task_flag, timewait_state,
};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::{
    hash::FastMap,
    model::{
        Asker, Call, ClosedByPeer, Connection, Event, Leaving, Name, Netns, OpenKind, ProcessKey, RefusedCall,
        Retraction, SocketFacts, SocketId, SocketOptions, Task, TcpState, TimeWaitChange, TimeWaitEvent, TimeWaitId,
        TimeWaitMade, TimeWaitSubstate, Timestamp, Transition,
    },
};

/// Why a record was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Shorter than a header
    #[error("record of {0} bytes has no header")]
    Short(usize),
    /// A kind this agent does not know
    #[error("record of unknown kind {0}")]
    UnknownKind(u8),
    /// Not the size of its kind
    #[error("{kind:?} record of {actual} bytes")]
    WrongSize {
        /// What the header says
        kind: RecordKind,
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
/// `USER_HZ`: what `/proc/PID/stat` counts a start time in, on every architecture Rust and BPF share
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Reads records in the order in which they came. A record names processes by numbers, and one before it has told which
/// process a number stands for.
#[derive(Debug)]
pub struct Decoder {
    tasks: FastMap<TaskNumber, Known>,
    /// The last number of each process
    last: FastMap<ProcessKey, TaskNumber>,
    /// Numbers, those first that are forgotten first
    order: VecDeque<TaskNumber>,
    limit: usize,
}

/// Who a number stands for.
#[derive(Debug)]
struct Known {
    task: Arc<Task>,
    /// A record has named it, or it was said to run, since it was last its turn to be forgotten
    is_used: Cell<bool>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Self::DEFAULT_LIMIT)
    }
}

impl Decoder {
    /// Numbers remembered unless told otherwise, about 10 MB of them. The programs announce a process anew once 16,384
    /// others have used TCP since it did, and never as long as it goes on. So what goes is what was neither named by a
    /// record nor said to [run](Self::keep) while so many others were announced. A connection that such a process opened
    /// and another one closes, days later, lacks its opener: [`SocketFacts::opener_lost`] says so.
    pub const DEFAULT_LIMIT: usize = 1 << 16;

    /// A decoder that remembers so many processes at most.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { tasks: FastMap::default(), last: FastMap::default(), order: VecDeque::new(), limit }
    }

    /// Decodes one record.
    ///
    /// # Errors
    /// The bytes are not a record of [`agent_ebpf::ABI_VERSION`].
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Event, DecodeError> {
        let mut events = Vec::with_capacity(1);
        self.decode_onto(bytes, &mut events)?;
        // One record, one event.
        events.pop().ok_or(DecodeError::Short(bytes.len()))
    }

    /// Decodes one record, and puts the event behind others: it is made where it stays.
    ///
    /// # Errors
    /// Those of [`Self::decode`]; `events` are as before.
    #[inline]
    pub fn decode_onto(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), DecodeError> {
        let short = DecodeError::Short(bytes.len());
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| short)?;
        let kind = RecordKind::from_u8(header.kind).ok_or(DecodeError::UnknownKind(header.kind))?;
        let wrong_size = || DecodeError::WrongSize { kind, actual: bytes.len() };
        match kind {
            RecordKind::Transition => {
                let (record, rest) = TransitionRecord::ref_from_prefix(bytes).map_err(|_| wrong_size())?;
                let (connection, in_full) = connection(record, rest).ok_or_else(wrong_size)?;
                return self.change_onto(record, connection, in_full, events);
            }
            RecordKind::ClosedByPeer => {
                let rest = bytes.get(size_of::<Header>()..).unwrap_or_default();
                events.push(closed_by_peer(header, rest).ok_or_else(wrong_size)?);
            }
            RecordKind::TimeWait => {
                let (record, rest) = TimeWaitRecord::ref_from_prefix(bytes).map_err(|_| wrong_size())?;
                events.push(timewait(record, rest).ok_or_else(wrong_size)??);
            }
            RecordKind::Syscall => {
                events.push(refused(SyscallRecord::ref_from_bytes(bytes).map_err(|_| wrong_size())?)?);
            }
            RecordKind::Task => {
                let record = TaskRecord::ref_from_bytes(bytes).map_err(|_| wrong_size())?;
                let nobody = DecodeError::BadValue { member: "task.flags", value: 0 };
                events.push(self.announced(record).ok_or(nobody)?);
            }
        }
        Ok(())
    }

    fn announced(&mut self, record: &TaskRecord) -> Option<Event> {
        let task = task(&record.task)?;
        while self.order.len() >= self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            // Each gets one more turn, so this ends.
            if self.tasks.get(&oldest).is_some_and(|known| known.is_used.take()) {
                self.order.push_back(oldest);
            } else if let Some(Known { task, .. }) = self.tasks.remove(&oldest)
                && self.last.get(&task.key) == Some(&oldest)
            {
                self.last.remove(&task.key);
            }
        }
        self.last.insert(task.key, record.number);
        let known = Known { task: Arc::new(task.clone()), is_used: Cell::new(false) };
        if self.tasks.insert(record.number, known).is_none() {
            self.order.push_back(record.number);
        }
        Some(Event::ProcessSeen(task))
    }

    /// Keeps the last number of each of these processes, since they run: a record may name it as long as they do. To be
    /// told from time to time.
    pub fn keep(&self, running: impl IntoIterator<Item = ProcessKey>) {
        for known in running.into_iter().filter_map(|key| self.tasks.get(self.last.get(&key)?)) {
            known.is_used.set(true);
        }
    }

    /// How many numbers it remembers.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.tasks.len()
    }

    /// Who a number stands for, and whether that is not known although somebody was seen.
    fn who(&self, count: u32, origin: u16) -> (Option<Arc<Task>>, bool) {
        let number = TaskNumber { count, origin, reserved: 0 };
        if number == TaskNumber::NOBODY {
            return (None, false);
        }
        let Some(known) = self.tasks.get(&number) else { return (None, true) };
        // Most are marked already, and then nothing is written.
        if !known.is_used.get() {
            known.is_used.set(true);
        }
        (Some(Arc::clone(&known.task)), false)
    }

    #[inline]
    fn change_onto(
        &self,
        record: &TransitionRecord,
        connection: Connection,
        in_full: Option<[u64; 2]>,
        events: &mut Vec<Event>,
    ) -> Result<(), DecodeError> {
        let at = Timestamp(record.header.time_ns);
        let has = |flag| record.header.flags & flag != 0;
        let old = state("old_state", record.header.what >> 4)?;
        let new = state("new_state", record.header.what & 0xf)?;
        let socket = SocketId(record.socket);
        if (old, new) == (TcpState::Close, TcpState::Close) {
            events.push(Event::Retraction(Retraction { at, socket, connection }));
            return Ok(());
        }
        let opened = if has(conn_flag::ACTIVE_OPEN) {
            Some(OpenKind::Active)
        } else if has(conn_flag::PASSIVE_OPEN) {
            Some(OpenKind::Passive)
        } else {
            None
        };
        let (opener, opener_lost) = self.who(record.opener, record.opener_origin);
        // As a rule they are one.
        let (closer, closer_lost) = if (record.closer, record.closer_origin) == (record.opener, record.opener_origin) {
            (opener.clone(), opener_lost)
        } else {
            self.who(record.closer, record.closer_origin)
        };
        // One place for both: a connection is either opened here, or accepted.
        let (opener, accepter) = match opened {
            Some(OpenKind::Passive) => (None, opener),
            _ => (opener, None),
        };
        let timewait = made(record.timewait_state, in_full.map_or(record.socket, |[_, timewait]| timewait))?;
        let socket_state = record.look >> look::SOCKET_STATE_SHIFT & look::SOCKET_STATE;
        events.push(Event::Transition(Transition {
            at,
            socket,
            connection,
            old,
            new,
            opened,
            born: in_full.map(|[born, _]| born).filter(|&born| born != 0).map(Timestamp),
            opener,
            accepter,
            closer,
            timewait,
            facts: SocketFacts {
                began_in_session: has(conn_flag::SEEN_BEGIN),
                closer_lost,
                opener_lost,
                port_bound: has(conn_flag::PORT_BOUND),
                established: has(conn_flag::ESTABLISHED) || old.is_synchronized(),
                fin_first: has(conn_flag::FIN_FIRST),
                fin_second: has(conn_flag::FIN_SECOND) || matches!(old, TcpState::CloseWait | TcpState::LastAck),
                fin_received: record.look & look::FIN_RECEIVED != 0,
                reset_received: has(conn_flag::RESET_RECEIVED),
                reset_sent: has(conn_flag::RESET_SENT),
                syn_rejected: has(conn_flag::SYN_REJECTED),
                errno: u32::from(record.err),
                port_errno: u32::from(record.port_errno),
                is_shut_down: record.look & look::SHUTDOWN == look::SHUTDOWN,
                has_socket: socket_state != 0,
                is_unconnected: socket_state == SS_UNCONNECTED,
                linger_zero: record.look & look::LINGER_ZERO != 0,
                options: Some(options(record.reuse)),
            },
        }));
        Ok(())
    }
}

/// The connection a record is about, and when it began and its timewait socket, if that is told. None if `rest` is not as
/// long as the flags say.
fn connection(record: &TransitionRecord, rest: &[u8]) -> Option<(Connection, Option<[u64; 2]>)> {
    let has = |flag| record.header.flags & flag != 0;
    let (ends, rest) = ends(has(conn_flag::IS_V6), rest)?;
    let connection = between(record.header.netns, ends, (record.local_port, record.remote_port));
    let in_full = if has(conn_flag::IN_FULL) { Some(<[u64; 2]>::read_from_bytes(rest).ok()?) } else { None };
    (in_full.is_some() || rest.is_empty()).then_some((connection, in_full))
}

/// A connection by what a record tells of it: the local end first.
const fn between(netns: u32, ends: (IpAddr, IpAddr), ports: (u16, u16)) -> Connection {
    Connection {
        netns: Netns(netns),
        local: SocketAddr::new(ends.0, ports.0),
        remote: SocketAddr::new(ends.1, ports.1),
    }
}

/// Both addresses at the start of `bytes`, and what is behind them.
fn ends(is_v6: bool, bytes: &[u8]) -> Option<((IpAddr, IpAddr), &[u8])> {
    if is_v6 {
        let (ends, rest) = bytes.split_at_checked(Ends::V6_SIZE)?;
        let (local, remote) = ends.split_at(Ends::V6_SIZE / 2);
        // A v4-mapped connection of a dual-stack socket is the IPv4 connection the other end sees.
        let address = |bytes: &[u8]| {
            let bytes = <[u8; 16]>::try_from(bytes).ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
        };
        return Some(((address(local)?, address(remote)?), rest));
    }
    let (ends, rest) = bytes.split_first_chunk::<{ Ends::V4_SIZE }>()?;
    let [a, b, c, d, e, f, g, h] = *ends;
    Some(((Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into()), rest))
}

/// None if it is not as long as the header says.
fn closed_by_peer(header: &Header, rest: &[u8]) -> Option<Event> {
    let ((local, remote), rest) = ends(header.what == 6, rest)?;
    rest.is_empty().then(|| {
        let remote = SocketAddr::new(remote, header.flags);
        Event::ClosedByPeer(ClosedByPeer { at: Timestamp(header.time_ns), netns: Netns(header.netns), local, remote })
    })
}

fn made(state: u8, timewait: u64) -> Result<Option<TimeWaitMade>, DecodeError> {
    Ok(match state {
        timewait_state::UNKNOWN => None,
        timewait_state::REFUSED => Some(TimeWaitMade::Refused),
        state => Some(TimeWaitMade::Made { id: TimeWaitId(timewait), substate: substate("timewait_state", state)? }),
    })
}

fn substate(member: &'static str, value: u8) -> Result<TimeWaitSubstate, DecodeError> {
    match value {
        timewait_state::FIN_WAIT2 => Ok(TimeWaitSubstate::FinWait2),
        timewait_state::TIME_WAIT => Ok(TimeWaitSubstate::TimeWait),
        _ => Err(DecodeError::BadValue { member, value: u32::from(value) }),
    }
}

/// None if `rest` is not as long as the flags say.
fn timewait(record: &TimeWaitRecord, rest: &[u8]) -> Option<Result<Event, DecodeError>> {
    let (ends, rest) = ends(record.header.flags & conn_flag::IS_V6 != 0, rest)?;
    rest.is_empty().then(|| {
        let at = Timestamp(record.header.time_ns);
        let connection = between(record.header.netns, ends, (record.local_port, record.remote_port));
        let change = changed(record)?;
        Ok(Event::TimeWait(TimeWaitEvent { at, id: TimeWaitId(record.timewait), connection, change }))
    })
}

fn changed(record: &TimeWaitRecord) -> Result<TimeWaitChange, DecodeError> {
    use agent_ebpf::TimeWaitChange as Change;

    let change = Change::from_u8(record.header.what)
        .ok_or(DecodeError::BadValue { member: "change", value: u32::from(record.header.what) })?;
    Ok(match (change, substate("substate", record.substate)?) {
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
    })
}

fn refused(record: &SyscallRecord) -> Result<Event, DecodeError> {
    let number = u32::from(record.header.what);
    let call = match agent_ebpf::Call::from_u32(number) {
        Some(agent_ebpf::Call::Bind) => Call::Bind,
        Some(agent_ebpf::Call::Listen) => Call::Listen,
        None => return Err(DecodeError::BadValue { member: "call", value: number }),
    };
    Ok(Event::Refused(RefusedCall {
        at: Timestamp(record.header.time_ns),
        call,
        netns: Netns(record.header.netns),
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
