//! Looking ahead: an event wants a connection of the ledger and a process, a socket of a dump a connection, and when there
//! are many of those, memory is what it waits for. Asked for together, what many want comes in the time of a few.

use super::{State, tells_something};
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

    fn process_for(&self, event: &Event) -> u32 {
        let Event::Transition(transition) = event else { return 0 };
        if !tells_something(transition) {
            return 0;
        }
        let closer = transition.closer.as_deref();
        let task = closer.or(transition.opener.as_deref()).or(transition.accepter.as_deref());
        task.map_or(0, |task| self.processes.look_at(task.key))
    }
}

/// Sockets in lots that are looked at together.
pub(super) fn in_lots(mut rows: impl Iterator<Item = SocketRow>) -> impl Iterator<Item = Vec<SocketRow>> {
    std::iter::from_fn(move || {
        let lot: Vec<SocketRow> = rows.by_ref().take(LOOK_AHEAD).collect();
        (!lot.is_empty()).then_some(lot)
    })
}

/// The connection whose entry in the ledger an event is about, if it is about one.
fn connection_of_interest(event: &Event) -> Option<&Connection> {
    match event {
        Event::Transition(end) => (end.new == TcpState::Close).then_some(&end.connection),
        Event::TimeWait(event) => Some(&event.connection),
        Event::ClosedByPeer(_) | Event::Retraction(_) | Event::Refused(_) | Event::ProcessSeen(_) => None,
    }
}
