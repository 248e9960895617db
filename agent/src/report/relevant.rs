//! What of a dump of all sockets a report is made from.

use std::collections::HashSet;

use super::close_wait;
use crate::{
    model::{Census, Inode, NetnsCensus, TcpState},
    ports::accounting::is_connection,
    state::State,
};

/// Drops the rows that no report needs: connections on ports that connect() could not have chosen, and that nobody has
/// forgotten. What is left grows with the ports in use, and not with what a server serves.
pub fn retain_relevant(namespace: &mut NetnsCensus) {
    let served = namespace.served_ports();
    let range = namespace.settings.port_range;
    namespace.rows.retain(|row| {
        let port = row.connection.local.port();
        let is_in_range = range.is_none_or(|(low, high)| (low..=high).contains(&port));
        row.time_wait_left.is_some()
            || matches!(row.state, TcpState::Listen | TcpState::BoundInactive)
            || is_connection(row.state) && is_in_range && !served.contains(&port)
            || close_wait::is_forgotten(row)
    });
}

/// The sockets whose owners a report would name and nobody has looked for yet. None on a quiet host: a walk over the open
/// files of every process costs more than a report of one is worth.
#[must_use]
pub fn sockets_to_name(state: &State, census: &Census) -> HashSet<Inode> {
    let mut inodes = super::ports::sockets_to_name(state, census);
    inodes.extend(super::sharing::sockets_to_name(census));
    inodes.extend(close_wait::sockets_to_name(census));
    inodes
}
