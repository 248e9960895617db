//! What an event costs the agent: bytes of a record -> decode -> state, as a ring buffer hands them over.
//!
//! The stream is a steady one: each connection that enters TIME_WAIT is followed by the oldest one leaving it. So the cost
//! must be the same however many sockets, processes and destinations there are.

mod host;

use divan::{Bencher, counter::ItemsCount};
use host::{EVENTS, Host};

fn main() {
    divan::main();
}

/// The records of a run, taken in by an agent that knows the host.
fn bench(host: Host, bencher: Bencher<'_, '_>) {
    let records: Vec<_> = host.turnover(EVENTS / 2).collect();
    bencher.counter(ItemsCount::new(EVENTS)).with_inputs(|| host.agent()).bench_local_refs(|agent| {
        agent.feed(&records);
    });
}

#[divan::bench(args = [10_000, 100_000, 1_000_000], sample_count = 10, sample_size = 1)]
fn timewait_sockets(bencher: Bencher<'_, '_>, live: u64) {
    bench(Host { live, processes: 100, destinations: 100 }, bencher);
}

#[divan::bench(args = [100, 10_000, 100_000], sample_count = 10, sample_size = 1)]
fn processes(bencher: Bencher<'_, '_>, processes: u64) {
    bench(Host { live: 100_000, processes, destinations: 100 }, bencher);
}

#[divan::bench(args = [100, 10_000, 100_000], sample_count = 10, sample_size = 1)]
fn destinations(bencher: Bencher<'_, '_>, destinations: u64) {
    bench(Host { live: 100_000, processes: 100, destinations }, bencher);
}
