//! Who owns which timewait socket.
//!
//! The kernel keeps no owner with a timewait socket. The ledger does, from the moment a connection enters until the
//! kernel is seen to take its timewait socket away or, where that cannot be watched, two dumps no longer show it. It is
//! never counted by itself: what is *now* in TIME_WAIT is what sock_diag lists, and the
//! ledger only says whose each row is. So a lost event can cost an owner, but never skew a count.
//!
//! A row is matched by namespace and both endpoints. The same four numbers can come back, so an entry that is too old
//! to be the row it matches is not believed (`Entry::explains`).

mod table;

use std::time::Duration;

use self::table::{Fate, Places, Put, Table};
use super::{
    ahead::{LARGE, in_lots},
    key::{InNetns, Key, V4Key, V6Key},
    turnover::{OwnerId, Turnover},
};
use crate::{
    hash::FastMap,
    model::{
        Census, Connection, Leaving, Netns, OpenKind, SocketId, SocketOptions, SocketRow, TimeWaitId, TimeWaitSubstate,
        Timestamp,
    },
};

/// `TCP_TIMEWAIT_LEN`, include/net/tcp.h: a constant, not a setting.
pub(crate) const TIME_WAIT_LENGTH: Duration = Duration::from_secs(60);
/// The longest an orphaned FIN_WAIT2 is kept as a minisocket (`tcp_fin_timeout` beyond that is spent as a full socket).
const FIN_WAIT2_LENGTH: Duration = Duration::from_secs(60);
/// What the kernel's timer wheel may be late by, and a dump may take.
const SLACK: Duration = Duration::from_secs(8);
/// Timewait sockets that left before they entered: another CPU took them away within microseconds, and its record came
/// first. They wait for the next census.
const MAX_EARLY: usize = 4_096;

/// What the ledger says of a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Which socket it was
    pub(super) socket: SocketId,
    /// And which timewait socket it is, where that is observed
    pub(super) timewait: Option<TimeWaitId>,
    /// Whose it is
    pub(super) owner: OwnerId,
    /// Which way the connection was opened, if that is known
    pub(super) opened: Option<OpenKind>,
    /// When it entered
    pub(super) entered: Timestamp,
    /// The options it keeps, if they are known
    pub(super) options: Option<SocketOptions>,
}

impl Entry {
    /// Whether this entry can be the row of a dump: a timewait socket lives for 60 s at most after its FIN_WAIT2 time,
    /// unless retransmissions restart its clock, which also leaves it with more time than it could have otherwise.
    fn explains(&self, row: &SocketRow, dumped: Timestamp) -> bool {
        let left = row.time_wait_left.unwrap_or_default();
        let length = match row.substate() {
            Some(TimeWaitSubstate::FinWait2) => FIN_WAIT2_LENGTH,
            _ => TIME_WAIT_LENGTH,
        };
        // When the row's clock was last started.
        let started = dumped.minus(length.saturating_sub(left));
        started.since(self.entered) <= FIN_WAIT2_LENGTH + TIME_WAIT_LENGTH + SLACK
    }
}

/// The table of timewait sockets.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    v4: Table<V4Key>,
    v6: Table<V6Key>,
    early: FastMap<(Key, TimeWaitId), Leaving>,
    limit: usize,
    evicted: u64,
}

impl Ledger {
    /// An empty ledger of at most `limit` entries.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Notes that a connection entered. If one with the same four numbers is here still, it must have left.
    pub(super) fn enter(&mut self, connection: &Connection, entry: &Entry, turnover: &mut Turnover) {
        let key = Key::of(connection);
        // Nearly always empty, and to look something up in it takes as long as in the other one.
        if !self.early.is_empty()
            && let Some(why) = entry.timewait.and_then(|id| self.early.remove(&(key, id)))
        {
            return turnover.left(entry.owner, why);
        }
        let has_room = self.len() < self.limit;
        let put = match key {
            Key::V4(key) => self.v4.put(key, entry, has_room),
            Key::V6(key) => self.v6.put(key, entry, has_room),
        };
        match put {
            Put::Added => {}
            Put::Replaced(before) => turnover.replaced(before.owner),
            Put::NoRoom => {
                self.evicted += 1;
                turnover.left(entry.owner, Leaving::Unseen);
            }
        }
    }

    /// What is known of a timewait socket. An entry that was made without its name is recognised by its connection.
    pub(super) fn get(&self, connection: &Connection, id: TimeWaitId) -> Option<Entry> {
        self.entry(connection).filter(|entry| entry.timewait.is_none_or(|known| known == id))
    }

    /// Notes that a timewait socket left, and forgets it.
    pub(super) fn leave(&mut self, connection: &Connection, id: TimeWaitId, why: Leaving) -> Option<Entry> {
        let key = Key::of(connection);
        let entry = self.take_if(key, |entry| entry.timewait.is_none_or(|known| known == id));
        if entry.is_none() && self.early.len() < MAX_EARLY {
            self.early.insert((key, id), why);
        }
        entry
    }

    /// Takes back the entry of `socket`. None if there is none, or another socket's.
    pub(super) fn retract(&mut self, connection: &Connection, socket: SocketId) -> Option<Entry> {
        self.take_if(Key::of(connection), |entry| entry.socket == socket)
    }

    /// What is known of a row of a dump.
    #[must_use]
    pub(super) fn find(&self, row: &SocketRow, dumped: Timestamp) -> Option<Entry> {
        self.entry(&row.connection).filter(|entry| entry.explains(row, dumped))
    }

    /// The same of some rows, which are looked up [together](Self::places).
    pub(super) fn find_each(&self, rows: &[SocketRow], dumped: Timestamp) -> Vec<Option<Entry>> {
        let entry = |place| match place {
            Place::V4(place) => self.v4.get(place),
            Place::V6(place) => self.v6.get(place),
        };
        let entries = self.places(rows).into_iter().map(|place| place.and_then(entry));
        entries.zip(rows).map(|(entry, row)| entry.filter(|entry| entry.explains(row, dumped))).collect()
    }

    /// Where the entries of these connections are. What is far away in memory is asked for, for all of them, before anything
    /// is done with it.
    fn places(&self, rows: &[SocketRow]) -> Vec<Option<Place>> {
        let mut read = 0;
        let sought: Vec<(Key, u64)> = rows
            .iter()
            .map(|row| {
                let key = Key::of(&row.connection);
                let (hash, line) = self.look_at_key(&key);
                read ^= line;
                (key, hash)
            })
            .collect();
        // Somebody has to want it, or it is not read.
        std::hint::black_box(read);
        let place = |(key, hash)| match key {
            Key::V4(key) => self.v4.place(hash, &key).map(Place::V4),
            Key::V6(key) => self.v6.place(hash, &key).map(Place::V6),
        };
        sought.into_iter().map(place).collect()
    }

    /// Looks where it says where an entry of this connection is, if that is worth it.
    pub(super) fn look_at(&self, connection: &Connection) -> u32 {
        if self.len() < LARGE { 0 } else { self.look_at_key(&Key::of(connection)).1 }
    }

    fn look_at_key(&self, key: &Key) -> (u64, u32) {
        match key {
            Key::V4(key) => self.v4.look_at(key),
            Key::V6(key) => self.v6.look_at(key),
        }
    }

    fn entry(&self, connection: &Connection) -> Option<Entry> {
        match Key::of(connection) {
            Key::V4(key) => self.v4.find(&key),
            Key::V6(key) => self.v6.find(&key),
        }
    }

    fn take_if(&mut self, key: Key, is_meant: impl Fn(&Entry) -> bool) -> Option<Entry> {
        match key {
            Key::V4(key) => self.v4.take_if(&key, is_meant),
            Key::V6(key) => self.v6.take_if(&key, is_meant),
        }
    }

    /// Forgets what two censuses in a row do not show; one is not enough, since a record of why it left may be on its
    /// way. Entries made after the dump of their namespace stay; those of namespaces the census could not look into stay
    /// until they must have expired.
    pub(super) fn reconcile(&mut self, census: &Census, turnover: &mut Turnover) {
        let shown = Shown::by(census, self);
        let expired = census.at.minus(FIN_WAIT2_LENGTH + TIME_WAIT_LENGTH + SLACK);
        shown.sift(&mut self.v4, &shown.v4, expired, turnover);
        shown.sift(&mut self.v6, &shown.v6, expired, turnover);
        self.early.clear();
    }

    /// Tells whose those are that the census does not show, one after the other. Once the records made before it have been
    /// taken in, they have left without being seen to.
    pub(super) fn each_gone(&self, census: &Census, mut gone: impl FnMut(OwnerId)) {
        let shown = Shown::by(census, self);
        for (netns, entry, is_shown) in self.entries(&shown) {
            if shown.lacks(netns, &entry, is_shown) {
                gone(entry.owner);
            }
        }
    }

    /// Tells whose those are that the census does not show, also of namespaces that it neither looked into nor knows to be
    /// there: with them, their sockets went.
    pub(super) fn each_not_shown(&self, census: &Census, mut not_shown: impl FnMut(OwnerId)) {
        let shown = Shown::by(census, self);
        let unreachable: Vec<Netns> = census.unreachable.iter().map(|(netns, _)| *netns).collect();
        for (netns, entry, is_shown) in self.entries(&shown) {
            let is_gone_with_it = !shown.dumped.contains_key(&netns) && !unreachable.contains(&netns);
            if shown.lacks(netns, &entry, is_shown) || is_gone_with_it && entry.entered < census.at {
                not_shown(entry.owner);
            }
        }
    }

    /// Every entry, with its namespace and whether a census shows it.
    fn entries<'a>(&'a self, shown: &'a Shown) -> impl Iterator<Item = (Netns, Entry, bool)> + 'a {
        let v4 = self.v4.iter().map(|(place, key, entry)| (key.netns(), entry, shown.v4.contains(place)));
        let v6 = self.v6.iter().map(|(place, key, entry)| (key.netns(), entry, shown.v6.contains(place)));
        v4.chain(v6)
    }

    /// Tells whose each entry is.
    #[cfg(test)]
    pub(super) fn each(&self, mut owner: impl FnMut(OwnerId)) {
        self.v4.iter().for_each(|(.., entry)| owner(entry.owner));
        self.v6.iter().for_each(|(.., entry)| owner(entry.owner));
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Connections that found no room.
    #[must_use]
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// Where an entry is.
#[derive(Clone, Copy)]
enum Place {
    V4(u32),
    V6(u32),
}

/// What a census shows of a ledger.
struct Shown {
    /// When the namespaces were dumped that the census looked into
    dumped: FastMap<Netns, Timestamp>,
    /// The places of the connections that it shows a timewait socket of
    v4: Places,
    v6: Places,
}

impl Shown {
    fn by(census: &Census, ledger: &Ledger) -> Self {
        let dumped = census.namespaces.iter().map(|namespace| (namespace.netns, namespace.at)).collect();
        let mut shown = Self { dumped, v4: Places::default(), v6: Places::default() };
        let rows = census.namespaces.iter().flat_map(|namespace| namespace.rows.iter());
        for rows in in_lots(rows.filter(|row| row.substate().is_some())) {
            for place in ledger.places(&rows).into_iter().flatten() {
                match place {
                    Place::V4(place) => shown.v4.insert(place),
                    Place::V6(place) => shown.v6.insert(place),
                }
            }
        }
        shown
    }

    /// Whether it would be among them, had it not left.
    fn lacks(&self, netns: Netns, entry: &Entry, is_shown: bool) -> bool {
        !is_shown && self.dumped.get(&netns).is_some_and(|dumped| entry.entered < *dumped)
    }

    fn sift<K: Copy + Eq + std::hash::Hash + InNetns>(
        &self,
        table: &mut Table<K>,
        places: &Places,
        expired: Timestamp,
        turnover: &mut Turnover,
    ) {
        let fate = |place, key: &K, entry: &Entry, was_missing| {
            let netns = key.netns();
            if self.lacks(netns, entry, places.contains(place)) {
                if was_missing { Fate::Gone } else { Fate::Missing }
            } else if self.dumped.contains_key(&netns) || entry.entered >= expired {
                Fate::Stays
            } else {
                Fate::Gone
            }
        };
        table.sift(fate, |entry| turnover.left(entry.owner, Leaving::Unseen));
    }
}

#[cfg(test)]
mod tests;
