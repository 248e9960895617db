//! Where in a list something is to be found.

use std::hash::{BuildHasher as _, Hash};

use foldhash::quality::RandomState;

/// Places of a line.
const PLACES: usize = 12;
/// Of them in use at most, on average: then one key in eight finds its line full, and goes to the next.
const FULL: usize = 9;

/// As much of the index as memory hands over at once.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Line {
    /// Of each place: 0 if it is free, else a part of its key's hash that is never 0
    tags: [u8; PLACES],
    /// Keys that found this line full on their way to another one, and are there still
    passed: u32,
    places: [u32; PLACES],
}

const _: () = assert!(size_of::<Line>() == 64, "one line of the cache");

impl Line {
    /// Numbers within the line of the places with this tag.
    fn tagged(&self, tag: u8) -> impl Iterator<Item = usize> + use<> {
        let mut bits = 0_u32;
        for (number, other) in self.tags.iter().enumerate() {
            bits |= u32::from(*other == tag) << number;
        }
        std::iter::from_fn(move || {
            let number = bits.trailing_zeros() as usize;
            bits &= bits.wrapping_sub(1);
            (number < PLACES).then_some(number)
        })
    }
}

/// Where in a list, of which it knows the places only, something is to be found.
///
/// A key's place is told in a single line of the cache, except for a few keys, and a line may be [looked
/// at](Self::look_at) ahead. What the list has is moved when the list wants it and not when the index grows.
#[derive(Debug, Default)]
pub(crate) struct Index {
    lines: Vec<Line>,
    len: usize,
    seeds: RandomState,
}

impl Index {
    /// How many places it knows.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// What a key is looked up by.
    pub(crate) fn hash(&self, key: &impl Hash) -> u64 {
        self.seeds.hash_one(key)
    }

    /// Brings the line that a hash is looked up in near. What it answers with means nothing.
    pub(crate) fn look_at(&self, hash: u64) -> u32 {
        let (line, _) = self.begin(hash);
        self.lines.get(line).map_or(0, |line| line.passed)
    }

    /// The place of what has this key, if there is one: `is_at` compares it with what is at a place.
    pub(crate) fn find(&self, key: &impl Hash, is_at: impl FnMut(u32) -> bool) -> Option<u32> {
        self.find_hashed(self.hash(key), is_at)
    }

    /// The same, by the hash of the key.
    pub(crate) fn find_hashed(&self, hash: u64, is_at: impl FnMut(u32) -> bool) -> Option<u32> {
        self.locate(hash, is_at).map(|(_, _, place)| place)
    }

    /// The same, and forgets the place.
    pub(crate) fn remove(&mut self, key: &impl Hash, is_at: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = self.hash(key);
        let (found, number, place) = self.locate(hash, is_at)?;
        let (mut passed, _) = self.begin(hash);
        while passed != found {
            self.lines.get_mut(passed)?.passed -= 1;
            passed = self.after(passed);
        }
        *self.lines.get_mut(found)?.tags.get_mut(number)? = 0;
        self.len -= 1;
        Some(place)
    }

    /// Notes a place of a key that has none yet. When the index grows, `known` tells every place that it knows, with its
    /// key; the new one may be among them.
    pub(crate) fn insert<K: Hash, I: Iterator<Item = (u32, K)>>(
        &mut self,
        key: &K,
        place: u32,
        known: impl FnOnce() -> I,
    ) {
        if self.len >= self.lines.len() * FULL {
            self.grow(known().filter(|(other, _)| *other != place));
        }
        self.add(self.hash(key), place);
        self.len += 1;
    }

    /// Forgets every place, and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.lines.fill(Line::default());
        self.len = 0;
    }

    fn locate(&self, hash: u64, mut is_at: impl FnMut(u32) -> bool) -> Option<(usize, usize, u32)> {
        let (mut at, tag) = self.begin(hash);
        // Every line may have been passed at one time or another: then a key that is not there is in none of them.
        for _ in 0..self.lines.len() {
            let line = self.lines.get(at)?;
            for number in line.tagged(tag) {
                if let Some(place) = line.places.get(number)
                    && is_at(*place)
                {
                    return Some((at, number, *place));
                }
            }
            if line.passed == 0 {
                break;
            }
            at = self.after(at);
        }
        None
    }

    fn add(&mut self, hash: u64, place: u32) {
        let (mut at, tag) = self.begin(hash);
        while let Some(line) = self.lines.get_mut(at) {
            if let Some(number) = line.tagged(0).next()
                && let Some((its_tag, its_place)) = line.tags.get_mut(number).zip(line.places.get_mut(number))
            {
                (*its_tag, *its_place) = (tag, place);
                return;
            }
            line.passed += 1;
            at = self.after(at);
        }
    }

    /// By a quarter: twice as many lines would be half empty, and most of what a socket more takes.
    fn grow<K: Hash>(&mut self, known: impl Iterator<Item = (u32, K)>) {
        let more = self.lines.len() + self.lines.len() / 4 + 1;
        // The old ones go first. What they know is told again, in the order in which it lies in memory.
        self.lines = Vec::new();
        self.lines = vec![Line::default(); more];
        for (place, key) in known {
            self.add(self.hash(&key), place);
        }
    }

    /// What a hash says of where its key is: the line to begin with (its share of the hashes, for any number of lines), and
    /// the tag, of the bits that say the least of the line.
    fn begin(&self, hash: u64) -> (usize, u8) {
        let line = (u128::from(hash) * self.lines.len() as u128) >> 64;
        (line as usize, hash as u8 | 0x80)
    }

    fn after(&self, line: usize) -> usize {
        if line + 1 < self.lines.len() { line + 1 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_is_nowhere_is_looked_for_once_around() {
        let mut index = Index::default();
        (0..100).for_each(|key: u32| index.insert(&key, key, || (0..key).map(|key| (key, key))));
        index.lines.iter_mut().for_each(|line| line.passed += 1);
        assert_eq!(index.find(&1_000_u32, |place| place == 1_000), None);
        assert_eq!(index.remove(&1_000_u32, |place| place == 1_000), None);
        assert!((0..100).all(|key: u32| index.find(&key, |place| place == key) == Some(key)));
    }

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
                    index.insert(&key, place, || plain.iter().map(|(key, place)| (*place, *key)));
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
