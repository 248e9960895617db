//! Entries of timewait sockets, packed.
//!
//! Timewait sockets leave in the order in which they came, but for a few: their clock is the same. So an entry stays where
//! it was put, a new one takes the place that was given up the longest ago, and entries that come and go one after the
//! other are neighbours in memory, however many there are. Only the index is looked at here and there, and it is small.

use std::hash::Hash;

use super::Entry;
use crate::{
    hash::Index,
    model::{OpenKind, SocketId, SocketOptions, TimeWaitId, Timestamp},
    state::turnover::OwnerId,
};

/// Entries that are kept together. Memory is taken a chunk at a time, and nothing is moved for it.
const CHUNK: usize = 1_024;
/// No place.
const NONE: u32 = u32::MAX;

// What else is known of an entry, bit by bit.
const USED: u16 = 1 << 0;
const MISSING: u16 = 1 << 1;
const ACTIVE: u16 = 1 << 2;
const PASSIVE: u16 = 1 << 3;
const NAMED: u16 = 1 << 4;
const HAS_OPTIONS: u16 = 1 << 5;
const REUSE_ADDRESS: u16 = 1 << 6;
const REUSE_PORT: u16 = 1 << 7;
const V6_ONLY: u16 = 1 << 8;

/// An [`Entry`] in as few bytes as it takes.
#[derive(Clone, Copy, Debug)]
struct Packed {
    socket: u64,
    timewait: u64,
    entered: u64,
    /// Of a place that is not in use: the next one of those
    owner: u32,
    flags: u16,
}

impl Packed {
    const fn of(entry: &Entry) -> Self {
        let mut flags = USED;
        flags |= match entry.opened {
            None => 0,
            Some(OpenKind::Active) => ACTIVE,
            Some(OpenKind::Passive) => PASSIVE,
        };
        let timewait = match entry.timewait {
            None => 0,
            Some(TimeWaitId(id)) => {
                flags |= NAMED;
                id
            }
        };
        if let Some(options) = &entry.options {
            flags |= HAS_OPTIONS;
            flags |= if options.reuse_address { REUSE_ADDRESS } else { 0 };
            flags |= if options.reuse_port { REUSE_PORT } else { 0 };
            flags |= if options.v6_only { V6_ONLY } else { 0 };
        }
        let (SocketId(socket), Timestamp(entered)) = (entry.socket, entry.entered);
        Self { socket, timewait, entered, owner: entry.owner.number(), flags }
    }

    const fn entry(&self) -> Entry {
        Entry {
            socket: SocketId(self.socket),
            timewait: if self.has(NAMED) { Some(TimeWaitId(self.timewait)) } else { None },
            owner: OwnerId::numbered(self.owner),
            opened: if self.has(ACTIVE) {
                Some(OpenKind::Active)
            } else if self.has(PASSIVE) {
                Some(OpenKind::Passive)
            } else {
                None
            },
            entered: Timestamp(self.entered),
            options: if self.has(HAS_OPTIONS) {
                Some(SocketOptions {
                    reuse_address: self.has(REUSE_ADDRESS),
                    reuse_port: self.has(REUSE_PORT),
                    v6_only: self.has(V6_ONLY),
                })
            } else {
                None
            },
        }
    }

    const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// A place of the table.
#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    packed: Packed,
}

/// What became of an entry that was to be put into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is there
    Added,
    /// It is there, in the place of this one
    Replaced(Entry),
    /// It is not: there was no room
    NoRoom,
}

/// Entries by connection.
#[derive(Debug)]
pub(super) struct Table<K> {
    index: Index,
    slots: Slots<K>,
}

/// The places, in use or not. Those that are not are a queue: the first of it is used next.
#[derive(Debug)]
struct Slots<K> {
    chunks: Vec<Vec<Slot<K>>>,
    free: (u32, u32),
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { index: Index::default(), slots: Slots { chunks: Vec::new(), free: (NONE, NONE) } }
    }
}

impl<K: Copy + Eq> Slots<K> {
    fn get(&self, place: u32) -> Option<&Slot<K>> {
        self.chunks.get(place as usize / CHUNK)?.get(place as usize % CHUNK)
    }

    fn get_mut(&mut self, place: u32) -> Option<&mut Slot<K>> {
        self.chunks.get_mut(place as usize / CHUNK)?.get_mut(place as usize % CHUNK)
    }

    fn is_at(&self, place: u32, key: &K) -> bool {
        self.get(place).is_some_and(|slot| slot.key == *key)
    }

    /// Puts it into the first free place, or a new one. None if there are more than a place can number.
    fn take(&mut self, slot: Slot<K>) -> Option<u32> {
        let (first, last) = self.free;
        if let Some(free) = self.get_mut(first) {
            let next = free.packed.owner;
            *free = slot;
            self.free = (next, if next == NONE { NONE } else { last });
            return Some(first);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = self.chunks.len() - 1;
        let chunk = self.chunks.last_mut()?;
        let place = u32::try_from(before * CHUNK + chunk.len()).ok().filter(|place| *place != NONE)?;
        chunk.push(slot);
        Some(place)
    }

    /// Gives a place up.
    fn give(&mut self, place: u32) -> Option<Entry> {
        let slot = self.get_mut(place)?;
        let entry = slot.packed.entry();
        slot.packed.flags = 0;
        slot.packed.owner = NONE;
        let (first, last) = self.free;
        if let Some(last) = self.get_mut(last) {
            last.packed.owner = place;
            self.free = (first, place);
        } else {
            self.free = (place, place);
        }
        Some(entry)
    }

    fn used(&self) -> impl Iterator<Item = (u32, &Slot<K>)> {
        (0..).zip(self.chunks.iter().flatten()).filter(|(_, slot)| slot.packed.has(USED))
    }
}

impl<K: Copy + Eq + Hash> Table<K> {
    /// Bytes of an entry, without its place in the index.
    #[cfg(test)]
    pub(super) const BYTES: usize = size_of::<Slot<K>>();

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Puts an entry in, in the place of one of the same connection. If there is none: only if there is room.
    pub(super) fn put(&mut self, key: K, entry: &Entry, has_room: bool) -> Put {
        let Self { index, slots } = self;
        let packed = Packed::of(entry);
        if let Some(place) = index.find(&key, |place| slots.is_at(place, &key))
            && let Some(slot) = slots.get_mut(place)
        {
            let before = slot.packed.entry();
            slot.packed = packed;
            return Put::Replaced(before);
        }
        if !has_room {
            return Put::NoRoom;
        }
        let Some(place) = slots.take(Slot { key, packed }) else { return Put::NoRoom };
        index.insert(&key, place, || slots.used().map(|(place, slot)| (place, slot.key)));
        Put::Added
    }

    /// Looks where it says where an entry is. What it answers with is the hash of the key, and a number that means nothing.
    pub(super) fn look_at(&self, key: &K) -> (u64, u32) {
        let hash = self.index.hash(key);
        (hash, self.index.look_at(hash))
    }

    /// The place of the entry of a connection, by the hash of its key.
    pub(super) fn place(&self, hash: u64, key: &K) -> Option<u32> {
        self.index.find_hashed(hash, |place| self.slots.is_at(place, key))
    }

    /// The entry at a place.
    pub(super) fn get(&self, place: u32) -> Option<Entry> {
        Some(self.slots.get(place)?.packed.entry())
    }

    /// The entry of a connection.
    pub(super) fn find(&self, key: &K) -> Option<Entry> {
        self.get(self.place(self.index.hash(key), key)?)
    }

    /// Takes an entry out, if it is the one that is meant.
    pub(super) fn take_if(&mut self, key: &K, is_meant: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let Self { index, slots } = self;
        let is_it = |place| slots.get(place).is_some_and(|slot| slot.key == *key && is_meant(&slot.packed.entry()));
        let place = index.remove(key, is_it)?;
        slots.give(place)
    }

    /// Forgets the entries that are `Fate::Gone`, and calls `gone` for each.
    pub(super) fn sift(&mut self, fate: impl Fn(u32, &K, &Entry, bool) -> Fate, mut gone: impl FnMut(&Entry)) {
        let places = u32::try_from(self.slots.chunks.iter().map(Vec::len).sum::<usize>()).unwrap_or(NONE);
        for place in 0..places {
            let Some(slot) = self.slots.get_mut(place).filter(|slot| slot.packed.has(USED)) else { continue };
            let (key, entry) = (slot.key, slot.packed.entry());
            match fate(place, &key, &entry, slot.packed.has(MISSING)) {
                Fate::Stays => slot.packed.flags &= !MISSING,
                Fate::Missing => slot.packed.flags |= MISSING,
                Fate::Gone => {
                    self.index.remove(&key, |other| other == place);
                    self.slots.give(place);
                    gone(&entry);
                }
            }
        }
    }

    /// Every entry, with its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &K, Entry)> {
        self.slots.used().map(|(place, slot)| (place, &slot.key, slot.packed.entry()))
    }
}

/// What becomes of an entry at a census.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there
    Stays,
    /// It is not, for the first time
    Missing,
    /// It is forgotten
    Gone,
}

/// Places of a table, a bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Vec<u64>);

impl Places {
    /// Adds a place.
    pub(super) fn insert(&mut self, place: u32) {
        let word = place as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (place % 64);
        }
    }

    /// Whether it is one of them.
    pub(super) fn contains(&self, place: u32) -> bool {
        self.0.get(place as usize / 64).is_some_and(|word| word & 1 << (place % 64) != 0)
    }
}
