//! What a line of `firstfin trace --states` costs the agent: an event -> text, or JSON.

use std::{net::SocketAddr, sync::Arc};

use divan::{Bencher, counter::ItemsCount};
use firstfin::{
    model::{
        Connection, Event, Name, Netns, OpenKind, ProcessKey, SocketFacts, SocketId, Task, TcpState, TimeWaitId,
        TimeWaitMade, TimeWaitSubstate, Timestamp, Transition,
    },
    output::{Clock, lines::Lines},
};

const STARTED: u64 = 1_000_000_000_000;
/// Connections of one measured run.
const CONNECTIONS: u64 = 10_000;
/// Between two transitions.
const STEP_NS: u64 = 3_333;
/// The life of a connection that is opened and closed here.
const LIFE: [TcpState; 6] = [
    TcpState::Close,
    TcpState::SynSent,
    TcpState::Established,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::Close,
];

fn main() {
    divan::main();
}

fn events() -> Vec<Event> {
    let key = ProcessKey { tgid: 4_242, start_ticks: 1_000 };
    let task = Arc::new(Task {
        key,
        comm: Name::from("checkout"),
        uid: 1_000,
        cgroup_id: 77,
        is_kernel_thread: false,
        is_agent: false,
    });
    let life = |number: u64| {
        let task = Arc::clone(&task);
        let born = STARTED + number * LIFE.len() as u64 * STEP_NS;
        (0..).zip(LIFE.array_windows()).map(move |(step, &[old, new])| {
            let is_over = old == TcpState::FinWait2;
            let is_closing = is_over || matches!(new, TcpState::FinWait1 | TcpState::FinWait2);
            Event::Transition(Transition {
                at: Timestamp(born + step * STEP_NS),
                socket: SocketId(0xffff_8881_0000_0000 | number << 12),
                connection: Connection {
                    netns: Netns(7),
                    local: SocketAddr::from(([127, 0, 0, 1], 32_768 + (number % 28_000) as u16)),
                    remote: SocketAddr::from(([127, 0, (number % 8) as u8, 131], 5_432)),
                },
                old,
                new,
                opened: Some(OpenKind::Active),
                born: Some(Timestamp(born)),
                opener: Some(Arc::clone(&task)),
                accepter: None,
                closer: is_closing.then(|| Arc::clone(&task)),
                timewait: is_over.then_some(TimeWaitMade::Made {
                    id: TimeWaitId(0xffff_8882_0000_0000 | number << 8),
                    substate: TimeWaitSubstate::TimeWait,
                }),
                facts: SocketFacts { established: true, fin_first: is_closing, ..SocketFacts::default() },
            })
        })
    };
    (0..CONNECTIONS).flat_map(life).collect()
}

fn lines() -> Lines {
    let clock = Clock::new(jiff::Timestamp::UNIX_EPOCH, Timestamp(STARTED), jiff::tz::TimeZone::UTC);
    Lines { clock, with_states: true, host_netns: Some(Netns(7)) }
}

/// As the printer does: what is written together is as much as a pipe takes.
fn run(bencher: Bencher<'_, '_>, mut write: impl FnMut(&Lines, &Event, &mut Vec<u8>)) {
    let (events, lines) = (events(), lines());
    let mut text = Vec::new();
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in &events {
            write(&lines, event, &mut text);
            if text.len() >= 1 << 16 {
                divan::black_box(&text);
                text.clear();
            }
        }
    });
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn text(bencher: Bencher<'_, '_>) {
    run(bencher, |lines, event, text| {
        lines.write_text(event, None, text);
    });
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn json(bencher: Bencher<'_, '_>) {
    run(bencher, |lines, event, text| {
        let _ = lines.write_json(event, None, text);
    });
}
