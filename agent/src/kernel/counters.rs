//! The kernel's own counts of timewait sockets, from a `net` directory of procfs.
//!
//! They are the truth a dump of the sockets is checked against. Any process's `net` directory shows the counters of
//! its network namespace, which needs no capability; `/proc/thread-self/net` shows those of the calling thread.
//! A counter this kernel does not have is an error, never 0.

use std::{fs, io, path::Path};

/// How many timewait sockets the namespace has, FIN_WAIT2 minisockets among them: `tw` of the line `TCP:` of `sockstat`
/// (`tcp_death_row.tw_refcount` less one, net/ipv4/proc.c).
///
/// # Errors
/// If the file cannot be read, or says no such thing.
pub fn time_wait_count(net: &Path) -> io::Result<u64> {
    read(net, "sockstat", |text| sockstat(text, "TCP:", "tw"))
}

/// How many connections went without TIME_WAIT since the namespace was made, because there were too many already or
/// memory was short: `TCPTimeWaitOverflow` of `netstat`.
///
/// # Errors
/// If the file cannot be read, or says no such thing.
pub fn time_wait_overflow(net: &Path) -> io::Result<u64> {
    read(net, "netstat", |text| netstat(text, "TcpExt:", "TCPTimeWaitOverflow"))
}

fn read(net: &Path, file: &str, value: impl Fn(&str) -> Option<u64>) -> io::Result<u64> {
    let text = fs::read_to_string(net.join(file))?;
    value(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{file} without the counter")))
}

/// A value of `sockstat`: lines of a protocol, then names and values by turns.
fn sockstat(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
    let mut words = line.split_ascii_whitespace();
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key == name {
            return value.parse().ok();
        }
    }
    None
}

/// A value of `netstat`: lines in pairs, the first with the names, the second with the values.
fn netstat(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let (_, value) =
        names.split_ascii_whitespace().zip(values.split_ascii_whitespace()).find(|(key, _)| *key == name)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOCKSTAT: &str = "\
sockets: used 12
TCP: inuse 1 orphan 0 tw 29994 alloc 1 mem 99
UDP: inuse 0 mem 0
UDPLITE: inuse 0
RAW: inuse 0
FRAG: inuse 0 memory 0
";

    /// Shortened in its middle only.
    const NETSTAT: &str = "\
TcpExt: SyncookiesSent SyncookiesRecv TW TWRecycled TWKilled TCPTimeWaitOverflow TCPReqQFullDoCookies
TcpExt: 0 0 1731 6 0 12 0
IpExt: InNoRoutes InTruncatedPkts InMcastPkts
IpExt: 0 0 77
";

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(sockstat(SOCKSTAT, "TCP:", "tw"), Some(29_994));
        assert_eq!(sockstat(SOCKSTAT, "TCP:", "inuse"), Some(1));
        assert_eq!(netstat(NETSTAT, "TcpExt:", "TCPTimeWaitOverflow"), Some(12));
        assert_eq!(netstat(NETSTAT, "TcpExt:", "TWRecycled"), Some(6));
        assert_eq!(netstat(NETSTAT, "IpExt:", "InMcastPkts"), Some(77));
    }

    #[test]
    fn a_counter_that_is_not_there_is_not_zero() {
        assert_eq!(sockstat("UDP: inuse 0 mem 0\n", "TCP:", "tw"), None);
        assert_eq!(sockstat("TCP: inuse 1 tw\n", "TCP:", "tw"), None);
        assert_eq!(sockstat("TCP: inuse 1 tw -3\n", "TCP:", "tw"), None);
        assert_eq!(netstat(NETSTAT, "TcpExt:", "TCPNoSuchThing"), None);
        assert_eq!(netstat("TcpExt: TCPTimeWaitOverflow\n", "TcpExt:", "TCPTimeWaitOverflow"), None);
        let error = read(Path::new("/proc/thread-self/net"), "sockstat", |_| None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(time_wait_count(Path::new("/nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn this_kernel_has_both() {
        let net = Path::new("/proc/thread-self/net");
        time_wait_count(net).unwrap();
        time_wait_overflow(net).unwrap();
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(TCP:|TcpExt:|tw|[ \n0-9a-z]){0,40}") {
            let _ = sockstat(&text, "TCP:", "tw");
            let _ = netstat(&text, "TcpExt:", "TCPTimeWaitOverflow");
        }
    }
}
