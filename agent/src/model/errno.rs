//! Names of error numbers, as `errno.h` and every man page write them.
//!
//! Only those that bind(2), listen(2), connect(2) and TCP itself can set. Any other is shown by its number: a wrong
//! name would be worse than none.

use std::borrow::Cow;

// include/uapi/asm-generic/errno-base.h, errno.h
/// Not permitted: what bind() says of a privileged port.
pub const EACCES: u32 = 13;
/// What bind() says of an address that is not one of this host, and connect() where no local port is to be had.
pub const EADDRNOTAVAIL: u32 = 99;
/// The address is in use: what bind() and listen() say of a conflict, and of a search for
/// any port that found none.
pub const EADDRINUSE: u32 = 98;

/// Name of an errno (a positive number, as the kernel counts them on this architecture): `EADDRINUSE`, or `errno 4711`
/// if it is none of TCP's.
#[must_use]
pub fn name(errno: u32) -> Cow<'static, str> {
    let name = i32::try_from(errno).ok().and_then(|errno| NAMES.iter().find(|(number, _)| *number == errno));
    name.map_or_else(|| Cow::Owned(format!("errno {errno}")), |&(_, name)| Cow::Borrowed(name))
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

/// bind(2), listen(2), connect(2), tcp(7), and what ICMP is turned into (`icmp_err_convert` in net/ipv4/icmp.c,
/// `tab_unreach` in net/ipv6/icmp.c).
const NAMES: &[(libc::c_int, &str)] = names! {
    EPERM EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT ENODEV EINVAL EPIPE ENOTSOCK EPROTOTYPE EPROTONOSUPPORT
    ENOPROTOOPT EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED
    ECONNRESET ENOBUFS EISCONN ENOTCONN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS EPROTO
    EMSGSIZE ENONET
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_kernel_have_their_names() {
        // include/uapi/asm-generic/errno.h
        for (errno, expected) in [(13, "EACCES"), (98, "EADDRINUSE"), (99, "EADDRNOTAVAIL"), (111, "ECONNREFUSED")] {
            assert_eq!(name(errno), expected);
        }
    }

    #[test]
    fn no_number_has_two_names() {
        for (index, (number, name)) in NAMES.iter().enumerate() {
            assert!(!NAMES[..index].iter().any(|(other, _)| other == number), "{name} is there twice");
        }
    }

    #[test]
    fn an_unknown_number_stays_a_number() {
        assert_eq!(name(4711), "errno 4711");
        assert_eq!(name(0), "errno 0");
        assert_eq!(name(u32::MAX), "errno 4294967295");
    }
}
