//! The load: connections that are made and closed, one after the other, as fast as it goes.
//!
//! Each thread is client and server in one: connect(), accept(), close() on either side. So neither side waits for the
//! other to be scheduled, and what is measured is the kernel's work and what is attached to it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// What the load generator is told, by the bench that starts it.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// How long; nothing when a number of connections ends it
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
    /// Connections after which it ends, all threads together; 0: only the time does
    #[arg(long, default_value_t = 0)]
    pub(crate) connections: u64,
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: u8,
    /// Addresses of 127/8 that each thread connects to, in turn
    #[arg(long, default_value_t = 8)]
    pub(crate) destinations: u8,
    /// Microseconds between two connections of a thread
    #[arg(long, default_value_t = 0)]
    pub(crate) pause: u64,
    /// Seconds to stay when it is done, with its sockets in TIME_WAIT
    #[arg(long, default_value_t = 0)]
    pub(crate) stay: u64,
    /// The side that accepts closes first
    #[arg(long)]
    pub(crate) server_closes_first: bool,
    /// A request and an answer before that, of so many bytes each; 0: connections that carry nothing
    #[arg(long, default_value_t = 0)]
    pub(crate) exchange: u16,
}

/// Prints how many connections were made in how many seconds.
pub(crate) fn load(wishes: &Load) -> Result<ExitCode> {
    let is_over = AtomicBool::new(false);
    let threads = u64::from(wishes.threads.max(1));
    let each = wishes.connections.div_ceil(threads);
    let begin = Barrier::new(usize::from(wishes.threads.max(1)) + 1);
    let (made, elapsed) = thread::scope(|scope| {
        let workers: Vec<_> = (0..wishes.threads.max(1))
            .map(|number| {
                let (is_over, begin) = (&is_over, &begin);
                scope.spawn(move || -> Result<u64> {
                    let listeners = listen(number, wishes.destinations);
                    begin.wait();
                    churn(&listeners?, is_over, each, wishes)
                })
            })
            .collect();
        begin.wait();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(wishes.seconds) && !workers.iter().all(|it| it.is_finished()) {
            thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Ordering::Relaxed);
        let mut made = 0;
        for worker in workers {
            made += worker.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
        }
        anyhow::Ok((made, started.elapsed()))
    })?;
    println!("{made} {}", elapsed.as_secs_f64());
    io::stdout().flush().context("say how many")?;
    thread::sleep(Duration::from_secs(wishes.stay));
    Ok(ExitCode::SUCCESS)
}

/// Each thread has addresses of its own, and so ports of its own.
fn listen(thread: u8, destinations: u8) -> Result<Vec<(TcpListener, SocketAddr)>> {
    (1..=destinations.max(1))
        .map(|number| {
            let listener = TcpListener::bind((Ipv4Addr::new(127, 0, thread, number), 0)).context("listen")?;
            let address = listener.local_addr().context("the address of a listener")?;
            Ok((listener, address))
        })
        .collect()
}

fn churn(
    listeners: &[(TcpListener, SocketAddr)],
    is_over: &AtomicBool,
    connections: u64,
    wishes: &Load,
) -> Result<u64> {
    let pause = Duration::from_micros(wishes.pause);
    let mut message = vec![0; wishes.exchange.into()];
    let mut made = 0;
    for (listener, address) in listeners.iter().cycle() {
        if is_over.load(Ordering::Relaxed) || (connections > 0 && made >= connections) {
            break;
        }
        let mut client = TcpStream::connect(address).with_context(|| format!("connect to {address}, after {made}"))?;
        let (mut server, _) = listener.accept().context("accept")?;
        if !message.is_empty() {
            exchange(&mut client, &mut server, &mut message).context("a request and its answer")?;
        }
        if wishes.server_closes_first {
            drop(server);
            drop(client);
        } else {
            drop(client);
            drop(server);
        }
        made += 1;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    Ok(made)
}

/// A request, and an answer to it.
fn exchange(client: &mut TcpStream, server: &mut TcpStream, message: &mut [u8]) -> io::Result<()> {
    client.write_all(message)?;
    server.read_exact(message)?;
    server.write_all(message)?;
    client.read_exact(message)
}
