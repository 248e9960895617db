//! What is known of containers: a bounded table, in which those that have no name have a place, too.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{Found, Runtime};
use crate::model::Name;

/// So many containers at most, of about half a KiB each.
const MAX_ENTRIES: usize = 4096;
/// How long what is known is taken as it is. `docker rename` is seen after this; and a file is looked for this often that
/// was not there.
const FRESH: Duration = Duration::from_secs(10);
/// How long a name is kept of a container whose files are gone: longer than the minute its TIME_WAIT lasts, and a report
/// or an alert may come some minutes later. Short-lived pods are those that leave most of it.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// A container that has names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) runtime: Runtime,
    pub(super) found: Found,
}

/// What the table says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was looked up a moment ago
    Fresh(Option<Entry>),
    /// It was looked up some time ago
    Stale(Option<Entry>),
    /// It was not looked up
    Nothing,
}

#[derive(Debug)]
struct Slot {
    entry: Option<Entry>,
    /// When its files were last looked at
    checked: Instant,
    /// When they were last there
    seen: Instant,
    used: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    slots: HashMap<Name, Slot>,
}

impl Cache {
    pub(super) fn get(&mut self, id: &Name, now: Instant) -> Known {
        let Some(slot) = self.slots.get_mut(id) else { return Known::Nothing };
        slot.used = now;
        if now.duration_since(slot.checked) < FRESH {
            Known::Fresh(slot.entry.clone())
        } else {
            Known::Stale(slot.entry.clone())
        }
    }

    pub(super) fn is_known(&self, id: &Name) -> bool {
        self.slots.contains_key(id)
    }

    /// Its files are as they were.
    pub(super) fn confirm(&mut self, id: &Name, now: Instant) {
        if let Some(slot) = self.slots.get_mut(id) {
            (slot.checked, slot.seen) = (now, now);
        }
    }

    /// Its files are gone. Whether its names are still good; if not, they are forgotten.
    pub(super) fn keep(&mut self, id: &Name, now: Instant) -> bool {
        let Some(slot) = self.slots.get_mut(id) else { return false };
        slot.checked = now;
        let is_kept = now.duration_since(slot.seen) < KEPT;
        if !is_kept {
            slot.entry = None;
        }
        is_kept
    }

    pub(super) fn insert(&mut self, id: Name, entry: Option<Entry>, now: Instant) {
        if self.slots.len() >= MAX_ENTRIES && !self.slots.contains_key(&id) {
            self.make_room(now);
        }
        self.slots.insert(id, Slot { entry, checked: now, seen: now, used: now });
    }

    /// Lets go of those that nobody asked for in a long time; if there are none, of the eighth that was asked for least
    /// recently, so that the table is not gone through for every new one.
    fn make_room(&mut self, now: Instant) {
        self.slots.retain(|_, slot| now.duration_since(slot.used) < KEPT);
        if self.slots.len() < MAX_ENTRIES {
            return;
        }
        let mut used: Vec<Instant> = self.slots.values().map(|slot| slot.used).collect();
        let (_, &mut limit, _) = used.select_nth_unstable(MAX_ENTRIES / 8);
        let mut left = MAX_ENTRIES / 8;
        self.slots.retain(|_, slot| {
            let goes = left > 0 && slot.used <= limit;
            left -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::containers::Names;

    fn entry(name: &str) -> Entry {
        let names = Names { name: Some(name.into()), ..Names::default() };
        Entry { runtime: Runtime::Docker, found: Found { names, file: "/x".into(), modified: None } }
    }

    #[test]
    fn the_table_is_bounded_and_lets_go_of_the_least_used() {
        let mut cache = Cache::default();
        let start = Instant::now();
        let id = |number: usize| Name::from(format!("{number:064x}").as_str());
        for number in 0..3 * MAX_ENTRIES {
            let now = start + Duration::from_millis(number as u64);
            cache.insert(id(number), (number % 2 == 0).then(|| entry("x")), now);
            assert!(cache.slots.len() <= MAX_ENTRIES);
            assert_ne!(cache.get(&id(0), now), Known::Nothing, "one that is in use stays: {number}");
        }
        assert!(cache.slots.len() > MAX_ENTRIES / 2);
        assert_eq!(cache.get(&id(1), start + KEPT), Known::Nothing);
    }

    #[test]
    fn names_are_kept_for_some_time_after_the_files_are_gone() {
        let mut cache = Cache::default();
        let (id, start) = (Name::from("a"), Instant::now());
        cache.insert(id.clone(), Some(entry("orders")), start);
        assert_eq!(cache.get(&id, start + FRESH / 2), Known::Fresh(Some(entry("orders"))));
        let gone = start + FRESH;
        assert_eq!(cache.get(&id, gone), Known::Stale(Some(entry("orders"))));
        assert!(cache.keep(&id, gone));
        assert_eq!(
            cache.get(&id, gone + FRESH / 2),
            Known::Fresh(Some(entry("orders"))),
            "not looked for all the time"
        );
        assert!(!cache.keep(&id, start + KEPT));
        assert_eq!(cache.get(&id, start + KEPT), Known::Fresh(None));
    }
}
