//! What is known of processes, and what each of them is called in the turnover.

use super::{ahead::LARGE, turnover::OwnerId};
use crate::{
    hash::Index,
    model::{Name, Process, ProcessKey, Task},
};

/// Whose a place is that is free: no process has such a number.
const NOBODY: ProcessKey = ProcessKey { tgid: u32::MAX, start_ticks: u64::MAX };

/// A process that an event or a look at /proc told of.
#[derive(Debug)]
struct Slot {
    key: ProcessKey,
    /// Its name once more: it is compared at every event, and the rest is elsewhere
    comm: Name,
    /// Its number, once it has closed a connection
    owner: Option<OwnerId>,
    /// None of one that there was no room for
    process: Option<Box<Process>>,
}

/// Where the table has a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// The table of processes. Those that closed connections have a place in any case, and a description if there was room.
#[derive(Debug, Default)]
pub(super) struct Processes {
    index: Index,
    slots: Vec<Slot>,
    /// Places that were given up
    free: Vec<u32>,
    described: usize,
    limit: usize,
    evicted: u64,
}

impl Processes {
    /// An empty table that describes `limit` processes at most.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Remembers a process by its name, its latest one if it has changed it (exec, prctl). None of a kernel thread, and
    /// where there was no room.
    pub(super) fn know(&mut self, task: &Task) -> Option<Place> {
        if task.is_kernel_thread {
            return None;
        }
        let place = self.find(task.key);
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place.0 as usize))
            && let Some(process) = &mut slot.process
        {
            if slot.comm != task.comm {
                slot.comm = task.comm.clone();
                process.comm = task.comm.clone();
            }
            return place;
        }
        self.describe(Process::from_task(task))
    }

    /// Takes in what was found out about a process. None where there was no room.
    pub(super) fn describe(&mut self, process: Process) -> Option<Place> {
        let place = self.find(process.key);
        let known = place.and_then(|place| self.slots.get_mut(place.0 as usize));
        let is_described = known.as_ref().is_some_and(|slot| slot.process.is_some());
        if !is_described {
            if self.described >= self.limit {
                self.evicted += 1;
                return place;
            }
            self.described += 1;
        }
        match known {
            Some(slot) => {
                slot.comm = process.comm.clone();
                slot.process = Some(Box::new(process));
                place
            }
            None => Some(self.add(process.key, Some(process))),
        }
    }

    /// The number of a process in the turnover; `number` makes one if it has none. `place`: where it is, if that is known.
    pub(super) fn owner(&mut self, key: ProcessKey, place: Option<Place>, number: impl FnOnce() -> OwnerId) -> OwnerId {
        let place = place.or_else(|| self.find(key)).unwrap_or_else(|| self.add(key, None));
        match self.slots.get_mut(place.0 as usize) {
            Some(slot) => *slot.owner.get_or_insert_with(number),
            None => number(),
        }
    }

    /// Looks where it says where a process is, if that is worth it.
    pub(super) fn look_at(&self, key: ProcessKey) -> u32 {
        if self.slots.len() < LARGE { 0 } else { self.index.look_at(self.index.hash(&key)) }
    }

    /// What is known of a process.
    #[must_use]
    pub(super) fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.slots.get(self.find(key)?.0 as usize)?.process.as_deref()
    }

    /// Every process it has a place for.
    pub(super) fn keys(&self) -> impl Iterator<Item = ProcessKey> {
        self.slots.iter().map(|slot| slot.key).filter(|key| *key != NOBODY)
    }

    /// How many places there are, in use or not.
    pub(super) const fn places(&self) -> usize {
        self.slots.len()
    }

    /// How often there was no room to describe a process.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forgets a process, if its number in the turnover can be given up: `gives_up` is asked for that, if it has one.
    pub(super) fn forget(&mut self, key: ProcessKey, gives_up: impl FnOnce(OwnerId) -> bool) {
        let Some(place) = self.find(key) else { return };
        let Some(slot) = self.slots.get_mut(place.0 as usize) else { return };
        if slot.owner.is_some_and(|owner| !gives_up(owner)) {
            return;
        }
        self.index.remove(&key, |other| other == place.0);
        self.described -= usize::from(slot.process.is_some());
        *slot = Slot { key: NOBODY, comm: Name::default(), owner: None, process: None };
        self.free.push(place.0);
    }

    fn find(&self, key: ProcessKey) -> Option<Place> {
        let is_at = |place| self.slots.get(place as usize).is_some_and(|slot| slot.key == key);
        self.index.find(&key, is_at).map(Place)
    }

    fn add(&mut self, key: ProcessKey, process: Option<Process>) -> Place {
        // There are 2^22 processes at once at most, and those between two windows do not come near 2^32.
        let comm = process.as_ref().map(|process| process.comm.clone()).unwrap_or_default();
        let slot = Slot { key, comm, owner: None, process: process.map(Box::new) };
        let free = self.free.pop().and_then(|place| Some((place, self.slots.get_mut(place as usize)?)));
        let place = if let Some((place, given_up)) = free {
            *given_up = slot;
            place
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        let slots = &self.slots;
        self.index.insert(&key, place, || {
            (0..).zip(slots).map(|(place, slot)| (place, slot.key)).filter(|(_, key)| *key != NOBODY)
        });
        Place(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tgid: u32, comm: &str) -> Task {
        Task {
            key: ProcessKey { tgid, start_ticks: 1 },
            uid: 0,
            comm: comm.into(),
            cgroup_id: 0,
            is_kernel_thread: false,
            is_agent: false,
        }
    }

    #[test]
    fn a_process_goes_by_its_latest_name_and_keeps_what_else_is_known() {
        let mut processes = Processes::new(10);
        let first = task(7, "sh");
        let exe = Some("/bin/sh".into());
        processes.describe(Process { exe: exe.clone(), ..Process::from_task(&first) });
        let place = processes.know(&first);
        assert_eq!(processes.know(&task(7, "nginx")), place);
        let known = processes.get(first.key).unwrap();
        assert_eq!((known.comm.as_str(), &known.exe), ("nginx", &exe));
        processes.know(&task(7, "sh"));
        assert_eq!(processes.get(first.key).unwrap().comm.as_str(), "sh");
        assert_eq!(processes.know(&Task { is_kernel_thread: true, ..task(8, "kworker") }), None);
    }

    #[test]
    fn one_without_room_has_a_number_and_no_name() {
        let mut processes = Processes::new(1);
        processes.know(&task(1, "a"));
        assert_eq!(processes.know(&task(2, "b")), None);
        assert_eq!(processes.evicted(), 1);
        let two = task(2, "b").key;
        let id = processes.owner(two, None, || OwnerId::numbered(5));
        assert_eq!(processes.owner(two, None, || OwnerId::numbered(6)), id);
        assert_eq!((processes.get(two), processes.evicted()), (None, 1));
        assert!(processes.know(&task(2, "b")).is_some() && processes.get(two).is_none());
        assert_eq!(processes.evicted(), 2, "every time is counted");
    }
}
