//! A host with so many sockets, processes and destinations, and an agent that knows them.

use agent_ebpf::{
    Ends, Header, RecordKind, Task, TaskNumber, TaskRecord, TimeWaitChange, TimeWaitRecord, TransitionRecord,
    conn_flag, look, task_flag, timewait_state,
};
use firstfin::{
    decode::Decoder,
    model::{Event, TcpState, Timestamp},
    state::{LOOK_AHEAD, Limits, State},
};
use zerocopy::IntoBytes as _;

/// Records of one measured run.
pub(crate) const EVENTS: u64 = 100_000;
pub(crate) const STARTED: u64 = 1_000_000_000_000;
/// Between two connections: 30,000 a second.
const STEP_NS: u64 = 33_333;
/// Ports of a client address in use.
const PORTS: u64 = 28_000;

/// A host with so much on it.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    pub(crate) live: u64,
    pub(crate) processes: u64,
    pub(crate) destinations: u64,
}

const fn address(number: u64) -> [u8; 4] {
    let [.., a, b, c] = number.to_be_bytes();
    [10, a, b, c]
}

impl Host {
    /// What tells of its processes, by numbers that are their pids.
    fn announced(self) -> impl Iterator<Item = TaskRecord> {
        (0..self.processes as u32).map(|process| TaskRecord {
            header: Header { kind: RecordKind::Task as u8, ..Header::default() },
            number: TaskNumber { count: process + 1, origin: 0, reserved: 0 },
            task: Task {
                tgid: 1_000 + process,
                start_ns: u64::from(process) * 10_000_000,
                comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
                flags: task_flag::PRESENT,
                ..Task::default()
            },
        })
    }

    const fn ends(self, number: u64) -> Ends {
        Ends::V4(address(number / PORTS), address(0x80_0000 + number % self.destinations))
    }

    fn entered(self, number: u64) -> Vec<u8> {
        let process = (number % self.processes) as u32 + 1;
        let record = TransitionRecord {
            header: Header {
                kind: RecordKind::Transition as u8,
                what: (TcpState::FinWait2 as u8) << 4 | TcpState::Close as u8,
                flags: conn_flag::ACTIVE_OPEN | conn_flag::SEEN_BEGIN | conn_flag::FIN_FIRST,
                netns: 7,
                time_ns: STARTED + number * STEP_NS,
            },
            socket: timewait(number),
            opener: process,
            closer: process,
            local_port: port(number),
            remote_port: 443,
            look: look::FIN_RECEIVED,
            timewait_state: timewait_state::TIME_WAIT,
            ..TransitionRecord::default()
        };
        record.encode(self.ends(number), None)
    }

    fn left(self, number: u64) -> Vec<u8> {
        let record = TimeWaitRecord {
            header: Header {
                kind: RecordKind::TimeWait as u8,
                what: TimeWaitChange::Expired as u8,
                flags: 0,
                netns: 7,
                time_ns: STARTED + number * STEP_NS,
            },
            timewait: timewait(number),
            local_port: port(number),
            remote_port: 443,
            substate: timewait_state::TIME_WAIT,
            reserved: [0; 3],
        };
        record.encode(self.ends(number))
    }

    /// From there on, one comes and one goes.
    pub(crate) fn turnover(self, from: u64) -> impl Iterator<Item = Vec<u8>> {
        (from..from + EVENTS / 2).flat_map(move |number| [self.entered(self.live + number), self.left(number)])
    }

    /// As many as are live have entered, and it has gone on for a while: the tables have their size.
    pub(crate) fn agent(self) -> Agent {
        let mut agent = Agent {
            decoder: Decoder::new(1 << 17),
            ahead: Vec::new(),
            state: State::new(Timestamp(STARTED), Limits::default()),
        };
        let announced = self.announced().map(|task| task.as_bytes().to_vec());
        let entered = (0..self.live).map(|number| self.entered(number));
        let records = announced.chain(entered).chain(self.turnover(0));
        records.for_each(|record| agent.feed(&[record]));
        agent
    }
}

const fn timewait(number: u64) -> u64 {
    0xffff_8881_0000_0000 | number << 8
}

const fn port(number: u64) -> u16 {
    32_768 + (number % PORTS) as u16
}

pub(crate) struct Agent {
    decoder: Decoder,
    ahead: Vec<Event>,
    pub(crate) state: State,
}

impl Agent {
    /// Takes records in as a session does it.
    pub(crate) fn feed(&mut self, records: &[Vec<u8>]) {
        for records in records.chunks(LOOK_AHEAD) {
            for record in records {
                // Each is well formed.
                let _ = self.decoder.decode_onto(record, &mut self.ahead);
            }
            self.state.look_ahead(&self.ahead);
            for event in &self.ahead {
                self.state.apply(event);
            }
            self.ahead.clear();
        }
    }
}
