//! What the state answers: whose a row of a dump is, what went wrong and how often, what became of connections.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    State, Turnover,
    ahead::in_lots,
    failures::{ConnectKey, HoldersSeen, RefusedKey, RefusedTally, RejectedSynKey, ResetKey, Tally},
    ledger::{Entry, TIME_WAIT_LENGTH},
    turnover::Owner,
};
use crate::model::{
    Census, Connection, Ending, HeldOptions, Leaving, Netns, NetnsCensus, OpenKind, Process, ProcessKey, RefusedCall,
    SocketRow, TimeWaitEvent, TimeWaitSubstate, Timestamp, Transition,
};

/// What the age of a row may be wrong by: the kernel counts it in jiffies, and a dump takes its time.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// Whose a row of a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// This process's, and which way the connection was opened
    Process(ProcessKey, Option<OpenKind>),
    /// Nobody's that is known
    Unknown(Reason),
}

/// Why a timewait socket has no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was there when the session began
    BeforeSession,
    /// It began to close before the session
    ClosedBefore,
    /// A kernel thread closed it
    KernelThread,
    /// Its process closed it while the agent looked at its open files, and nobody was seen to connect or accept
    Agent,
    /// Events were lost, its own may be among them
    EventLost,
    /// No event came, and none is known to be lost
    NotSeen,
}

impl State {
    /// Whether nobody looked for the holders of this call's port yet.
    #[must_use]
    pub fn wants_holders(&self, call: &RefusedCall) -> bool {
        self.refused.get(&RefusedKey::of(call)).is_some_and(|tally| tally.holders == HoldersSeen::NotLooked)
    }

    /// Whose a timewait socket of a dump is. `has_losses`: events were lost during the session.
    #[must_use]
    pub fn attribute(&self, row: &SocketRow, dumped: Timestamp, has_losses: bool) -> Attribution {
        self.attribution(self.ledger.find(row, dumped), row, dumped, has_losses)
    }

    fn attribution(&self, entry: Option<Entry>, row: &SocketRow, dumped: Timestamp, has_losses: bool) -> Attribution {
        let Some(entry) = entry else {
            return Attribution::Unknown(self.why_unknown(row, dumped, has_losses));
        };
        match self.turnover.owner(entry.owner) {
            Owner::Process(key) => Attribution::Process(key, entry.opened),
            Owner::KernelThread => Attribution::Unknown(Reason::KernelThread),
            Owner::Lost => Attribution::Unknown(Reason::EventLost),
            Owner::Agent => Attribution::Unknown(Reason::Agent),
            Owner::ClosedBefore => Attribution::Unknown(Reason::ClosedBefore),
        }
    }

    /// The timewait sockets of a namespace, and whose each of them is: [`Self::attribute`] for many.
    pub fn attributed<'a>(
        &'a self,
        namespace: &'a NetnsCensus,
        has_losses: bool,
    ) -> impl Iterator<Item = (SocketRow, Attribution)> + use<'a> {
        let dumped = namespace.at;
        let timewait = namespace.rows.iter().filter(|row| row.substate().is_some());
        in_lots(timewait).flat_map(move |rows| {
            let entries = self.ledger.find_each(&rows, dumped);
            let found = rows.into_iter().zip(entries);
            found.map(move |(row, entry)| (row, self.attribution(entry, &row, dumped, has_losses)))
        })
    }

    /// The options a timewait socket of a dump keeps of the socket it came from, as far as they are known.
    #[must_use]
    pub fn options_kept(&self, row: &SocketRow, dumped: Timestamp) -> HeldOptions {
        let options = self.ledger.find(row, dumped).and_then(|entry| entry.options);
        options.map_or_else(HeldOptions::default, |options| HeldOptions {
            reuse_address: Some(options.reuse_address),
            reuse_port: Some(options.reuse_port),
            v6_only: Some(options.v6_only),
            device: None,
        })
    }

    /// Whether the census shows a timewait socket of which nothing is known, not even why.
    #[must_use]
    pub fn has_unseen(&self, census: &Census) -> bool {
        census.namespaces.iter().any(|namespace| {
            let not_seen = Attribution::Unknown(Reason::NotSeen);
            self.attributed(namespace, false).any(|(_, attribution)| attribution == not_seen)
        })
    }

    fn why_unknown(&self, row: &SocketRow, dumped: Timestamp, has_losses: bool) -> Reason {
        let spent = match row.substate() {
            Some(TimeWaitSubstate::TimeWait) => TIME_WAIT_LENGTH.saturating_sub(row.time_wait_left.unwrap_or_default()),
            // How long it has been waiting depends on tcp_fin_timeout at the time; only the first census can tell.
            _ => Duration::ZERO,
        };
        // The first census knows; the clock only decides for a namespace that was out of its reach.
        if self.older.had_timewait(&row.connection) || dumped.minus(spent).plus(CLOCK_SLACK) < self.started {
            Reason::BeforeSession
        } else if has_losses {
            Reason::EventLost
        } else {
            Reason::NotSeen
        }
    }

    /// Whose a timewait socket is that something happens to; none if it is nobody's that is known.
    #[must_use]
    pub fn owner_of(&self, event: &TimeWaitEvent) -> Option<&Process> {
        let owner = self.ledger.get(&event.connection, event.id)?.owner;
        self.process(self.turnover.owner(owner).process()?)
    }

    /// The process on this side of a connection that ends with this transition, before it is taken in: who ended its
    /// sending side or, of one that left no timewait socket, who connected or served it otherwise. None if it is nobody's
    /// that is known.
    #[must_use]
    pub fn owner_of_end(&self, transition: &Transition) -> Option<ProcessKey> {
        let older = if transition.is_older() { self.older.get(&transition.connection) } else { None };
        let owner = self.owner(transition, older.and_then(|older| older.owner));
        match transition.ending()? {
            Ending::TimeWait { .. } | Ending::TimeWaitRefused { .. } => owner.process(),
            _ => self.holder_of(owner, transition, self.opened(transition, older)),
        }
    }

    /// Timewait sockets from before the session that are not known to have left.
    #[must_use]
    pub fn older_timewait(&self) -> u64 {
        self.older.timewait() as u64
    }

    /// Every process a report can name.
    #[must_use]
    pub fn mentioned(&self) -> HashSet<ProcessKey> {
        let holders = self.refused.iter().flat_map(|(_, tally)| tally.holders.sockets());
        self.turnover
            .owners()
            .chain(self.refused.iter().filter_map(|(_, tally)| tally.last))
            .chain(holders.filter_map(|holder| holder.owner))
            .chain(self.connects.iter().filter_map(|(key, _)| key.process))
            .chain(self.resets.iter().filter_map(|(key, _)| key.process))
            .chain(self.rejected_syns.iter().filter_map(|(key, _)| key.process))
            .collect()
    }

    /// When the session began, which may be long before the window.
    #[must_use]
    pub const fn started(&self) -> Timestamp {
        self.started
    }

    /// Every process that is known.
    pub fn processes(&self) -> impl Iterator<Item = ProcessKey> {
        self.processes.keys()
    }

    /// What is known of a process.
    #[must_use]
    pub fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(key)
    }

    /// What became of everybody's connections, as far as it was seen.
    #[must_use]
    pub const fn turnover(&self) -> &Turnover {
        &self.turnover
    }

    /// The same at a census before which everything has been taken in: what it does not show has left.
    #[must_use]
    pub fn turnover_at(&self, census: &Census) -> Turnover {
        let mut turnover = self.turnover.clone();
        self.ledger.each_gone(census, |owner| turnover.left(owner, Leaving::Unseen));
        turnover
    }

    /// How many of the timewait sockets that were seen to enter and not to leave a census does not show, by process.
    #[must_use]
    pub fn not_shown(&self, census: &Census) -> HashMap<ProcessKey, u64> {
        let mut counts = HashMap::new();
        self.ledger.each_not_shown(census, |owner| {
            if let Some(key) = self.turnover.owner(owner).process() {
                *counts.entry(key).or_default() += 1;
            }
        });
        counts
    }

    /// Refused bind() and listen().
    #[must_use]
    pub const fn refused(&self) -> &Tally<RefusedKey, RefusedTally> {
        &self.refused
    }

    /// Failed connect().
    #[must_use]
    pub const fn connects(&self) -> &Tally<ConnectKey, u64> {
        &self.connects
    }

    /// Connections that were cut off.
    #[must_use]
    pub const fn resets(&self) -> &Tally<ResetKey, u64> {
        &self.resets
    }

    /// SYNs that met an earlier connection of their four numbers.
    #[must_use]
    pub const fn rejected_syns(&self) -> &Tally<RejectedSynKey, u64> {
        &self.rejected_syns
    }

    /// Who had a connection open when the session began, if it has not ended since.
    #[must_use]
    pub fn older_owner(&self, connection: &Connection) -> Option<ProcessKey> {
        self.older.owner(connection)
    }

    /// `TCPTimeWaitOverflow` of a namespace when the window began.
    #[must_use]
    pub fn overflow_before(&self, netns: Netns) -> u64 {
        self.older.overflow(netns)
    }

    /// Events taken in since the window began.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Entries that found no room in a table since the window began.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted_ever() - self.window.evicted
    }

    /// The same since the session began.
    #[must_use]
    pub fn evicted_ever(&self) -> u64 {
        self.ledger.evicted()
            + self.listeners.evicted()
            + self.older.evicted()
            + self.refused.evicted()
            + self.connects.evicted()
            + self.resets.evicted()
            + self.rejected_syns.evicted()
            + self.processes.evicted()
    }
}
