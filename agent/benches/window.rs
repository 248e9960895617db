//! What it costs a daemon that a window begins: what is over is forgotten.

mod host;

use divan::Bencher;
use firstfin::model::{Census, Timestamp};
use host::{Host, STARTED};

fn main() {
    divan::main();
}

#[divan::bench(args = [10_000, 100_000, 1_000_000], sample_count = 10, sample_size = 1)]
fn begin_window(bencher: Bencher<'_, '_>, live: u64) {
    // Nothing to look at, so that it is the beginning of a window alone: the census costs what it costs a session.
    let host = Host { live, processes: 6_000, destinations: 1_000 };
    let inputs = || {
        let agent = host.agent();
        let gone: Vec<_> = agent.state.processes().collect();
        (agent, gone)
    };
    bencher.with_inputs(inputs).bench_local_values(|(mut agent, gone)| {
        let at = Timestamp(STARTED + 10_000_000_000);
        agent.state.begin_window(at, &Census { at, ..Census::default() }, &gone);
        agent
    });
}
