//! Which addresses a namespace has, asked with a socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, bind, ipproto, socket},
};

/// Whether the calling thread's network namespace has this address, as bind() sees it: a socket is bound to it and to no
/// port (IP_BIND_ADDRESS_NO_PORT, Linux 4.2), so nothing is taken. None if it cannot be found out.
#[must_use]
pub fn is_local(address: IpAddr) -> Option<bool> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, Some(ipproto::TCP)).ok()?;
    take_no_port(&socket).ok()?;
    match bind(&socket, &SocketAddr::new(address, 0)) {
        Ok(()) => Some(true),
        Err(Errno::ADDRNOTAVAIL) => Some(false),
        Err(_) => None,
    }
}

fn take_no_port(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of `on`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_local_and_a_documentation_address_is_not() {
        assert_eq!(is_local([127, 0, 0, 1].into()), Some(true));
        assert_eq!(is_local([0, 0, 0, 0].into()), Some(true));
        // 192.0.2.0/24 is for examples (RFC 5737).
        assert_eq!(is_local([192, 0, 2, 7].into()), Some(false));
    }
}
