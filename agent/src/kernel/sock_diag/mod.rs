//! Dumps the TCP sockets of a network namespace through `NETLINK_SOCK_DIAG`: the kernel's own answer to which sockets
//! there are, timewait sockets and their time left among them.
//!
//! sock_diag sees the namespace of the thread that opens the socket, so [`dump`] is to be called on a thread that is in
//! the namespace meant ([`super::netns::enter`]). A timewait socket has no inode and no owner here; who left it is not
//! this module's business. Asking takes no capability.
//!
//! The kernel walks its hash tables while they change. A socket met twice is kept once, as it was seen last; one that
//! moved the other way can be missed, which is what the counters in [`super::counters`] are for.

mod answer;
mod error;

use std::{collections::HashSet, os::fd::OwnedFd, time::Duration};

use answer::{Message, Socket};
pub use error::{Family, SockDiagError};
use netlink_bindings::{
    builtin::Nlmsghdr,
    consts::NLM_F_REQUEST,
    inet_diag::{OpTcpDiagDump, ReqV2, Request, Sockid},
    traits::{NetlinkRequest, Protocol},
};
use rustix::{
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt},
};

use crate::model::{Netns, Rows, SocketRow, TcpState};

/// The kernel answers at once or not at all: dumping 100,000 sockets takes some 40 ms in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel never puts more than 32 KiB into one datagram of a dump (netlink_recvmsg, net/netlink/af_netlink.c).
const DATAGRAM_BYTES: usize = 32 * 1024;

/// `1 << (INET_DIAG_INFO - 1)`: with `struct tcp_info` (include/uapi/linux/inet_diag.h).
const EXTENSION_INFO: u8 = 2;

/// How often a dump that the kernel calls inconsistent is begun anew.
const ATTEMPTS: u32 = 3;

/// Which sockets to dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpFilter {
    /// The states wanted, bit N for the [`TcpState`] of number N. A timewait socket counts as what it stands for.
    pub states: u32,
    /// Only sockets of this port here
    pub local_port: Option<u16>,
    /// Only timewait sockets: a full socket in FIN_WAIT2 has the same state number as a minisocket
    pub time_wait_only: bool,
    /// With [`SocketRow::silent_for`], which makes an answer four times as long
    pub with_silence: bool,
}

impl DumpFilter {
    /// Every socket there is. Sockets that are only bound are told by Linux 6.8 and later.
    #[must_use]
    pub const fn all() -> Self {
        // Not CLOSE: sockets that are on their way out of the tables are nobody's.
        Self { states: 0b11_1111_0111_1110, local_port: None, time_wait_only: false, with_silence: false }
    }

    /// Every socket that a process may have open: all but those in TIME_WAIT proper.
    #[must_use]
    pub const fn open() -> Self {
        Self { states: Self::all().states & !(1 << TcpState::TimeWait as u8), ..Self::all() }
    }

    /// Timewait sockets, FIN_WAIT2 minisockets among them.
    #[must_use]
    pub const fn time_wait() -> Self {
        let states = 1 << TcpState::FinWait2 as u8 | 1 << TcpState::TimeWait as u8;
        Self { states, time_wait_only: true, ..Self::all() }
    }

    /// Connections that the other side has closed and this side has not, with how long nothing has come of them.
    #[must_use]
    pub const fn close_wait() -> Self {
        Self { states: 1 << TcpState::CloseWait as u8, with_silence: true, ..Self::all() }
    }

    /// Every socket of a port here.
    #[must_use]
    pub const fn port(port: u16) -> Self {
        Self { local_port: Some(port), ..Self::all() }
    }

    /// Whether every timewait socket passes, so that their number can be compared with the kernel's.
    #[must_use]
    pub const fn has_every_time_wait(&self) -> bool {
        self.local_port.is_none() && self.states & Self::time_wait().states == Self::time_wait().states
    }

    fn passes(&self, row: &SocketRow) -> bool {
        self.local_port.is_none_or(|port| port == row.connection.local.port())
            && (!self.time_wait_only || row.time_wait_left.is_some())
    }
}

/// Dumps the TCP sockets of the calling thread's network namespace, which `netns` names in the rows.
///
/// IPv4-mapped addresses of IPv6 sockets are written as IPv4. A socket of a state that is not known is left out and
/// logged.
///
/// # Errors
/// If the kernel does not answer in full; there is no such thing as half a dump.
pub fn dump(netns: Netns, filter: &DumpFilter) -> Result<Rows, SockDiagError> {
    let mut collected = Collected::default();
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut attempt = 1;
        loop {
            let mut answer = Collected::default();
            match ask(family, netns, filter, &mut answer)? {
                Consistency::Consistent => {
                    answer.settle();
                    collected.append(answer);
                    break;
                }
                Consistency::Interrupted if attempt < ATTEMPTS => attempt += 1,
                Consistency::Interrupted => return Err(SockDiagError::Inconsistent { family }),
            }
        }
    }
    if collected.skipped > 0 {
        log::warn!("sock_diag: {} sockets of an unknown state or family left out", collected.skipped);
    }
    Ok(collected.rows)
}

/// Rows, with the cookies that name their sockets.
#[derive(Default)]
struct Collected {
    rows: Rows,
    cookies: Cookies,
    skipped: u64,
}

impl Collected {
    fn take(&mut self, socket: Option<&Socket>, filter: &DumpFilter) {
        let Some(Socket { cookie, row }) = socket else {
            self.skipped += 1;
            return;
        };
        if filter.passes(row) {
            self.cookies.push(*cookie, u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
            self.rows.push(row);
        }
    }

    /// Keeps each socket once, as it was met last.
    fn settle(&mut self) {
        let superseded = std::mem::take(&mut self.cookies).superseded();
        if !superseded.is_empty() {
            let mut numbers = 0..;
            self.rows.retain(|_| numbers.next().is_none_or(|number| !superseded.contains(&number)));
        }
    }

    /// Takes the sockets of the other family, which are others.
    fn append(&mut self, other: Self) {
        self.rows.append(other.rows);
        self.skipped += other.skipped;
    }
}

/// Cookies with the numbers of their rows. There are as many as there are sockets, at a time when memory is at its fullest.
#[derive(Default)]
struct Cookies {
    /// The kernel counts them up from 1 (`gen_cookie_next()`, include/linux/cookie.h)
    short: Vec<[u32; 2]>,
    /// And those it gives out in an interrupt down from 2^64
    long: Vec<(u64, u32)>,
}

impl Cookies {
    fn push(&mut self, cookie: u64, number: u32) {
        match u32::try_from(cookie) {
            Ok(cookie) => self.short.push([cookie, number]),
            Err(_) => self.long.push((cookie, number)),
        }
    }

    /// The rows of sockets that were met once more after them.
    fn superseded(mut self) -> HashSet<u32> {
        self.leave_out_lone();
        self.short.sort_unstable();
        self.long.sort_unstable();
        let short = self.short.array_windows().filter(|[[cookie, _], [next, _]]| cookie == next);
        let long = self.long.array_windows().filter(|[(cookie, _), (next, _)]| cookie == next);
        short.map(|[[_, number], _]| *number).chain(long.map(|[(_, number), _]| *number)).collect()
    }

    /// Leaves out those that are there once for certain, which is nearly all of them, so that they need not be sorted: no
    /// other one ends in the same bits. Cookies that are given out one after the other do not.
    fn leave_out_lone(&mut self) {
        let bits = (self.short.len() * 8).next_power_of_two().max(64);
        let place = |cookie: u32| (cookie as usize % bits / 64, 1_u64 << (cookie % 64));
        let (mut once, mut twice) = (vec![0_u64; bits / 64], vec![0_u64; bits / 64]);
        for [cookie, _] in &self.short {
            let (word, bit) = place(*cookie);
            if let Some((once, twice)) = once.get_mut(word).zip(twice.get_mut(word)) {
                *twice |= *once & bit;
                *once |= bit;
            }
        }
        self.short.retain(|[cookie, _]| {
            let (word, bit) = place(*cookie);
            twice.get(word).is_some_and(|twice| twice & bit != 0)
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Consistency {
    Consistent,
    Interrupted,
}

/// One dump of one family.
fn ask(family: Family, netns: Netns, filter: &DumpFilter, into: &mut Collected) -> Result<Consistency, SockDiagError> {
    const SEQUENCE: u32 = 1;
    let failed = |errno| SockDiagError::from_errno(family, errno);
    // One socket a dump: what an abandoned dump left unread goes with it.
    let socket = open().map_err(failed)?;
    let request = request(family, filter, SEQUENCE);
    retry_on_intr(|| net::send(&socket, &request, SendFlags::empty())).map_err(failed)?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut consistency = Consistency::Consistent;
    loop {
        let (_, length) =
            retry_on_intr(|| net::recv(&socket, buffer.as_mut_slice(), RecvFlags::TRUNC)).map_err(failed)?;
        // Longer than the buffer: the kernel broke its own limit, and messages are lost.
        let datagram = buffer.get(..length).filter(|bytes| !bytes.is_empty());
        let datagram = datagram.ok_or(SockDiagError::Malformed { family })?;
        for (is_interrupted, message) in answer::messages(datagram, SEQUENCE) {
            if is_interrupted {
                consistency = Consistency::Interrupted;
            }
            match message {
                Message::Socket(payload) => into.take(answer::socket(netns, payload).as_ref(), filter),
                Message::Done(None) => return Ok(consistency),
                Message::Done(Some(errno)) | Message::Refused(errno) => return Err(failed(errno)),
                Message::Malformed => return Err(SockDiagError::Malformed { family }),
            }
        }
    }
}

fn open() -> rustix::io::Result<OwnedFd> {
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    // Connected to the kernel, port 0: no other process can put in a word.
    net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// The request in bytes, header first.
fn request(family: Family, filter: &DumpFilter, sequence: u32) -> Vec<u8> {
    let mut sockid = Sockid::new();
    sockid.set_sport(filter.local_port.unwrap_or_default());
    let mut header = ReqV2::new();
    header.family = family.number();
    header.protocol = u8::try_from(net::ipproto::TCP.as_raw().get()).unwrap_or_default();
    header.states = filter.states;
    header.ext = if filter.with_silence { EXTENSION_INFO } else { 0 };
    header.sockid = sockid;
    let request: OpTcpDiagDump<'_> = Request::new().op_tcp_diag_dump(&header);
    let request_type = match request.protocol() {
        Protocol::Raw { request_type, .. } => request_type,
        Protocol::Generic(_) => 0,
    };
    let length = Nlmsghdr::len() + request.payload().len();
    let header = Nlmsghdr {
        len: u32::try_from(length).unwrap_or_default(),
        r#type: request_type,
        flags: request.flags() | u16::try_from(NLM_F_REQUEST).unwrap_or_default(),
        seq: sequence,
        pid: 0,
    };
    [header.as_slice(), request.payload()].concat()
}

fn retry_on_intr<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_are_all_but_closed_ones() {
        let expected = TcpState::ALL.iter().filter(|&&state| state != TcpState::Close);
        assert_eq!(DumpFilter::all().states, expected.fold(0, |states, &state| states | 1 << state as u32));
        assert_eq!(DumpFilter::time_wait().states, 1 << 5 | 1 << 6);
        assert_eq!(DumpFilter::open().states, DumpFilter::all().states & !(1 << 6));
        assert!(DumpFilter::all().has_every_time_wait() && DumpFilter::time_wait().has_every_time_wait());
        assert!(!DumpFilter::open().has_every_time_wait());
        assert!(!DumpFilter::port(80).has_every_time_wait());
        assert!(!DumpFilter { states: 1 << 6, ..DumpFilter::all() }.has_every_time_wait(), "minisockets are missing");
    }

    #[test]
    fn the_request_is_what_inet_diag_reads() {
        let bytes = request(Family::Ipv6, &DumpFilter::port(8080), 1);
        // struct nlmsghdr: length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP.
        assert_eq!(bytes.get(..8).unwrap(), [72u32.to_ne_bytes(), 0x0301_0014u32.to_ne_bytes()].concat());
        // struct inet_diag_req_v2: AF_INET6, IPPROTO_TCP, no extensions, the states, the port in network order.
        assert_eq!(bytes.get(16..20).unwrap(), [10, 6, 0, 0]);
        assert_eq!(bytes.get(20..24).unwrap(), 0x3f7eu32.to_ne_bytes());
        assert_eq!(bytes.get(24..26).unwrap(), 8080u16.to_be_bytes());
        assert_eq!(bytes.len(), 72);
    }

    #[test]
    fn a_socket_met_twice_is_kept_once_as_it_was_last() {
        let connection = crate::model::Connection {
            netns: Netns(1),
            local: "10.0.0.1:40000".parse().unwrap(),
            remote: "10.0.0.2:80".parse().unwrap(),
        };
        let row = |state, left: Option<u64>| SocketRow {
            connection,
            state,
            time_wait_left: left.map(Duration::from_secs),
            inode: None,
            uid: 0,
            silent_for: None,
        };
        let mut collected = Collected::default();
        let filter = DumpFilter::all();
        collected.take(Some(&Socket { cookie: u64::MAX - 7, row: row(TcpState::SynSent, None) }), &filter);
        collected.take(Some(&Socket { cookie: u64::MAX - 7, row: row(TcpState::Established, None) }), &filter);
        collected.take(Some(&Socket { cookie: 7 << 32, row: row(TcpState::CloseWait, None) }), &filter);
        collected.take(Some(&Socket { cookie: 7, row: row(TcpState::FinWait1, None) }), &filter);
        collected.take(Some(&Socket { cookie: 8, row: row(TcpState::Listen, None) }), &filter);
        collected.take(Some(&Socket { cookie: 7, row: row(TcpState::TimeWait, Some(60)) }), &filter);
        collected.take(None, &filter);
        collected.settle();
        let rows: Vec<SocketRow> = collected.rows.iter().collect();
        let others = [TcpState::Established, TcpState::CloseWait, TcpState::Listen].map(|state| row(state, None));
        assert_eq!(rows, [&others[..], &[row(TcpState::TimeWait, Some(60))]].concat());
        assert_eq!(collected.skipped, 1);
        let mut minisockets = Collected::default();
        minisockets.take(Some(&Socket { cookie: 7, row: row(TcpState::FinWait2, None) }), &DumpFilter::time_wait());
        minisockets.take(Some(&Socket { cookie: 8, row: row(TcpState::FinWait2, Some(9)) }), &DumpFilter::time_wait());
        minisockets.settle();
        assert_eq!(minisockets.rows.iter().collect::<Vec<_>>(), [row(TcpState::FinWait2, Some(9))]);
    }

    proptest! {
        #[test]
        fn whoever_is_met_again_is_superseded(cookies in prop::collection::vec((0_u64..40, 0_u32..3), 0..200)) {
            let mut met = Cookies::default();
            let (mut last, mut expected) = (HashMap::new(), HashSet::new());
            for (number, (low, far)) in (0..).zip(cookies) {
                // Some far away that end in the same bits, some of those that are counted down.
                let cookie = match far {
                    0 => low,
                    1 => low | 1 << 28,
                    _ => u64::MAX - low,
                };
                met.push(cookie, number);
                expected.extend(last.insert(cookie, number));
            }
            prop_assert_eq!(met.superseded(), expected);
        }
    }

    #[test]
    fn a_listener_of_ours_is_in_the_dump_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        for filter in [DumpFilter::all(), DumpFilter::port(local.port())] {
            let rows = dump(Netns(1), &filter).unwrap();
            let ours: Vec<_> = rows.iter().filter(|row| row.connection.local == local).collect();
            assert!(matches!(&ours[..], [row] if row.state == TcpState::Listen && row.inode.is_some()), "{ours:?}");
        }
        assert!(dump(Netns(1), &DumpFilter::port(local.port())).unwrap().len() == 1);
    }
}
