//! The tables every event goes through.
//!
//! Their keys come from the network in part, so they are hashed with seeds that are drawn anew in each process; but with a
//! function that takes some nanoseconds for an address, where the standard library's takes a tenth of a microsecond.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, Hash},
};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// A map of the hot path.
pub(crate) type FastMap<K, V> = HashMap<K, V, RandomState>;
/// A set of the hot path.
pub(crate) type FastSet<K> = HashSet<K, RandomState>;

/// Where in a list, of which it knows the places only, something is to be found.
///
/// Of a place it takes 5 bytes and some room, so that the whole index of a large list stays in the processor's caches,
/// and what the list has is moved when the list wants it and not when the index grows.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: HashTable<u32>,
    seeds: RandomState,
}

impl Index {
    /// How many places it knows.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The place of what has this key, if there is one: `is_at` compares it with what is at a place.
    pub(crate) fn find(&self, key: &impl Hash, mut is_at: impl FnMut(u32) -> bool) -> Option<u32> {
        self.places.find(self.seeds.hash_one(key), |place| is_at(*place)).copied()
    }

    /// The same, and forgets the place.
    pub(crate) fn remove(&mut self, key: &impl Hash, mut is_at: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self.places.find_entry(self.seeds.hash_one(key), |place| is_at(*place)).ok()?;
        Some(found.remove().0)
    }

    /// Notes a place of a key that has none yet. `key_of` tells the key of what is at a place: it is asked of every other
    /// one when the index grows.
    pub(crate) fn insert<K: Hash>(&mut self, key: &K, place: u32, key_of: impl Fn(u32) -> Option<K>) {
        let seeds = &self.seeds;
        let hasher = |place: &u32| key_of(*place).map_or(0, |key| seeds.hash_one(&key));
        self.places.insert_unique(seeds.hash_one(key), place, hasher);
    }

    /// Forgets every place, and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_is_found_as_long_as_it_is_there(steps in prop::collection::vec((0_u16..300, any::<bool>()), 0..3_000)) {
            let mut keys: Vec<u16> = Vec::new();
            let (mut index, mut plain) = (Index::default(), HashMap::new());
            for (key, comes) in steps {
                let is_at = |place: u32| keys.get(place as usize) == Some(&key);
                if comes && !plain.contains_key(&key) {
                    prop_assert_eq!(index.find(&key, is_at), None);
                    let place = keys.len() as u32;
                    keys.push(key);
                    index.insert(&key, place, |place| keys.get(place as usize).copied());
                    plain.insert(key, place);
                } else if comes {
                    prop_assert_eq!(index.find(&key, is_at), plain.get(&key).copied());
                } else {
                    prop_assert_eq!(index.remove(&key, is_at), plain.remove(&key));
                }
                prop_assert_eq!(index.len(), plain.len());
            }
            for key in 0..300 {
                let found = index.find(&key, |place| keys.get(place as usize) == Some(&key));
                prop_assert_eq!(found, plain.get(&key).copied());
            }
        }
    }
}
