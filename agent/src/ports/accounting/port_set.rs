//! A set of ports: the one of a destination that is used once, or the tens of thousands of one that is used up.

/// As many ports as a list may have. More take less room, and less time, as one bit for each port there is.
const FEW: usize = 4_096;
/// Words of those bits.
const WORDS: usize = 65_536 / 64;

/// A set of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum PortSet {
    #[default]
    Empty,
    One(u16),
    /// In order
    Few(Vec<u16>),
    /// A bit for each, and how many are set
    Many(Box<[u64; WORDS]>, u32),
}

impl PortSet {
    /// Adds a port. False if it is there already.
    pub(super) fn insert(&mut self, port: u16) -> bool {
        match self {
            Self::Empty => {
                *self = Self::One(port);
                true
            }
            Self::One(one) if *one == port => false,
            Self::One(one) => {
                *self = Self::Few(vec![port.min(*one), port.max(*one)]);
                true
            }
            Self::Few(ports) => {
                let Err(place) = ports.binary_search(&port) else { return false };
                if ports.len() < FEW {
                    ports.insert(place, port);
                    return true;
                }
                let mut many = Self::Many(Box::new([0; WORDS]), 0);
                for port in ports.iter().chain([&port]) {
                    many.insert(*port);
                }
                *self = many;
                true
            }
            Self::Many(words, count) => {
                let Some(word) = words.get_mut(usize::from(port / 64)) else { return false };
                let bit = 1 << (port % 64);
                let is_new = *word & bit == 0;
                *word |= bit;
                *count += u32::from(is_new);
                is_new
            }
        }
    }

    /// How many ports there are.
    pub(super) fn len(&self) -> u32 {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Few(ports) => u32::try_from(ports.len()).unwrap_or(u32::MAX),
            Self::Many(_, count) => *count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_port_is_new_once(ports in prop::collection::vec(prop_oneof![any::<u16>(), 0_u16..9], 0..30)) {
            let (mut set, mut plain) = (PortSet::default(), BTreeSet::new());
            for port in ports {
                prop_assert_eq!(set.insert(port), plain.insert(port));
                prop_assert_eq!(set.len() as usize, plain.len());
            }
        }
    }

    #[test]
    fn every_port_fits() {
        let mut set = PortSet::default();
        let all = || (0..=u16::MAX).map(|port| port.wrapping_mul(7_919));
        assert!(all().all(|port| set.insert(port)));
        assert!(!all().any(|port| set.insert(port)));
        assert_eq!(set.len(), 65_536);
    }
}
