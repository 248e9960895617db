//! What a dump of all sockets says of ephemeral ports.
//!
//! A dump does not say who opened a connection. Where nothing better is known, one whose local port has a listener is
//! inbound, and any other whose local port is one that connect() could have chosen is outbound. Three things cannot be
//! seen in a dump: a port range of a socket's own (IP_LOCAL_PORT_RANGE); that a connection's port was fixed by bind(),
//! which keeps it from everybody as a bound-only socket does; and, before Linux 6.8, bound-only sockets themselves.

mod port_set;

use std::{collections::BTreeMap, time::Duration};

use self::port_set::PortSet;
use super::Route;
use crate::{
    hash::FastMap,
    model::{NetnsCensus, NetnsSettings, OpenKind, RowPlace, SocketRow, TcpState, TimeWaitSubstate},
};

/// `TCP_TIMEWAIT_LEN`, include/net/tcp.h: a constant, not a setting.
pub const TIME_WAIT_LENGTH: Duration = Duration::from_secs(60);
/// How old a TIME_WAIT has to be for `tcp_tw_reuse` before Linux 6.14. Kernels of that age compare whole seconds, so
/// this is the longest it can take.
const REUSE_DELAY: Duration = Duration::from_secs(1);

/// The ports connect() can choose from in a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpace {
    range: (u16, u16),
    reserved: Vec<(u16, u16)>,
    /// Ports of the range that a listener or a bound-only socket has, with the places of their rows in the dump.
    ///
    /// Their bucket's `fastreuse` is 0 or more, and `__inet_hash_connect()` passes over it for everybody, whatever the
    /// local address.
    pub poisoned: BTreeMap<u16, Vec<RowPlace>>,
}

impl PortSpace {
    /// By the settings and the sockets of a namespace. None if the range, or what is reserved of it, is not known.
    #[must_use]
    pub fn of(namespace: &NetnsCensus) -> Option<Self> {
        let settings = &namespace.settings;
        let range = settings.port_range?;
        let reserved = match &settings.reserved_ports {
            Some(reserved) => reserved.clone(),
            // Not recorded; but nothing of the range is reserved if all of it is usable.
            None if settings.usable_ports? == size(range) => Vec::new(),
            None => return None,
        };
        let mut space = Self { range, reserved, poisoned: BTreeMap::new() };
        for (place, row) in namespace.rows.iter_with_places() {
            let port = row.connection.local.port();
            if matches!(row.state, TcpState::Listen | TcpState::BoundInactive) && space.is_open(port) {
                space.poisoned.entry(port).or_default().push(place);
            }
        }
        Some(space)
    }

    /// `ip_local_port_range`, both ends inclusive.
    #[must_use]
    pub const fn range(&self) -> (u16, u16) {
        self.range
    }

    /// Ports of the range that are not reserved.
    #[must_use]
    pub fn open(&self) -> u32 {
        let (low, high) = self.range;
        let mut open = size(self.range);
        // Ranges of the kernel's own list do not overlap; those of a test may.
        let mut next = u32::from(low);
        let mut reserved = self.reserved.clone();
        reserved.sort_unstable();
        for (first, last) in reserved {
            let (first, end) = (u32::from(first).max(next), u32::from(last.min(high)) + 1);
            open -= end.saturating_sub(first);
            next = next.max(end);
        }
        open
    }

    /// Ports connect() can choose from: not reserved, not poisoned. Of a range with an odd number of ports each call
    /// leaves one untried.
    #[must_use]
    pub fn usable(&self) -> u32 {
        self.open().saturating_sub(u32::try_from(self.poisoned.len()).unwrap_or(u32::MAX))
    }

    /// Whether connect() may choose this port.
    #[must_use]
    pub fn is_usable(&self, port: u16) -> bool {
        self.is_open(port) && !self.poisoned.contains_key(&port)
    }

    /// In the range, and not reserved.
    fn is_open(&self, port: u16) -> bool {
        let (low, high) = self.range;
        (low..=high).contains(&port) && !self.reserved.iter().any(|&(low, high)| (low..=high).contains(&port))
    }

    /// Whether connect() tries this port only when those of the other parity gave none: it begins with the parity of the
    /// low end of the range. (A socket with IP_LOCAL_PORT_RANGE tries all; bind() to port 0 begins with these.)
    #[must_use]
    pub const fn is_second_choice(&self, port: u16) -> bool {
        (port ^ self.range.0) & 1 == 1
    }
}

/// How many ports a range has.
fn size((low, high): (u16, u16)) -> u32 {
    u32::from(high.saturating_sub(low)) + 1
}

/// When connect() may take over a TIME_WAIT (`tcp_twsk_unique()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// `tcp_tw_reuse`: 0 never, 1 always, 2 on loopback only
    pub mode: u8,
    /// How old the TIME_WAIT must be
    pub delay: Duration,
    /// TCP timestamps are on here; that the other side had them on too is not seen
    pub has_timestamps: bool,
}

impl Reuse {
    /// By the settings of a namespace. What is not known counts as off: a port is then said to be in use for too long
    /// rather than too short.
    #[must_use]
    pub fn of(settings: &NetnsSettings) -> Self {
        let delay = settings.tw_reuse_delay_ms.map(|delay| Duration::from_millis(delay.into()));
        Self {
            mode: settings.tw_reuse.unwrap_or_default(),
            delay: delay.unwrap_or(REUSE_DELAY),
            has_timestamps: settings.timestamps.is_some_and(|timestamps| timestamps != 0),
        }
    }

    /// How long a new TIME_WAIT of this route keeps its port.
    #[must_use]
    pub fn hold(&self, route: &Route) -> Duration {
        let applies = self.mode == 1 || self.mode == 2 && route.is_loopback();
        if applies && self.has_timestamps { self.delay.min(TIME_WAIT_LENGTH) } else { TIME_WAIT_LENGTH }
    }

    /// How much longer a timewait socket keeps its port; zero if it could be taken over now.
    fn left(&self, route: &Route, row: &SocketRow, left: Duration) -> Duration {
        match row.substate() {
            // Its clock begins anew when the FIN of the other side comes, which is soon if it comes at all. It is never
            // taken over.
            Some(TimeWaitSubstate::FinWait2) => TIME_WAIT_LENGTH,
            _ => {
                let age = TIME_WAIT_LENGTH.saturating_sub(left);
                left.min(self.hold(route).saturating_sub(age))
            }
        }
    }
}

/// Ports that one route uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteUse {
    /// Ports of connections that are alive
    pub live: u32,
    /// Ports of timewait sockets, FIN_WAIT2 minisockets among them
    pub time_wait: u32,
    /// Of those in TIME_WAIT: ports that connect() could take over now (`tcp_tw_reuse`)
    pub reusable: u32,
    /// Of all these: ports that connect() tries only when the other half of the range gave none
    pub second_choice: u32,
    /// The local ports of all connections of the route, those that came in among them
    ports: PortSet,
}

impl RouteUse {
    /// Ports that a connect() of this route cannot have now.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.live + self.time_wait - self.reusable
    }
}

/// The ephemeral ports of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// What connect() can choose from, if that is known; if not, no use can be told either
    pub space: Option<PortSpace>,
    /// Ports of the range that any socket has, be it towards whom it may: what bind() to port 0 and listen() without
    /// bind() cannot have, unless the address differs or the sockets agree to share
    pub taken: u32,
    /// By route, outbound connections only
    pub routes: FastMap<Route, RouteUse>,
}

/// Counts the sockets of a namespace. `opened` tells what is known of who opened a connection.
#[must_use]
pub fn account(namespace: &NetnsCensus, opened: impl Fn(&SocketRow) -> Option<OpenKind>) -> Accounting {
    let Some(space) = PortSpace::of(namespace) else { return Accounting::default() };
    let reuse = Reuse::of(&namespace.settings);
    let mut routes: FastMap<Route, RouteUse> = FastMap::default();
    let mut taken = PortSet::default();
    space.poisoned.keys().for_each(|port| {
        taken.insert(*port);
    });
    for row in namespace.rows.iter().filter(|row| may_be_chosen(row, &space)) {
        let port = row.connection.local.port();
        taken.insert(port);
        let route = Route::of(&row.connection);
        let used = routes.entry(route).or_default();
        // A socket that changed its state during the dump may be in it twice.
        if !used.ports.insert(port) || opened(&row) == Some(OpenKind::Passive) {
            continue;
        }
        used.second_choice += u32::from(space.is_second_choice(port));
        match row.time_wait_left {
            None => used.live += 1,
            Some(left) => {
                used.time_wait += 1;
                used.reusable += u32::from(reuse.left(&route, &row, left).is_zero());
            }
        }
    }
    routes.retain(|_, used| used.live + used.time_wait > 0);
    Accounting { space: Some(space), taken: taken.len(), routes }
}

/// Where the dump has the sockets that are counted, of the routes that are `wanted`. `opened` as in [`account`].
#[must_use]
pub fn sockets(
    namespace: &NetnsCensus,
    space: &PortSpace,
    opened: impl Fn(&SocketRow) -> Option<OpenKind>,
    wanted: impl Fn(&Route) -> bool,
) -> FastMap<Route, Vec<RowPlace>> {
    let mut routes: FastMap<Route, (PortSet, Vec<RowPlace>)> = FastMap::default();
    for (place, row) in namespace.rows.iter_with_places().filter(|(_, row)| may_be_chosen(row, space)) {
        let route = Route::of(&row.connection);
        if wanted(&route) {
            let (ports, places) = routes.entry(route).or_default();
            if ports.insert(row.connection.local.port()) && opened(&row) != Some(OpenKind::Passive) {
                places.push(place);
            }
        }
    }
    routes.retain(|_, (_, places)| !places.is_empty());
    routes.into_iter().map(|(route, (_, places))| (route, places)).collect()
}

/// When the timewait sockets of a route that do keep their port let go of it, soonest first.
#[must_use]
pub fn frees(namespace: &NetnsCensus, route: &Route, places: &[RowPlace]) -> Vec<Duration> {
    let reuse = Reuse::of(&namespace.settings);
    let rows = places.iter().filter_map(|place| namespace.rows.get(*place));
    let left = rows.filter_map(|row| Some(reuse.left(route, &row, row.time_wait_left?)));
    let mut frees: Vec<Duration> = left.filter(|left| !left.is_zero()).collect();
    frees.sort_unstable();
    frees
}

/// A connection whose port connect() may have chosen.
fn may_be_chosen(row: &SocketRow, space: &PortSpace) -> bool {
    is_connection(row.state) && space.is_usable(row.connection.local.port())
}

/// A connection as connect() makes them, of any age. Half-open ones of a listener are not.
pub(crate) const fn is_connection(state: TcpState) -> bool {
    !matches!(
        state,
        TcpState::Listen | TcpState::BoundInactive | TcpState::Close | TcpState::SynRecv | TcpState::NewSynRecv
    )
}

#[cfg(test)]
mod tests;
