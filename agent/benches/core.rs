//! What an event costs the agent: bytes of a record -> decode -> state, as a ring buffer hands them over.
//!
//! The stream is a steady one: each connection that enters TIME_WAIT is followed by the oldest one leaving it. So the cost
//! must be the same however many sockets, processes and destinations there are.

use agent_ebpf::{
    Address, Header, RecordKind, SocketFacts, Task, TimeWaitChange, TimeWaitRecord, TransitionRecord, conn_flag,
    task_flag, timewait_state,
};
use divan::{Bencher, counter::ItemsCount};
use firstfin::{
    decode::decode,
    model::{TcpState, Timestamp},
    state::{Input, Limits, State},
};
use zerocopy::IntoBytes as _;

const STARTED: u64 = 1_000_000_000_000;
/// Records of one measured run.
const EVENTS: u64 = 100_000;
/// Between two connections: 30,000 a second.
const STEP_NS: u64 = 33_333;
/// Ports of a client address in use.
const PORTS: u64 = 28_000;

fn main() {
    divan::main();
}

/// A host with so much on it.
#[derive(Clone, Copy)]
struct Host {
    live: u64,
    processes: u64,
    destinations: u64,
}

const fn address(number: u64) -> Address {
    let [.., a, b, c] = number.to_be_bytes();
    Address([10, a, b, c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

impl Host {
    fn entered(self, number: u64) -> TransitionRecord {
        let time_ns = STARTED + number * STEP_NS;
        let process = number % self.processes;
        let task = Task {
            tgid: 1_000 + process as u32,
            start_ns: process * 10_000_000,
            comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
            flags: task_flag::PRESENT,
            ..Task::default()
        };
        TransitionRecord {
            header: Header { kind: RecordKind::Transition as u32, cpu: 0, time_ns },
            sk: 0xffff_8880_0000_0000 | number,
            netns: 7,
            family: 2,
            old_state: TcpState::FinWait2 as u8,
            new_state: TcpState::Close as u8,
            local: address(number / PORTS),
            remote: address(0x80_0000 + number % self.destinations),
            local_port: 32_768 + (number % PORTS) as u16,
            remote_port: 443,
            port_errno: 0,
            timewait_state: timewait_state::TIME_WAIT,
            reserved: 0,
            timewait: 0xffff_8881_0000_0000 | number,
            facts: SocketFacts {
                born_ns: time_ns - 1_000_000,
                flags: conn_flag::ACTIVE_OPEN | conn_flag::ESTABLISHED | conn_flag::FIN_FIRST,
                ..SocketFacts::default()
            },
            opener: task,
            closer: task,
        }
    }

    fn left(self, number: u64) -> TimeWaitRecord {
        let entered = self.entered(number);
        TimeWaitRecord {
            header: Header { kind: RecordKind::TimeWait as u32, ..entered.header },
            timewait: entered.timewait,
            netns: entered.netns,
            family: entered.family,
            change: TimeWaitChange::Expired as u8,
            substate: timewait_state::TIME_WAIT,
            local: entered.local,
            remote: entered.remote,
            local_port: entered.local_port,
            remote_port: entered.remote_port,
            reserved: 0,
        }
    }

    /// From there on, one comes and one goes.
    fn turnover(self, from: u64) -> impl Iterator<Item = (TransitionRecord, TimeWaitRecord)> {
        (from..from + EVENTS / 2).map(move |number| (self.entered(self.live + number), self.left(number)))
    }

    /// As many as are live have entered, and it has gone on for a while: the tables have their size.
    fn state(self) -> State {
        let mut state = State::new(Timestamp(STARTED), Limits::default());
        for number in 0..self.live {
            feed(&mut state, self.entered(number).as_bytes());
        }
        for (entered, left) in self.turnover(0) {
            feed(&mut state, entered.as_bytes());
            feed(&mut state, left.as_bytes());
        }
        state
    }

    fn bench(self, bencher: Bencher<'_, '_>) {
        let records: Vec<_> = self.turnover(EVENTS / 2).collect();
        bencher.counter(ItemsCount::new(EVENTS)).with_inputs(|| self.state()).bench_local_refs(|state| {
            for (entered, left) in &records {
                feed(state, entered.as_bytes());
                feed(state, left.as_bytes());
            }
        });
    }
}

fn feed(state: &mut State, record: &[u8]) {
    if let Ok(event) = decode(record) {
        state.feed(Input::Event(event));
    }
}

#[divan::bench(args = [10_000, 100_000, 1_000_000], sample_count = 10, sample_size = 1)]
fn timewait_sockets(bencher: Bencher<'_, '_>, live: u64) {
    Host { live, processes: 100, destinations: 100 }.bench(bencher);
}

#[divan::bench(args = [100, 10_000, 100_000], sample_count = 10, sample_size = 1)]
fn processes(bencher: Bencher<'_, '_>, processes: u64) {
    Host { live: 100_000, processes, destinations: 100 }.bench(bencher);
}

#[divan::bench(args = [100, 10_000, 100_000], sample_count = 10, sample_size = 1)]
fn destinations(bencher: Bencher<'_, '_>, destinations: u64) {
    Host { live: 100_000, processes: 100, destinations }.bench(bencher);
}
