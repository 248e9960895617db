//! The processes of the demo, seen from inside: each makes one well-known mistake.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::{
    net::{AddressFamily, SocketType, bind, connect, socket, sockopt},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_name, unshare_unsafe},
};

const ORDERS_DB: u16 = 5432;
const LEGACY_API: u16 = 8081;
const SHOP_WEB: u16 = 8080;
const SESSION_CACHE: u16 = 6379;
/// The source port billing-sync insists on; outside the ephemeral range, or another client could be given it first.
const BILLING_PORT: u16 = 25_000;

/// Plays a role to its end.
pub(in crate::commands) fn play(role: &str, arguments: &[String]) -> anyhow::Result<()> {
    let name = std::ffi::CString::new(role)?;
    set_name(&name).context("take the name of the role")?;
    if role == "stage" {
        return stage(arguments);
    }
    let [keeper] = arguments else { bail!("the pid of the stage's keeper is needed") };
    enter(keeper)?;
    match role {
        "orders-db" => serve(ORDERS_DB, |stream| drain(&stream)),
        "session-cache" => serve(SESSION_CACHE, |stream| drain(&stream)),
        "legacy-api" => serve(LEGACY_API, answer_and_close),
        "shop-web" => serve(SHOP_WEB, |stream| drain(&stream)),
        "checkout" => checkout(),
        "storefront" => storefront(),
        "billing-sync" => billing_sync(),
        "shop-web-new" => shop_web_new(),
        "metrics-push" => metrics_push(),
        "crawler" => crawler(),
        _ => bail!("there is no role {role}"),
    }
}

/// Keeps a network namespace with an ephemeral port range of its own.
fn stage(arguments: &[String]) -> anyhow::Result<()> {
    let [first, last] = arguments else { bail!("the first and the last ephemeral port are needed") };
    // SAFETY: this process has one thread; nothing it has open belongs to the namespace it leaves.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("make a network namespace")?;
    bring_loopback_up().context("bring the loopback device up")?;
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} {last}"))
        .context("set ip_local_port_range")?;
    // The default reuses TIME_WAIT on loopback, where all of this happens; between hosts it does not.
    fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0").context("set tcp_tw_reuse")?;
    // Nor is any to be killed: on a busy host an ACK comes so late that TIME_WAIT answers it, the other side, closed by then,
    // answers that with a RST, and what the demo shows would not be there.
    fs::write("/proc/sys/net/ipv4/tcp_rfc1337", "1").context("set tcp_rfc1337")?;
    stay()
}

fn bring_loopback_up() -> io::Result<()> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all zeroes is a valid `ifreq`: integers, and a union of integers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the `ifreq` it is given and nothing else.
    match unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&any), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn enter(keeper: &str) -> anyhow::Result<()> {
    let path = format!("/proc/{keeper}/ns/net");
    let namespace = fs::File::open(&path).with_context(|| format!("open {path}"))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter {path}"))
}

/// Says that it is ready, and waits for the end of its standard input.
fn stay() -> anyhow::Result<()> {
    println!("ready");
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

const fn at(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// Serves one connection after the other, until standard input ends.
fn serve(port: u16, handle: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at(port)).with_context(|| format!("listen on port {port}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that resets its connection is part of the show.
            let _ = handle(stream);
        }
    });
    stay()
}

/// Reads until the client closes: the client pays with TIME_WAIT.
fn drain(stream: &TcpStream) -> io::Result<()> {
    let mut stream = stream;
    io::copy(&mut stream, &mut io::sink()).map(|_| ())
}

/// Answers and closes at once, like HTTP/1.0: the server pays with TIME_WAIT.
fn answer_and_close(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 64];
    let _ = stream.read(&mut request)?;
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok\n")
}

/// A new connection for each order, and closes first.
fn checkout() -> anyhow::Result<()> {
    for _ in 0..400 {
        let mut stream = TcpStream::connect(at(ORDERS_DB))?;
        stream.write_all(b"select 1;\n")?;
        drop(stream);
        thread::sleep(Duration::from_millis(4));
    }
    Ok(())
}

/// A well-behaved client of a server that closes first.
fn storefront() -> anyhow::Result<()> {
    for _ in 0..150 {
        let mut stream = TcpStream::connect(at(LEGACY_API))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        io::copy(&mut stream, &mut io::sink())?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Connects from a fixed source port, and stumbles over its own TIME_WAIT when it comes back.
fn billing_sync() -> anyhow::Result<()> {
    let stream = TcpStream::from(connect_from(BILLING_PORT)?);
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut &stream, &mut io::sink())?;
    drop(stream);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(300));
        match connect_from(BILLING_PORT) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("connect again"),
            Ok(_) => bail!("the source port was free again"),
        }
    }
    Ok(())
}

fn connect_from(port: u16) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &at(port))?;
    connect(&socket, &at(ORDERS_DB))?;
    Ok(socket)
}

/// The new release of shop-web, started while the old one still runs, again and again.
fn shop_web_new() -> anyhow::Result<()> {
    for _ in 0..5 {
        match TcpListener::bind(at(SHOP_WEB)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("bind"),
            Ok(_) => bail!("port {SHOP_WEB} was free"),
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Avoids TIME_WAIT by cutting its connections off.
fn metrics_push() -> anyhow::Result<()> {
    for _ in 0..20 {
        let stream = TcpStream::connect(at(SHOP_WEB))?;
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        drop(stream);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Uses up a small range of ephemeral ports towards one destination, and goes on.
fn crawler() -> anyhow::Result<()> {
    let mut refused = 0;
    for _ in 0..80 {
        match TcpStream::connect(at(SESSION_CACHE)) {
            Ok(stream) => drop(stream),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => refused += 1,
            Err(error) => return Err(error).context("connect"),
        }
        thread::sleep(Duration::from_millis(5));
    }
    if refused == 0 {
        bail!("the ephemeral ports did not run out");
    }
    Ok(())
}
