//! Every number at which something becomes a finding, with its reason.

/// Share of the ephemeral ports towards one destination that timewait sockets of one process take. Half gone: connect()
/// has run out of even ports and searches the odd ones too (inet_hash_connect() takes every second port first).
pub(super) const PORTS_WARNING: f64 = 0.5;
/// At four fifths, a quarter more of the same load is a failing connect().
pub(super) const PORTS_CRITICAL: f64 = 0.8;
/// Share of the ephemeral ports that bound sockets take out. A tenth: more than the services of a host account for.
pub(super) const POISONED_WARNING: f64 = 0.1;
/// Half gone: what fails for want of a port fails because of them rather than of connections.
pub(super) const POISONED_CRITICAL: f64 = 0.5;
/// Share of `tcp_max_tw_buckets`: the limit is doubled by the load that brought it here.
pub(super) const BUCKETS_WARNING: f64 = 0.5;
/// Beyond the limit connections are closed without TIME_WAIT, which lets old segments into new connections.
pub(super) const BUCKETS_CRITICAL: f64 = 0.9;
/// Timewait sockets of one process worth a line whatever their share: 1,000 take about 0.3 MB, and are 17 connections
/// closed a second.
pub(super) const SOCKETS_INFO: u64 = 1_000;
/// Connections of one process to one place that it cuts off: fewer may be a shutdown, or a test.
pub(super) const HARD_CLOSES: u64 = 10;
/// Connections of one process whose peers did not close: fewer may be slow.
pub(super) const FIN_WAIT2: u64 = 10;
/// Connections of one process that the other side has closed, for ten seconds or longer: fewer may be slow.
pub(super) const CLOSE_WAIT: u64 = 10;
/// Sockets of one process whose TIME_WAIT a RST ended.
pub(super) const ASSASSINATIONS: u64 = 1;
