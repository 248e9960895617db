//! connect()'s search for a port: `__inet_hash_connect()`, net/ipv4/inet_hashtables.c.
//!
//! It begins somewhere in the half of the range that has the parity of its low end, tries every second port, then the other
//! half. Where it begins depends on a secret, and moves on by up to 16 ports more or less at random. Here it begins at the
//! low end, and the moves take turns: which port it gets means nothing, but how often it meets a TIME_WAIT does.

use crate::{hash::FastMap, ports::accounting::PortSpace};

/// What has a port of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// A connection that is alive
    Live,
    /// A timewait socket, by its number
    TimeWait {
        /// Which
        id: usize,
        /// connect() may take it over
        is_reusable: bool,
    },
}

/// What connect() got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The port
    pub(super) port: u16,
    /// The timewait socket it took over
    pub(super) taken_over: Option<usize>,
}

/// The ports of a lane.
#[derive(Clone, Debug, Default)]
pub(super) struct LanePorts {
    slots: FastMap<u16, Slot>,
    /// Ports that connect() cannot have
    used: u32,
    cursor: u32,
    turn: u32,
}

impl LanePorts {
    /// Ports that connect() cannot have.
    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    /// Puts something at a port; what was there.
    pub(super) fn put(&mut self, port: u16, slot: Slot) -> Option<Slot> {
        let before = self.slots.insert(port, slot);
        self.used += u32::from(is_used(Some(slot)));
        self.used -= u32::from(is_used(before));
        before
    }

    /// Frees a port, if that is what is there.
    pub(super) fn free(&mut self, port: u16, slot: Slot) {
        if self.slots.get(&port) == Some(&slot) {
            self.slots.remove(&port);
            self.used -= u32::from(is_used(Some(slot)));
        }
    }

    /// Timewait sockets that keep their ports.
    pub(super) fn time_waits(&self) -> impl Iterator<Item = usize> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::TimeWait { id, is_reusable: false } => Some(*id),
            _ => None,
        })
    }

    /// Looks for a port, and takes it. `first`: the port that is tried first. `is_bound`: whether bind() has it taken out.
    pub(super) fn connect(
        &mut self,
        space: &PortSpace,
        usable: u32,
        first: Option<u16>,
        is_bound: impl Fn(u16) -> bool,
    ) -> Option<Chosen> {
        // Most searches in vain are cut short: a port is only lost where bind() took it out as well.
        if self.used >= usable {
            return None;
        }
        let can_be_had = |slots: &FastMap<u16, Slot>, port| {
            space.is_usable(port) && !is_bound(port) && !is_used(slots.get(&port).copied())
        };
        if let Some(port) = first.filter(|port| can_be_had(&self.slots, *port)) {
            return Some(self.take(port));
        }
        let (low, high) = space.range();
        let ports = u32::from(high.saturating_sub(low)) + 1;
        // An odd one is left over.
        let ports = if ports > 1 { ports & !1 } else { ports };
        let start = (self.cursor % ports) & !1;
        for half in 0..2_u32.min(ports) {
            let mut step = 0;
            while step < ports {
                let offset = (start + half + step) % ports;
                let port = low.saturating_add(u16::try_from(offset).unwrap_or(u16::MAX));
                if can_be_had(&self.slots, port) {
                    self.turn = (self.turn + 5) % 8;
                    self.cursor = (self.cursor + step.max(2 * self.turn) + 2) % ports;
                    return Some(self.take(port));
                }
                step += 2;
            }
        }
        None
    }

    fn take(&mut self, port: u16) -> Chosen {
        let taken_over = match self.put(port, Slot::Live) {
            Some(Slot::TimeWait { id, .. }) => Some(id),
            _ => None,
        };
        Chosen { port, taken_over }
    }
}

const fn is_used(slot: Option<Slot>) -> bool {
    !matches!(slot, None | Some(Slot::TimeWait { is_reusable: true, .. }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{NetnsCensus, NetnsSettings};

    fn space(low: u16, high: u16, reserved: &[(u16, u16)]) -> PortSpace {
        let settings = NetnsSettings {
            port_range: Some((low, high)),
            reserved_ports: Some(reserved.to_vec()),
            ..NetnsSettings::default()
        };
        PortSpace::of(&NetnsCensus { settings, ..NetnsCensus::default() }).unwrap()
    }

    fn all(space: &PortSpace, is_bound: impl Fn(u16) -> bool) -> Vec<u16> {
        let mut ports = LanePorts::default();
        let got = std::iter::from_fn(|| ports.connect(space, space.usable(), None, &is_bound));
        got.map(|chosen| chosen.port).collect()
    }

    #[test]
    fn every_port_is_given_once_those_of_the_low_ends_parity_first() {
        let got = all(&space(40_000, 40_009, &[]), |_| false);
        let (first, second) = got.split_at(5);
        assert_eq!(BTreeSet::from_iter(first), BTreeSet::from_iter(&[40_000, 40_002, 40_004, 40_006, 40_008]));
        assert_eq!(BTreeSet::from_iter(second), BTreeSet::from_iter(&[40_001, 40_003, 40_005, 40_007, 40_009]));
    }

    #[test]
    fn of_an_odd_number_of_ports_one_is_left_over() {
        assert_eq!(all(&space(40_001, 40_005, &[]), |_| false).len(), 4);
        assert_eq!(all(&space(40_001, 40_001, &[]), |_| false), [40_001]);
    }

    #[test]
    fn reserved_and_bound_ports_are_passed_over() {
        let got = all(&space(40_000, 40_009, &[(40_003, 40_004)]), |port| port == 40_008);
        assert_eq!(got.len(), 7);
        assert!(!got.iter().any(|port| [40_003, 40_004, 40_008].contains(port)), "{got:?}");
    }

    #[test]
    fn a_reusable_time_wait_is_taken_over_and_another_one_is_not() {
        let space = space(40_000, 40_001, &[]);
        let mut ports = LanePorts::default();
        ports.put(40_000, Slot::TimeWait { id: 7, is_reusable: false });
        ports.put(40_001, Slot::TimeWait { id: 8, is_reusable: true });
        assert_eq!(ports.used(), 1);
        assert_eq!(ports.connect(&space, 2, None, |_| false), Some(Chosen { port: 40_001, taken_over: Some(8) }));
        assert_eq!((ports.used(), ports.connect(&space, 2, None, |_| false)), (2, None));
        // What was there before does not free the port of its successor.
        ports.free(40_001, Slot::TimeWait { id: 8, is_reusable: true });
        assert_eq!(ports.used(), 2);
        ports.free(40_001, Slot::Live);
        assert_eq!(ports.connect(&space, 2, None, |_| false), Some(Chosen { port: 40_001, taken_over: None }));
    }
}
