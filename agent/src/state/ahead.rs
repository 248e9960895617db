//! Looking ahead: an event wants a connection of the ledger and a process, a socket of a dump a connection, and when there
//! are many of those, memory is what it waits for. Asked for together, what many want comes in the time of a few.

use std::collections::VecDeque;

use super::State;
use crate::model::{Connection, Event, SocketRow, TcpState};

/// Events, or sockets, that are looked at together: as many as there are, if there are fewer.
pub const LOOK_AHEAD: usize = 32;
/// Tables with fewer entries are in the processor's caches, and looking twice only costs.
pub(super) const LARGE: usize = 1 << 14;

impl State {
    /// Reads what these events, which are fed next, will want to know. Nothing changes by it but the time that they take.
    pub fn look_ahead(&self, events: &[Event]) {
        let read = events.iter().fold(0, |read, event| read ^ self.process_for(event));
        let connections = events.iter().filter_map(connection_of_interest);
        let read = connections.fold(read, |read, connection| read ^ self.ledger.look_at(connection));
        // Somebody has to want it, or it is not read.
        std::hint::black_box(read);
    }

    /// These sockets, one after the other, when what the ledger knows of the next ones has been read.
    pub(super) fn looked_ahead<'a>(
        &'a self,
        mut rows: impl Iterator<Item = SocketRow> + 'a,
    ) -> impl Iterator<Item = SocketRow> + 'a {
        let mut ahead = VecDeque::with_capacity(LOOK_AHEAD);
        std::iter::from_fn(move || {
            if ahead.is_empty() {
                ahead.extend(rows.by_ref().take(LOOK_AHEAD));
                let read = ahead.iter().fold(0, |read, row: &SocketRow| read ^ self.ledger.look_at(&row.connection));
                std::hint::black_box(read);
            }
            ahead.pop_front()
        })
    }

    fn process_for(&self, event: &Event) -> u32 {
        let Event::Transition(transition) = event else { return 0 };
        let closer = transition.closer.as_deref();
        let task = closer.or(transition.opener.as_deref()).or(transition.accepter.as_deref());
        task.map_or(0, |task| self.processes.look_at(task.key))
    }
}

/// The connection whose entry in the ledger an event is about, if it is about one.
fn connection_of_interest(event: &Event) -> Option<&Connection> {
    match event {
        Event::Transition(end) => (end.new == TcpState::Close).then_some(&end.connection),
        Event::TimeWait(event) => Some(&event.connection),
        Event::ClosedByPeer(_) | Event::Retraction(_) | Event::Refused(_) | Event::ProcessSeen(_) => None,
    }
}
