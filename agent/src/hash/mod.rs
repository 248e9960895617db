//! The tables every event goes through.
//!
//! Their keys come from the network in part, so they are hashed with seeds that are drawn anew in each process; but with a
//! function that takes some nanoseconds for an address, where the standard library's takes a tenth of a microsecond.

mod index;

use std::collections::{HashMap, HashSet};

use foldhash::quality::RandomState;

pub(crate) use self::index::Index;

/// A map of the hot path.
pub(crate) type FastMap<K, V> = HashMap<K, V, RandomState>;
/// A set of the hot path.
pub(crate) type FastSet<K> = HashSet<K, RandomState>;
