//! Dumps of sockets, counters and settings.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::{self, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use firstfin::{
    kernel::{
        census, counters,
        processes::Procfs,
        sock_diag::{self, DumpFilter},
        sysctl,
    },
    model::{Inode, Netns, SocketRow, TcpState, TimeWaitSubstate},
};
use libtest_mimic::{Failed, Trial};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, listen, socket, socket_with, sockopt::set_socket_reuseport,
};

use super::{Idle, inode};
use crate::{
    case::{Outcome, trials},
    netns::Net,
};

pub(super) fn tests() -> Vec<Trial> {
    trials!("readers":
        a_dump_has_every_timewait_socket_once,
        a_fin_wait2_socket_is_told_from_its_minisocket,
        a_port_has_its_listener_its_connections_and_who_only_bound_it,
        a_dump_of_a_table_that_changes_has_no_socket_twice,
        the_kernels_count_agrees_as_soon_as_it_stands_still,
        the_kernels_count_and_the_overflow_are_in_the_census,
        usable_ports_are_those_that_connect_gets,
    )
}

const NET: &str = "/proc/thread-self/net";
const DEADLINE: Duration = Duration::from_secs(10);

/// Both ends of a connection to `listener`, as (client, server).
fn connect(listener: &TcpListener, to: SocketAddr) -> io::Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(to)?;
    Ok((client, listener.accept()?.0))
}

/// Closes `first`, and the other end when it has seen that. Returns the endpoints of the timewait socket that is left.
fn close(first: TcpStream, mut second: TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let ends = (canonical(first.local_addr()?), canonical(first.peer_addr()?));
    drop(first);
    second.read_to_end(&mut Vec::new())?;
    Ok(ends)
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > DEADLINE {
            return Err(io::Error::other(format!("not within {DEADLINE:?}: {what}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn dump(net: Netns, filter: &DumpFilter) -> io::Result<Vec<SocketRow>> {
    Ok(sock_diag::dump(net, filter).map_err(io::Error::other)?.iter().collect())
}

fn ends(rows: &[SocketRow]) -> BTreeSet<(SocketAddr, SocketAddr)> {
    rows.iter().map(|row| (row.connection.local, row.connection.remote)).collect()
}

/// Sockets in TIME_WAIT as procfs lists them: state 06 in the fourth column.
fn listed_time_wait() -> io::Result<usize> {
    let text = fs::read_to_string(format!("{NET}/tcp"))? + &fs::read_to_string(format!("{NET}/tcp6"))?;
    Ok(text.lines().filter(|line| line.split_ascii_whitespace().nth(3) == Some("06")).count())
}

/// The same as `ss` counts them, where it is installed.
fn ss_time_wait() -> Option<usize> {
    let output = Command::new("ss").args(["-Htan", "state", "time-wait"]).output().ok()?;
    output.status.success().then(|| output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count())
}

fn a_dump_has_every_timewait_socket_once() -> Outcome {
    let net = Net::new()?;
    net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    let (rows, expected, witnesses) = net.inside(|| {
        let (v4, dual) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::]:0")?);
        let (to_v4, port) = (v4.local_addr()?, dual.local_addr()?.port());
        let mut expected = BTreeSet::new();
        for _ in 0..40 {
            let (client, server) = connect(&v4, to_v4)?;
            expected.insert(close(client, server)?);
            let (client, server) = connect(&v4, to_v4)?;
            expected.insert(close(server, client)?);
            let (client, server) = connect(&dual, SocketAddr::new("::1".parse().map_err(io::Error::other)?, port))?;
            expected.insert(close(client, server)?);
            // An IPv6 socket of an IPv4 connection is what stays.
            let (client, server) = connect(&dual, SocketAddr::from(([127, 0, 0, 1], port)))?;
            expected.insert(close(server, client)?);
        }
        let count = u64::try_from(expected.len()).map_err(io::Error::other)?;
        until("the last socket in TIME_WAIT", || Ok(counters::time_wait_count(Path::new(NET))? == count))?;
        let all = |rows: &[SocketRow]| rows.iter().all(|row| row.substate() == Some(TimeWaitSubstate::TimeWait));
        until("all past FIN_WAIT2", || Ok(all(&dump(net.id(), &DumpFilter::time_wait())?)))?;
        Ok((dump(net.id(), &DumpFilter::time_wait())?, expected, (listed_time_wait()?, ss_time_wait())))
    })?;
    assert_eq!(expected.len(), 160, "no port was used twice");
    assert_eq!(ends(&rows), expected);
    assert_eq!(rows.len(), 160, "none is there twice");
    assert_eq!(witnesses.0, 160, "/proc/net/tcp and tcp6");
    assert!(witnesses.1.is_none_or(|count| count == 160), "ss: {:?}", witnesses.1);
    for row in &rows {
        assert_eq!((row.connection.netns, row.inode, row.uid, row.state), (net.id(), None, 0, TcpState::TimeWait));
        assert!(row.time_wait_left.is_some_and(|left| left <= Duration::from_secs(60) && left > DEADLINE), "{row:?}");
    }
    Ok(())
}

fn a_fin_wait2_socket_is_told_from_its_minisocket() -> Outcome {
    let net = Net::new()?;
    net.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let to = listener.local_addr()?;
        let (full, _open) = connect(&listener, to)?;
        full.shutdown(std::net::Shutdown::Write)?;
        let (orphan, _also_open) = connect(&listener, to)?;
        let (full_end, orphan_end) = (full.local_addr()?, orphan.local_addr()?);
        drop(orphan);
        until("one minisocket", || Ok(dump(net.id(), &DumpFilter::time_wait())?.len() == 1))?;
        let minisockets = dump(net.id(), &DumpFilter::time_wait())?;
        assert!(
            matches!(&minisockets[..], [row] if row.connection.local == orphan_end
                && row.substate() == Some(TimeWaitSubstate::FinWait2) && row.inode.is_none()),
            "{minisockets:?}"
        );
        let mut waiting = dump(net.id(), &DumpFilter::all())?;
        waiting.retain(|row| row.state == TcpState::FinWait2);
        assert_eq!(waiting.len(), 2, "{waiting:?}");
        let full_row = waiting.iter().find(|row| row.connection.local == full_end);
        assert!(full_row.is_some_and(|row| row.substate().is_none()), "{full_row:?}");
        // Both kinds of TIME_WAIT are in the kernel's count, the full socket is not.
        assert_eq!(counters::time_wait_count(Path::new(NET))?, 1);
        Ok(())
    })?;
    Ok(())
}

fn a_port_has_its_listener_its_connections_and_who_only_bound_it() -> Outcome {
    let net = Net::new()?;
    net.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:4000")?;
        let (client, server) = connect(&listener, listener.local_addr()?)?;
        let bound = |family, address: &str| {
            let socket: OwnedFd = socket(family, SocketType::STREAM, None)?;
            bind(&socket, &address.parse::<SocketAddr>().map_err(io::Error::other)?)?;
            io::Result::Ok(socket)
        };
        let v4 = bound(AddressFamily::INET, "127.0.0.2:4000")?;
        let mapped = bound(AddressFamily::INET6, "[::ffff:127.0.0.3]:4000")?;
        let _elsewhere = bound(AddressFamily::INET, "127.0.0.1:4001")?;

        let rows = dump(net.id(), &DumpFilter::port(4000))?;
        let at = |address: &str, state: TcpState, inode: Option<Inode>| {
            rows.iter().any(|row| {
                row.connection.local.to_string() == address
                    && row.state == state
                    && row.inode == inode
                    && inode.is_some()
            })
        };
        assert!(at("127.0.0.1:4000", TcpState::Listen, inode(&listener)?), "{rows:?}");
        assert!(at("127.0.0.1:4000", TcpState::Established, inode(&server)?), "{rows:?}");
        let bound_are_told = kernel_is_at_least(6, 8)?;
        assert_eq!(at("127.0.0.2:4000", TcpState::BoundInactive, inode(&v4)?), bound_are_told, "{rows:?}");
        assert_eq!(at("127.0.0.3:4000", TcpState::BoundInactive, inode(&mapped)?), bound_are_told, "{rows:?}");
        assert_eq!(rows.len(), if bound_are_told { 4 } else { 2 }, "{rows:?}");
        let all = dump(net.id(), &DumpFilter::all())?;
        assert_eq!(all.len(), rows.len() + if bound_are_told { 2 } else { 1 }, "{all:?}");
        assert!(all.iter().any(|row| client.local_addr().is_ok_and(|local| row.connection.local == local)), "{all:?}");
        Ok(())
    })?;
    Ok(())
}

/// Whether the running kernel is of this version or a later one.
pub(crate) fn kernel_is_at_least(major: u32, minor: u32) -> io::Result<bool> {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().map_err(io::Error::other)?;
    let mut numbers = release.split(|digit: char| !digit.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    let release = numbers.next().flatten().zip(numbers.next().flatten());
    release.map(|release| release >= (major, minor)).ok_or_else(|| io::Error::other("a release without numbers"))
}

/// Listeners of one port and address are in one bucket of the kernel's table, newest first: each that is added while a
/// dump goes on pushes one over the mark the dump goes on from.
fn a_dump_of_a_table_that_changes_has_no_socket_twice() -> Outcome {
    let net = Net::new()?;
    let listener = || {
        // A program that another test starts meanwhile must not keep it.
        let socket: OwnedFd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseport(&socket, true)?;
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 4000)))?;
        listen(&socket, 1)?;
        io::Result::Ok(socket)
    };
    let steady = net.inside(|| (0..400).map(|_| listener()).collect::<io::Result<Vec<_>>>())?;
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            net.inside(move || {
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    (0..50).map(|_| listener()).collect::<io::Result<Vec<_>>>()?;
                }
                Ok(())
            })
        });
        let dumps =
            net.inside(|| (0..200).map(|_| dump(net.id(), &DumpFilter::port(4000))).collect::<io::Result<Vec<_>>>());
        drop(stop);
        churn.join().map_err(|_| Failed::from("the churn panicked"))??;
        for rows in dumps? {
            let inodes: HashSet<Option<Inode>> = rows.iter().map(|row| row.inode).collect();
            assert_eq!(inodes.len(), rows.len(), "a socket is there twice");
        }
        Outcome::Ok(())
    })?;
    // Another test may fork while the churn goes on: its child holds these sockets, too, until it execs.
    let deadline = Instant::now() + Duration::from_secs(60);
    while net.inside(|| dump(net.id(), &DumpFilter::port(4000)))?.len() != steady.len() {
        assert!(Instant::now() < deadline, "sockets that are gone are still listed");
        thread::yield_now();
    }
    Ok(())
}

fn the_kernels_count_agrees_as_soon_as_it_stands_still() -> Outcome {
    let net = Net::new()?;
    net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    let _idle = net.inside(|| Idle::start(Stdio::null()))?;
    let (stop, stopped) = mpsc::channel::<()>();
    let wanted = HashSet::from([net.id()]);
    let look = || census::take(&Procfs::host(), &DumpFilter::all(), Some(&wanted), &census::boottime).namespaces.pop();
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            net.inside(move || {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                // Fewer than there are ports.
                for _ in 0..20_000 {
                    if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
                        break;
                    }
                    let (client, server) = connect(&listener, listener.local_addr()?)?;
                    close(client, server)?;
                }
                Ok(())
            })
        });
        let mut before = 0;
        for _ in 0..10 {
            let busy = look().ok_or("the namespace is not in the census")?;
            // Nothing leaves TIME_WAIT for a minute.
            let count = busy.kernel_time_wait.ok_or("no count")?;
            assert!(count >= before, "{count} after {before}");
            before = count;
        }
        drop(stop);
        churn.join().map_err(|_| Failed::from("the churn panicked"))??;
        let quiet = look().ok_or("the namespace is not in the census")?;
        let counted = quiet.rows.iter().filter(|row| row.time_wait_left.is_some()).count();
        assert!(counted > 10, "the namespace was busy: {counted}");
        assert_eq!(quiet.kernel_time_wait, u64::try_from(counted).ok());
        Ok(())
    })
}

fn the_kernels_count_and_the_overflow_are_in_the_census() -> Outcome {
    let net = Net::new()?;
    net.sysctl("ipv4/tcp_max_tw_buckets", "5")?;
    net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    let _idle = net.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        for _ in 0..12 {
            let (client, server) = connect(&listener, listener.local_addr()?)?;
            close(client, server)?;
        }
        Idle::start(Stdio::null())
    })?;
    let census = census::take(&Procfs::host(), &DumpFilter::time_wait(), Some(&[net.id()].into()), &census::boottime);
    let seen = census.namespaces.first().ok_or("the namespace is not in the census")?;
    assert_eq!((census.namespaces.len(), census.unreachable.len(), seen.netns), (1, 0, net.id()));
    assert_eq!((seen.rows.len(), seen.kernel_time_wait, seen.settings.max_tw_buckets), (5, Some(5), Some(5)));
    assert_eq!(seen.time_wait_overflow, Some(7));
    assert!(seen.at >= census.at && seen.at <= census::boottime());
    Ok(())
}

fn usable_ports_are_those_that_connect_gets() -> Outcome {
    let net = Net::new()?;
    // Of a range of odd size connect() leaves out one port, which one is chance (`remaining &= ~1U` in
    // __inet_hash_connect()); of an even one it finds all.
    net.sysctl("ipv4/ip_local_port_range", "40000 40011")?;
    net.sysctl("ipv4/ip_local_reserved_ports", "40003,40005-40006,50000")?;
    net.inside(|| {
        let settings = sysctl::settings(Path::new("/proc/sys"));
        assert_eq!((settings.port_range, settings.usable_ports), (Some((40000, 40011)), Some(9)));
        let listener = TcpListener::bind("127.0.0.1:4000")?;
        let mut connected = Vec::new();
        let error = loop {
            match connect(&listener, listener.local_addr()?) {
                Ok(both) => connected.push(both),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
        assert_eq!(connected.len(), 9);
        Ok(())
    })?;
    Ok(())
}
