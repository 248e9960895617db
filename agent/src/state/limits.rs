//! How much the agent remembers. Whatever goes beyond is counted as evicted and shown.

/// Limits of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Timewait sockets with an owner. The default tcp_max_tw_buckets of a large host is 262,144 a namespace; an entry
    /// takes about 60 bytes, one of IPv6 about 85.
    pub timewait_sockets: usize,
    /// Processes. A fork-heavy hour makes some 100,000 of them that use the network; about 300 bytes each.
    pub processes: usize,
    /// Different failures (process, address, cause) of each kind. More than a reader can use by far.
    pub failures: usize,
    /// Listeners.
    pub listeners: usize,
    /// Sockets older than the session, kept until they end.
    pub older_sockets: usize,
    /// Routes (local address, remote address and port) with a rate: at most about 1 kB each. Beyond them the busiest are
    /// kept, which are the only ones that can run out of ports.
    pub routes: usize,
}

/// How much it remembers now, to be held against [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Timewait sockets with an owner
    pub timewait_sockets: usize,
    /// Processes
    pub processes: usize,
    /// Places for processes, in use or not: what the most of them took
    pub process_places: usize,
    /// Numbers for owners of timewait sockets, in use or not
    pub owner_numbers: usize,
    /// Different failures, of all kinds
    pub failures: usize,
    /// Refused ports whose holders are known from an earlier window
    pub known_holders: usize,
    /// Listeners
    pub listeners: usize,
    /// Sockets older than the session
    pub older_sockets: usize,
    /// Routes with a rate
    pub routes: usize,
    /// Routes and network namespaces with a peak
    pub peaks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timewait_sockets: 1 << 20,
            processes: 1 << 17,
            failures: 1 << 13,
            listeners: 1 << 14,
            older_sockets: 1 << 19,
            routes: 1 << 12,
        }
    }
}
