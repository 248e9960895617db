//! The ledger against one that is as simple as can be.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::model::{NetnsCensus, ProcessKey, TcpState};

/// Few connections, so that they meet: of two namespaces and both families.
fn connection(number: u8) -> Connection {
    let (local, remote) = match number % 2 {
        0 => ("10.0.0.1:40000", "10.0.0.2:80"),
        _ => ("[fd00::1]:40000", "[fd00::2]:80"),
    };
    let mut local: std::net::SocketAddr = local.parse().unwrap();
    local.set_port(40_000 + u16::from(number / 4));
    Connection { netns: Netns(u32::from(number / 2 % 2)), local, remote: remote.parse().unwrap() }
}

fn row(number: u8) -> SocketRow {
    SocketRow {
        connection: connection(number),
        state: TcpState::TimeWait,
        time_wait_left: Some(Duration::from_secs(60)),
        inode: None,
        uid: 0,
        silent_for: None,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter {
        number: u8,
        socket: u8,
        timewait: Option<u8>,
        opened: Option<bool>,
        options: Option<[bool; 3]>,
    },
    Leave {
        number: u8,
        timewait: u8,
    },
    Retract {
        number: u8,
        socket: u8,
    },
    /// The rows of a census of one namespace or both, this long ago
    Census {
        shown: Vec<u8>,
        both: bool,
        ago: u8,
    },
    Wait {
        seconds: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0_u8..16;
    prop_oneof![
        6 => (number.clone(), 0_u8..4, prop::option::of(0_u8..3), any::<Option<bool>>(), any::<Option<[bool; 3]>>())
            .prop_map(|(number, socket, timewait, opened, options)| Step::Enter { number, socket, timewait, opened, options }),
        4 => (number.clone(), 0_u8..3).prop_map(|(number, timewait)| Step::Leave { number, timewait }),
        1 => (number.clone(), 0_u8..4).prop_map(|(number, socket)| Step::Retract { number, socket }),
        2 => (prop::collection::vec(number, 0..16), any::<bool>(), 0_u8..4)
            .prop_map(|(shown, both, ago)| Step::Census { shown, both, ago }),
        1 => (1_u8..90).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// What the ledger is to do, told with whole connections and whole sets.
#[derive(Default)]
struct Naive {
    entries: HashMap<Connection, Entry>,
    missing: Vec<Connection>,
    early: HashMap<(Connection, TimeWaitId), Leaving>,
    evicted: u64,
    unseen: u64,
    left: u64,
}

impl Naive {
    fn enter(&mut self, connection: Connection, entry: Entry, limit: usize) {
        if let Some(id) = entry.timewait
            && self.early.remove(&(connection, id)).is_some()
        {
            self.left += 1;
        } else if self.entries.len() >= limit && !self.entries.contains_key(&connection) {
            self.evicted += 1;
            self.unseen += 1;
        } else {
            self.missing.retain(|other| *other != connection);
            self.unseen += u64::from(self.entries.insert(connection, entry).is_some());
        }
    }

    fn leave(&mut self, connection: Connection, id: TimeWaitId) -> Option<Entry> {
        match self.entries.get(&connection) {
            Some(entry) if entry.timewait.is_none_or(|known| known == id) => {
                self.missing.retain(|other| *other != connection);
                self.entries.remove(&connection)
            }
            _ => {
                self.early.insert((connection, id), Leaving::Expired);
                None
            }
        }
    }

    fn retract(&mut self, connection: Connection, socket: SocketId) -> Option<Entry> {
        let entry = self.entries.get(&connection).copied().filter(|entry| entry.socket == socket)?;
        self.entries.remove(&connection);
        self.missing.retain(|other| *other != connection);
        Some(entry)
    }

    fn lacking(&self, census: &Census) -> Vec<Connection> {
        let mut lacking = Vec::new();
        for namespace in &census.namespaces {
            let rows: Vec<Connection> = namespace.rows.iter().map(|row| row.connection).collect();
            let here = self.entries.iter().filter(|(connection, _)| connection.netns == namespace.netns);
            let gone = here.filter(|(connection, entry)| entry.entered < namespace.at && !rows.contains(connection));
            lacking.extend(gone.map(|(connection, _)| *connection));
        }
        lacking
    }

    fn reconcile(&mut self, census: &Census) {
        let lacking = self.lacking(census);
        let expired = census.at.minus(Duration::from_secs(128));
        let before = self.entries.len();
        self.entries.retain(|connection, entry| {
            let is_dumped = census.namespaces.iter().any(|namespace| namespace.netns == connection.netns);
            if lacking.contains(connection) {
                !self.missing.contains(connection)
            } else {
                is_dumped || entry.entered >= expired
            }
        });
        self.unseen += (before - self.entries.len()) as u64;
        self.missing = lacking.into_iter().filter(|connection| self.entries.contains_key(connection)).collect();
        self.early.clear();
    }
}

fn census(shown: &[u8], both: bool, at: Timestamp) -> Census {
    let namespaces = (0..if both { 2 } else { 1 }).map(|netns| {
        let rows = shown.iter().filter(|number| connection(**number).netns == Netns(netns));
        NetnsCensus {
            netns: Netns(netns),
            at,
            rows: rows.map(|number| row(*number)).collect(),
            ..NetnsCensus::default()
        }
    });
    Census { at, namespaces: namespaces.collect(), unreachable: Vec::new() }
}

proptest! {
    #[test]
    fn a_packed_ledger_says_what_a_plain_one_says(steps in prop::collection::vec(step(), 0..120), limit in 1_usize..20) {
        let mut turnover = Turnover::default();
        let owner = turnover.add(ProcessKey { tgid: 1, start_ticks: 1 });
        let (mut ledger, mut naive) = (Ledger::new(limit), Naive::default());
        let mut now = Timestamp(1_000_000_000_000);
        for step in steps {
            now = now.plus(Duration::from_secs(1));
            match step {
                Step::Enter { number, socket, timewait, opened, options } => {
                    let entry = Entry {
                        socket: SocketId(u64::MAX - u64::from(socket)),
                        timewait: timewait.map(|id| TimeWaitId(id.into())),
                        owner,
                        opened: opened.map(|active| if active { OpenKind::Active } else { OpenKind::Passive }),
                        entered: now,
                        options: options.map(|[reuse_address, reuse_port, v6_only]| SocketOptions { reuse_address, reuse_port, v6_only }),
                    };
                    ledger.enter(&connection(number), &entry, &mut turnover);
                    naive.enter(connection(number), entry, limit);
                }
                Step::Leave { number, timewait } => {
                    let id = TimeWaitId(timewait.into());
                    prop_assert_eq!(ledger.leave(&connection(number), id, Leaving::Expired), naive.leave(connection(number), id));
                }
                Step::Retract { number, socket } => {
                    let socket = SocketId(u64::MAX - u64::from(socket));
                    prop_assert_eq!(ledger.retract(&connection(number), socket), naive.retract(connection(number), socket));
                }
                Step::Census { shown, both, ago } => {
                    let census = census(&shown, both, now.minus(Duration::from_secs(ago.into())));
                    let mut gone = 0;
                    ledger.each_gone(&census, |_| gone += 1);
                    prop_assert_eq!(gone, naive.lacking(&census).len());
                    ledger.reconcile(&census, &mut turnover);
                    naive.reconcile(&census);
                }
                Step::Wait { seconds } => now = now.plus(Duration::from_secs(seconds.into())),
            }
            for number in 0..16 {
                let known = naive.entries.get(&connection(number)).copied();
                prop_assert_eq!(ledger.entry(&connection(number)), known, "{}", number);
                prop_assert_eq!(ledger.find(&row(number), now), known.filter(|entry| entry.explains(&row(number), now)));
                prop_assert_eq!(
                    ledger.get(&connection(number), TimeWaitId(1)),
                    known.filter(|entry| entry.timewait.is_none_or(|id| id == TimeWaitId(1)))
                );
            }
            let rows: Vec<SocketRow> = (0..16).map(row).collect();
            let found: Vec<_> = rows.iter().map(|row| ledger.find(row, now)).collect();
            prop_assert_eq!(ledger.find_each(&rows, now), found);
            prop_assert_eq!(ledger.evicted(), naive.evicted);
            let expected: BTreeMap<_, _> =
                [(Leaving::Expired, naive.left), (Leaving::Unseen, naive.unseen)].into_iter().filter(|(_, count)| *count > 0).collect();
            prop_assert_eq!(turnover.all_left().by_reason(), expected);
        }
    }
}

/// Entries that come and go take the places of those before, in the order in which these were given up.
#[test]
fn what_comes_and_goes_takes_no_room() {
    let mut turnover = Turnover::default();
    let mut ledger = Ledger::new(1 << 20);
    let at = |number: u16| Connection {
        netns: Netns(1),
        local: ([10, 0, 0, 1], number).into(),
        remote: ([10, 0, 0, 2], 80).into(),
    };
    let entry = |number: u16| Entry {
        socket: SocketId(number.into()),
        timewait: Some(TimeWaitId(number.into())),
        owner: OwnerId::AGENT,
        opened: None,
        entered: Timestamp(number.into()),
        options: None,
    };
    for number in 0..3_000 {
        ledger.enter(&at(number), &entry(number), &mut turnover);
    }
    for number in 3_000..60_000 {
        let old = number - 3_000;
        assert_eq!(ledger.leave(&at(old), TimeWaitId(old.into()), Leaving::Expired), Some(entry(old)));
        ledger.enter(&at(number), &entry(number), &mut turnover);
    }
    let mut places: Vec<(u32, Timestamp)> = ledger.v4.iter().map(|(place, _, entry)| (place, entry.entered)).collect();
    assert_eq!(places.len(), 3_000);
    places.sort_unstable();
    assert_eq!(places.last().unwrap().0, 2_999);
    let turns = places.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
    assert_eq!(turns, 0, "60,000 is a multiple of 3,000");
}

#[test]
fn an_entry_takes_48_bytes() {
    assert_eq!(Table::<V4Key>::BYTES, 48);
}
