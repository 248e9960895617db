//! Why a port cannot be had, right now: who has it in every namespace, what bind() would say, and until when; and how many
//! ports are left for connect() to a destination. Pure: what is there in, an answer out.
//!
//! The JSON form of [`Answer`] is `firstfin.why/1`, with the same promise as the report's.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod connect;

pub use connect::{ConnectAnswer, PortsLeft, connect};

use crate::{
    model::{Call, HeldSocket, Netns, NetnsSettings, Process, ProcessKey, SocketOptions},
    report::{Holder, HolderKind, Judgement, ProcessInfo, Refusal, group_holders, judge},
    rules::{Remedy, Request},
    state::failures::HolderSeen,
};

/// Version of the JSON form.
pub const SCHEMA: &str = "firstfin.why/1";

/// Sockets listed for a namespace, at most.
const MAX_HOLDERS: usize = 32;

/// What is asked of bind().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The port
    pub port: u16,
    /// The address; none: the wildcards
    pub address: Option<IpAddr>,
    /// As which user
    pub uid: u32,
}

/// What was found in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which one
    pub netns: Netns,
    /// Its sockets that have the port
    pub sockets: Vec<HeldSocket>,
    /// Its settings
    pub settings: NetnsSettings,
    /// Whether the address asked for is one of this host, there; none if no address was asked for, or it is not known
    pub is_local: Option<bool>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// `firstfin.why/1`
    pub schema: String,
    /// What bind() would say; null if it was not asked
    pub bind: Option<BindAnswer>,
    /// What connect() would say; null if it was not asked
    pub connect: Option<ConnectAnswer>,
    /// Namespaces that could not be looked into, and other things that could not be found out
    pub blind_spots: Vec<String>,
}

/// What bind() would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BindAnswer {
    /// The port asked for
    pub port: u16,
    /// The address asked for; null: any
    pub address: Option<IpAddr>,
    /// The user that is to bind it
    pub uid: u32,
    /// One entry a network namespace in which somebody has the port, and the one firstfin was started in, which is first
    pub namespaces: Vec<InNetns>,
}

/// What is so in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InNetns {
    /// Inode number of the namespace
    pub netns: Netns,
    /// It is the one firstfin was started in
    pub is_own: bool,
    /// Who has the port
    pub holders: Vec<Holder>,
    /// Holders left out
    pub holders_omitted: u64,
    /// What bind() would say, by address and options
    pub attempts: Vec<Attempt>,
    /// The address asked for is one of this host, in this namespace; null if it was not asked, or could not be found out
    pub address_is_local: Option<bool>,
    /// connect() may take the port for any client: it is in `ip_local_port_range` and not reserved
    pub is_ephemeral: Option<bool>,
}

/// A bind() that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Address and port
    pub local: String,
    /// Options of the socket
    pub options: SocketOptions,
    /// What the kernel would say
    pub outcome: AttemptOutcome,
    /// Why not, where it is not certainly granted
    pub refusal: Option<Refusal>,
    /// Place in `holders` of the one in the way
    pub holder: Option<u64>,
    /// What would let it through, each by itself
    pub remedies: Vec<Remedy>,
    /// Seconds until it is granted with nothing changed: the last TIME_WAIT in the way is over then; null if it takes more
    /// than waiting
    pub free_in_s: Option<u64>,
}

/// What the kernel would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Nobody is in the way
    Granted,
    /// EADDRINUSE
    Refused,
    /// It depends on what is not known of a holder
    Undecided,
}

/// Puts together what was found of a port. `own`: the namespace firstfin was started in.
#[must_use]
pub fn bind(question: &Question, own: Option<Netns>, found: Vec<Found>) -> BindAnswer {
    let mut namespaces: Vec<InNetns> = found
        .into_iter()
        .filter(|found| !found.sockets.is_empty() || Some(found.netns) == own)
        .map(|found| in_netns(question, own, found))
        .collect();
    namespaces.sort_by_key(|namespace| (!namespace.is_own, namespace.netns));
    BindAnswer { port: question.port, address: question.address, uid: question.uid, namespaces }
}

fn in_netns(question: &Question, own: Option<Netns>, found: Found) -> InNetns {
    let mut processes: HashMap<ProcessKey, Process> = HashMap::new();
    let seen: Vec<HolderSeen> = found.sockets.into_iter().map(|socket| holder(socket, &mut processes)).collect();
    let name = |key: ProcessKey| processes.get(&key).map_or_else(ProcessInfo::default, ProcessInfo::from);
    let all = group_holders(&seen, None, &name);
    let attempts = addresses(question.address).into_iter().flat_map(|address| {
        OPTIONS.map(|options| attempt(question, SocketAddr::new(address, question.port), options, &seen, &all, &name))
    });
    let attempts = worth_saying(attempts.collect());
    let mut holders = all;
    let holders_omitted = holders.len().saturating_sub(MAX_HOLDERS) as u64;
    holders.truncate(MAX_HOLDERS);
    InNetns {
        netns: found.netns,
        is_own: Some(found.netns) == own,
        holders,
        holders_omitted,
        attempts,
        address_is_local: found.is_local,
        is_ephemeral: found.settings.port_range.map(|(low, high)| (low..=high).contains(&question.port)),
    }
}

fn holder(socket: HeldSocket, processes: &mut HashMap<ProcessKey, Process>) -> HolderSeen {
    let mut keys = socket.processes.iter().map(|process| process.key);
    let (owner, others) = (keys.next(), keys.collect());
    processes.extend(socket.processes.into_iter().map(|process| (process.key, process)));
    HolderSeen { row: socket.row, owner, others, options: socket.options }
}

/// A server that names no address binds one of these.
fn addresses(asked: Option<IpAddr>) -> Vec<IpAddr> {
    asked.map_or_else(|| vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], |asked| vec![asked])
}

const fn options(reuse_address: bool, reuse_port: bool) -> SocketOptions {
    SocketOptions { reuse_address, reuse_port, v6_only: false }
}

const OPTIONS: [SocketOptions; 4] =
    [options(false, false), options(true, false), options(false, true), options(true, true)];

fn attempt(
    question: &Question,
    local: SocketAddr,
    options: SocketOptions,
    seen: &[HolderSeen],
    all: &[Holder],
    name: &dyn Fn(ProcessKey) -> ProcessInfo,
) -> Attempt {
    let request = Request { call: Call::Bind, local, options, uid: question.uid, device: 0 };
    let Judgement { in_the_way, refusal, remedies } = judge(&request, seen);
    let outcome = match &refusal {
        None => AttemptOutcome::Granted,
        Some(Refusal { rule: Some(_), .. }) => AttemptOutcome::Refused,
        Some(Refusal { rule: None, .. }) => AttemptOutcome::Undecided,
    };
    // The group of the one in the way: it is first in a grouping of its own.
    let first = in_the_way.and_then(|place| group_holders(seen, Some(place), name).into_iter().next());
    let place = first.and_then(|first| all.iter().position(|holder| *holder == first));
    let timewait = all.iter().filter(|holder| matches!(holder.kind, HolderKind::TimeWait | HolderKind::FinWait2));
    let free_in_s = remedies
        .contains(&Remedy::TimeWaitEnds)
        .then(|| timewait.filter_map(|holder| holder.seconds_left).max())
        .flatten();
    let holder = place.map(|place| place as u64);
    Attempt { local: local.to_string(), options, outcome, refusal, holder, remedies, free_in_s }
}

/// Of each address the plain bind(), and those whose options make a difference to it.
fn worth_saying(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let plain: HashMap<String, AttemptOutcome> = attempts
        .iter()
        .filter(|attempt| attempt.options == SocketOptions::default())
        .map(|attempt| (attempt.local.clone(), attempt.outcome))
        .collect();
    let differs = |attempt: &Attempt| plain.get(&attempt.local) != Some(&attempt.outcome);
    attempts.into_iter().filter(|attempt| attempt.options == SocketOptions::default() || differs(attempt)).collect()
}

#[cfg(test)]
mod tests;
