//! A port scan from this host: connect() to one destination after the other, where nobody listens.
//!
//! In a namespace of its own all of 127/8 is there and nothing answers, so the kernel refuses each of them at once: it takes
//! no timeout, and leaves no TIME_WAIT.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Ports tried at each address.
const PORTS: u32 = 1_000;

/// What the scan is told, by the bench that starts it.
#[derive(clap::Args)]
pub(crate) struct Scan {
    /// Destinations, each of them tried once
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    destinations: u32,
    /// How long, at most
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[arg(long, default_value_t = 2)]
    threads: u8,
}

/// Prints how many destinations were tried in how many seconds.
pub(crate) fn scan(wishes: &Scan) -> Result<ExitCode> {
    let started = Instant::now();
    let end = started + Duration::from_secs(wishes.seconds);
    let threads = u32::from(wishes.threads.max(1));
    let tried = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let numbers = (first..wishes.destinations).step_by(threads as usize);
                scope.spawn(move || try_each(numbers, end))
            })
            .collect();
        let mut tried = 0;
        for worker in workers {
            tried += worker.join().map_err(|_| anyhow::anyhow!("a thread of the scan panicked"))??;
        }
        anyhow::Ok(tried)
    })?;
    println!("{tried} {}", started.elapsed().as_secs_f64());
    io::stdout().flush().context("say how many")?;
    Ok(ExitCode::SUCCESS)
}

fn try_each(numbers: impl Iterator<Item = u32>, end: Instant) -> Result<u64> {
    let mut tried = 0;
    for number in numbers {
        if Instant::now() >= end {
            break;
        }
        let destination = destination(number);
        match TcpStream::connect(destination) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => tried += 1,
            Err(error) => return Err(error).with_context(|| format!("connect to {destination}, after {tried}")),
            Ok(_) => bail!("{destination} answers: this is no namespace of its own"),
        }
    }
    Ok(tried)
}

/// From 127.1.0.0:1 on.
fn destination(number: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from(0x7f01_0000 + number / PORTS);
    SocketAddrV4::new(address, (1 + number % PORTS) as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn destinations_are_loopback_and_distinct() {
        let all: HashSet<_> = (0..10_000).map(destination).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|it| it.ip().is_loopback() && it.port() > 0));
        assert!(destination(10_000_000 - 1).ip().is_loopback());
    }
}
