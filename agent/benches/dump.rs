//! What a census costs next to the kernel's part in it: 100,000 timewait sockets of a live session, dumped raw (the answer is
//! received and thrown away), taken as a census and joined with the session, which says whose each one is, and made into a
//! report.
//!
//! Not with divan: the three are measured in turn, so that each round is a ratio of its own, and the sockets live for a
//! minute only. It prints a line for each round (milliseconds raw, census and join, census and report), and needs root;
//! without, it says so and prints none.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use firstfin::{
    kernel::{
        Settings,
        census::{self, boottime},
        netns,
        processes::Procfs,
        sock_diag::DumpFilter,
    },
    model::{Census, Netns},
    report::{SessionFacts, build},
    session::{Session, Unheard},
    state::{Attribution, State},
};
use rustix::{
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt},
    thread::{UnshareFlags, unshare_unsafe},
};

const SOCKETS: usize = 100_000;
/// Each takes its ports anew, so none runs out of them.
const DESTINATIONS: u8 = 8;
const ROUNDS: usize = 11;
/// Nothing may be lost while they are made.
const RING_BYTES: u32 = 128 << 20;

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("dump: not measured: a session and a network namespace of its own need root");
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dump: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> anyhow::Result<()> {
    // SAFETY: no other thread runs yet, and descriptors stay shared as they were.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("make a network namespace")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("run ip")?;
    ensure!(up.success(), "the loopback interface stays down: {up}");
    for (name, value) in [("tcp_tw_reuse", "0"), ("tcp_max_tw_buckets", "1000000")] {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).with_context(|| format!("set {name}"))?;
    }
    let netns = netns::current().context("look up the namespace")?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let session = runtime.block_on(observe())?;
    let state = session.state();

    let _ = round(state, netns)?;
    for _ in 0..ROUNDS {
        let [raw, joined, report] = round(state, netns)?.map(|time| time.as_secs_f64() * 1e3);
        println!("{raw:.3} {joined:.3} {report:.3}");
    }
    Ok(())
}

/// A session that has seen all of them enter.
async fn observe() -> anyhow::Result<Session> {
    let mut session = Session::start(&Settings { ring_bytes: RING_BYTES, ..Settings::default() }, None)?;
    let making = tokio::task::spawn_blocking(make);
    let made = session.observe(making, &mut Unheard).await?;
    made.map_err(|error| anyhow!("the thread of the connections panicked: {error}"))??;
    // What the last ones told is on its way.
    session.observe(tokio::time::sleep(Duration::from_millis(500)), &mut Unheard).await?;
    let lost = session.losses()?.lost.total();
    ensure!(lost == 0, "{lost} records were lost");
    Ok(session)
}

fn make() -> anyhow::Result<()> {
    let listeners: Result<Vec<_>, _> =
        (1..=DESTINATIONS).map(|number| TcpListener::bind((Ipv4Addr::new(127, 0, 0, number), 0))).collect();
    let listeners = listeners.context("listen")?;
    for listener in listeners.iter().cycle().take(SOCKETS) {
        let client = TcpStream::connect(listener.local_addr()?).context("connect")?;
        let (server, _) = listener.accept().context("accept")?;
        drop(client);
        drop(server);
    }
    Ok(())
}

fn round(state: &State, netns: Netns) -> anyhow::Result<[Duration; 3]> {
    let begun = Instant::now();
    raw(AddressFamily::INET)?;
    raw(AddressFamily::INET6)?;
    let raw = begun.elapsed();
    let begun = Instant::now();
    let census = take(netns);
    let owned = join(state, &census);
    let joined = begun.elapsed();
    ensure!(owned >= SOCKETS, "{owned} timewait sockets have an owner");
    drop(census);
    let begun = Instant::now();
    let report = build(state, &take(netns), &SessionFacts::default());
    let reported = begun.elapsed();
    let time_wait = &report.time_wait;
    let ours = time_wait.total - time_wait.unattributed;
    ensure!(ours >= SOCKETS as u64, "{ours} of {} timewait sockets have an owner", time_wait.total);
    // The kernel is left alone for a moment: freeing what the last one held is nobody's cost.
    thread::sleep(Duration::from_millis(50));
    Ok([raw, joined, reported])
}

fn take(netns: Netns) -> Census {
    census::take(&Procfs::host(), &DumpFilter::all(), Some(&HashSet::from([netns])), &boottime)
}

/// How many timewait sockets have an owner.
fn join(state: &State, census: &Census) -> usize {
    let timewait = census.namespaces.iter().flat_map(|namespace| state.attributed(namespace, false));
    timewait.filter(|(_, attribution)| matches!(attribution, Attribution::Process(..))).count()
}

/// Sends the request of [`DumpFilter::all`] and receives the answer to its end, and nothing else.
fn raw(family: AddressFamily) -> anyhow::Result<()> {
    let kind = SocketType::RAW;
    let socket = net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))?;
    net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    net::send(&socket, &request(family), SendFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (_, length) = net::recv(&socket, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
        let datagram = buffer.get(..length).context("a datagram longer than the kernel makes them")?;
        // struct nlmsghdr and the status: the last message of the last datagram is NLMSG_DONE.
        let last = datagram.last_chunk::<20>().context("a datagram without a message")?;
        if let [20, 0, 0, 0, 3, 0, ..] = last {
            return Ok(());
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: both are of this machine's byte order, little-endian where firstfin runs.
fn request(family: AddressFamily) -> [u8; 72] {
    let mut request = [0; 72];
    let head = [
        // nlmsg_len, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, nlmsg_seq, nlmsg_pid
        &72_u32.to_ne_bytes()[..],
        &20_u16.to_ne_bytes(),
        &0x301_u16.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        // sdiag_family, sdiag_protocol (TCP), idiag_ext, pad, idiag_states
        &[family.as_raw() as u8, 6, 0, 0],
        &DumpFilter::all().states.to_ne_bytes(),
    ]
    .concat();
    for (to, from) in request.iter_mut().zip(head) {
        *to = from;
    }
    // idiag_cookie: none in particular, INET_DIAG_NOCOOKIE
    if let Some(cookie) = request.last_chunk_mut::<8>() {
        cookie.fill(0xff);
    }
    request
}
