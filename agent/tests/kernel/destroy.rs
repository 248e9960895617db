//! SOCK_DESTROY: sockets that go without their process's doing.

use std::{io, net::IpAddr};

use firstfin::model::Connection;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use crate::netns::Net;

// include/uapi/linux/sock_diag.h, include/uapi/linux/netlink.h
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;

/// SOCK_DESTROY of an IPv4 connection, as `ss -K` does it. The kernel's refusal is no error: what it does is the test's.
pub(crate) fn sock_destroy(net: &Net, connection: &Connection) -> io::Result<()> {
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (connection.local.ip(), connection.remote.ip()) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    // struct nlmsghdr, struct inet_diag_req_v2
    let mut message = Vec::with_capacity(72);
    message.extend_from_slice(&72_u32.to_ne_bytes());
    message.extend_from_slice(&SOCK_DESTROY.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[2, 6, 0, 0]);
    message.extend_from_slice(&u32::MAX.to_ne_bytes());
    message.extend_from_slice(&connection.local.port().to_be_bytes());
    message.extend_from_slice(&connection.remote.port().to_be_bytes());
    for address in [local, remote] {
        message.extend_from_slice(&address.octets());
        message.extend_from_slice(&[0; 12]);
    }
    message.extend_from_slice(&[0; 4]);
    // INET_DIAG_NOCOOKIE, twice
    message.extend_from_slice(&[0xff; 8]);
    net.inside(|| {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        send(&socket, &message, SendFlags::empty())?;
        let mut answer = [0_u8; 4_096];
        let (_, length) = recv(&socket, &mut answer, RecvFlags::empty())?;
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if length >= 20 && kind == Some(NLMSG_ERROR) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    })
}
