//! The kernel's answer to a dump: datagrams of netlink messages, taken apart. Pure, and total over any bytes.
//!
//! The layouts come from `netlink-bindings`. Its socket is not used: that one waits for ever, hides the flag that says
//! a dump is inconsistent, and trusts the length in a message's header.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use netlink_bindings::{
    builtin::Nlmsghdr,
    inet_diag::{Msg, TcpInfo},
};
use rustix::{io::Errno, net::AddressFamily};

use crate::model::{Connection, Inode, Netns, SocketRow, TcpState};

/// `NLMSG_ERROR`, `NLMSG_DONE`, and the first type that is not netlink's own (include/uapi/linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const FIRST_OF_FAMILY: u16 = 16;

/// `NLM_F_DUMP_INTR`
const DUMP_INTERRUPTED: u16 = 0x10;

/// `idiag_timer` of a timewait socket (inet_twsk_diag_fill, net/ipv4/inet_diag.c).
const TIMER_TIME_WAIT: u8 = 3;

/// A message of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A socket, still in bytes
    Socket(&'a [u8]),
    /// The end of the dump, with the error that ended it
    Done(Option<Errno>),
    /// The request was refused
    Refused(Errno),
    /// Bytes that are no message; the rest of the datagram cannot be read
    Malformed,
}

/// The messages of a datagram that answer the request `sequence`, each with whether it says that the tables changed
/// since the dump began (`NLM_F_DUMP_INTR`): then the dump is neither the old nor the new truth. Linux 6.18's inet_diag
/// does not say so even where it happens, which is why sockets are told apart by their cookies besides.
pub(super) fn messages(datagram: &[u8], sequence: u32) -> impl Iterator<Item = (bool, Message<'_>)> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let Some((header, payload, next)) = split(rest) else {
                rest = &[];
                return Some((false, Message::Malformed));
            };
            rest = next;
            if header.seq == sequence
                && let Some(message) = message(&header, payload)
            {
                return Some((header.flags & DUMP_INTERRUPTED != 0, message));
            }
        }
        None
    })
}

/// A message's header and payload, and what follows it, which is aligned to 4 bytes.
fn split(bytes: &[u8]) -> Option<(Nlmsghdr, &[u8], &[u8])> {
    let header = Nlmsghdr::new_from_slice(bytes.get(..Nlmsghdr::len())?)?;
    let length = usize::try_from(header.len).ok()?;
    let payload = bytes.get(Nlmsghdr::len()..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header, payload, next))
}

fn message<'a>(header: &Nlmsghdr, payload: &'a [u8]) -> Option<Message<'a>> {
    match header.r#type {
        // An acknowledgement is an error message with no error.
        ERROR => status(payload).map_or(Some(Message::Malformed), |errno| errno.map(Message::Refused)),
        // Where a module is missing, some kernels only say so at the end of an empty dump.
        DONE => Some(status(payload).map_or(Message::Malformed, Message::Done)),
        0..FIRST_OF_FAMILY => None,
        _ => Some(Message::Socket(payload)),
    }
}

/// The negated error number that an error and an end begin with.
fn status(payload: &[u8]) -> Option<Option<Errno>> {
    let number = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    match number {
        0 => Some(None),
        // Errno takes what a system call can return and nothing else.
        -4095..0 => Some(Some(Errno::from_raw_os_error(-number))),
        _ => None,
    }
}

/// A socket of the dump, with what the row does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// What names the socket on this host, whatever becomes of it
    pub(super) cookie: u64,
    pub(super) row: SocketRow,
}

/// Reads a socket out of `struct inet_diag_msg`. `None` if it is shorter than that, or of a family or a state that is
/// not known.
pub(super) fn socket(netns: Netns, payload: &[u8]) -> Option<Socket> {
    let message = Msg::new_from_slice(payload.get(..Msg::len())?)?;
    let id = &message.sockid;
    let is_time_wait = message.timer == TIMER_TIME_WAIT;
    let row = SocketRow {
        connection: Connection {
            netns,
            local: SocketAddr::new(address(message.family, &id.src)?, id.sport()),
            remote: SocketAddr::new(address(message.family, &id.dst)?, id.dport()),
        },
        state: match TcpState::from_number(message.state)? {
            // No closed socket is in a table that is dumped, except one that is bound: it was asked for as
            // BOUND_INACTIVE and is answered as CLOSE.
            TcpState::Close => TcpState::BoundInactive,
            state => state,
        },
        time_wait_left: is_time_wait.then(|| Duration::from_millis(message.expires.into())),
        inode: (message.inode != 0).then(|| Inode(message.inode.into())),
        uid: message.uid,
        silent_for: silent_for(payload.get(Msg::len()..).unwrap_or_default()),
    };
    Some(Socket { cookie: u64::from_ne_bytes(id.cookie), row })
}

/// `tcpi_last_ack_recv` of the `struct tcp_info` among the attributes, if it is there. The structure grows from kernel to
/// kernel, so it is not read as a whole.
fn silent_for(mut attributes: &[u8]) -> Option<Duration> {
    const INFO: u16 = 2;
    const HEADER: usize = 4;
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    loop {
        let length = usize::from(number(attributes)?);
        let kind = number(attributes.get(2..)?)?;
        let value = attributes.get(HEADER..length)?;
        if kind == INFO {
            let milliseconds = value.get(offset_of!(TcpInfo, last_ack_recv)..)?.first_chunk()?;
            return Some(Duration::from_millis(u32::from_ne_bytes(*milliseconds).into()));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// An address of 16 bytes in network order, of which IPv4 uses the first 4.
fn address(family: u8, bytes: &[u8; 16]) -> Option<IpAddr> {
    match AddressFamily::from_raw(family.into()) {
        AddressFamily::INET => {
            let [a, b, c, d, ..] = *bytes;
            Some(Ipv4Addr::new(a, b, c, d).into())
        }
        AddressFamily::INET6 => Some(Ipv6Addr::from(*bytes).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_bindings::inet_diag::Sockid;
    use proptest::prelude::*;

    use super::*;

    fn wrap(kind: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(Nlmsghdr::len() + payload.len()).unwrap();
        let mut bytes = Nlmsghdr { len, r#type: kind, flags, seq, pid: 0 }.as_slice().to_vec();
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn time_wait() -> Msg {
        let mut sockid = Sockid::new();
        sockid.set_sport(40_000);
        sockid.set_dport(80);
        sockid.src = "::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets();
        sockid.dst = "::ffff:10.0.0.2".parse::<Ipv6Addr>().unwrap().octets();
        sockid.cookie = 7u64.to_ne_bytes();
        let mut message = Msg::new();
        message.family = 10;
        message.state = 6;
        message.timer = 3;
        message.expires = 59_123;
        message.sockid = sockid;
        message
    }

    #[test]
    fn a_v4_mapped_timewait_socket_is_an_ipv4_connection() {
        let socket = socket(Netns(5), time_wait().as_slice()).unwrap();
        assert_eq!(socket.cookie, 7);
        assert_eq!(
            socket.row,
            SocketRow {
                connection: Connection {
                    netns: Netns(5),
                    local: "10.0.0.1:40000".parse().unwrap(),
                    remote: "10.0.0.2:80".parse().unwrap(),
                },
                state: TcpState::TimeWait,
                time_wait_left: Some(Duration::from_millis(59_123)),
                inode: None,
                uid: 0,
                silent_for: None,
            }
        );
    }

    #[test]
    fn a_full_fin_wait2_socket_is_not_a_minisocket() {
        let mut message = time_wait();
        message.state = 5;
        message.timer = 0;
        message.inode = 31;
        let full = socket(Netns(5), message.as_slice()).unwrap().row;
        assert_eq!((full.substate(), full.inode, full.state), (None, Some(Inode(31)), TcpState::FinWait2));
        message.timer = 3;
        message.inode = 0;
        let mini = socket(Netns(5), message.as_slice()).unwrap().row;
        assert_eq!(mini.substate(), Some(crate::model::TimeWaitSubstate::FinWait2));
    }

    #[test]
    fn what_is_not_known_is_no_row() {
        let mut message = time_wait();
        for state in [0, 14, 255] {
            message.state = state;
            assert_eq!(socket(Netns(5), message.as_slice()), None);
        }
        message.state = 6;
        message.family = 1;
        assert_eq!(socket(Netns(5), message.as_slice()), None);
        assert_eq!(socket(Netns(5), time_wait().as_slice().get(..71).unwrap()), None);
    }

    #[test]
    fn a_datagram_is_taken_apart() {
        let message = time_wait();
        let datagram = [
            wrap(20, 2, 1, message.as_slice()),
            wrap(20, 2, 9, b"the answer to somebody else's question"),
            wrap(20, 2, 1, &[message.as_slice(), &[1, 2, 3]].concat()),
            wrap(1, 0, 1, b"a no-op"),
            wrap(2, 0, 1, &0i32.to_ne_bytes()),
            wrap(3, 2, 1, &0i32.to_ne_bytes()),
        ]
        .concat();
        let found: Vec<_> = messages(&datagram, 1).collect();
        assert!(
            matches!(
                &found[..],
                [(false, Message::Socket(a)), (false, Message::Socket(b)), (false, Message::Done(None))]
                    if a.len() == 72 && b.len() == 75
            ),
            "{found:?}"
        );
    }

    #[test]
    fn every_way_to_say_no_is_heard() {
        let answer = |kind, flags, number: i32| {
            let datagram = wrap(kind, flags, 1, &number.to_ne_bytes());
            messages(&datagram, 1)
                .map(|(interrupted, message)| format!("{interrupted} {message:?}"))
                .collect::<String>()
        };
        assert_eq!(answer(ERROR, 0, -1), format!("false {:?}", Message::Refused(Errno::PERM)));
        assert_eq!(answer(ERROR, 0, 0), "", "an acknowledgement");
        assert_eq!(answer(DONE, 2, -2), format!("false {:?}", Message::Done(Some(Errno::NOENT))));
        assert_eq!(answer(DONE, 2 | 16, 0), "true Done(None)");
        assert_eq!(answer(ERROR, 0, 5), "false Malformed", "a positive number is no error number");
        assert_eq!(answer(ERROR, 0, i32::MIN), "false Malformed");
    }

    #[test]
    fn a_message_that_is_cut_or_goes_in_circles_ends_the_datagram() {
        let done = wrap(DONE, 2, 1, &[0, 0]);
        let malformed = [(false, Message::Malformed)];
        assert_eq!(messages(done.get(..18).unwrap(), 1).collect::<Vec<_>>(), malformed, "a status of two bytes");
        assert_eq!(messages(done.get(..15).unwrap(), 1).collect::<Vec<_>>(), malformed, "half a header");
        assert_eq!(messages(&[0; 64], 0).collect::<Vec<_>>(), malformed, "a length of 0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = socket(Netns(1), &bytes);
            prop_assert!(messages(&bytes, 1).count() <= bytes.len());
        }

        #[test]
        fn any_payload_in_a_sound_frame_is_taken(
            payloads in prop::collection::vec((0u16..25, any::<u16>(), prop::collection::vec(any::<u8>(), 0..100)), 0..8),
        ) {
            let datagram: Vec<u8> =
                payloads.iter().flat_map(|(kind, flags, payload)| wrap(*kind, *flags, 1, payload)).collect();
            for (_, message) in messages(&datagram, 1) {
                if let Message::Socket(payload) = message {
                    let _ = socket(Netns(1), payload);
                }
            }
        }
    }
}
