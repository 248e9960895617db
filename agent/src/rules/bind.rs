//! bind() and listen(): the rule for a pair of sockets, and for one among many.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_overlap;
use crate::model::{Call, SocketOptions};

/// A socket that asks for a port: with bind(), or with listen(), which asks again for the port it is bound to
/// (`inet_csk_listen_start()` calls `inet_csk_get_port()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which call. The kernel decides by the same rule; what is in the way has another name.
    pub call: Call,
    /// Address and port asked for. The address as the call had it, mapped or not. Port 0 asks for any, and no single
    /// socket is in its way.
    pub local: SocketAddr,
    /// Options of the socket
    pub options: SocketOptions,
    /// User the socket belongs to (`sk_uid`): `fsuid` of the thread that made it
    pub uid: u32,
    /// Interface it is bound to (SO_BINDTODEVICE, or the scope of a link-local address); 0 for none
    pub device: u32,
}

/// A socket that has a port, as far as it is known. `None` is not known: sock_diag never tells SO_REUSEADDR nor
/// SO_REUSEPORT, and of a timewait socket not V6ONLY either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// What it does with the port
    pub state: HolderState,
    /// Its local address and port; a mapped address may be given as IPv4
    pub local: SocketAddr,
    /// V6ONLY as the kernel has it (`sk_ipv6only`, and so sock_diag); means nothing for an IPv4 address. bind() to an IPv6
    /// address that is neither [::] nor mapped sets it (`__inet6_bind()`), whatever IPV6_V6ONLY was; a connection has it
    /// of its listener, so that one accepted at [::1] by a dual-stack listener at [::] has it not.
    pub v6_only: Option<bool>,
    /// SO_REUSEADDR
    pub reuse_address: Option<bool>,
    /// SO_REUSEPORT
    pub reuse_port: Option<bool>,
    /// User it belongs to. That of a timewait socket is never looked at; that of an orphan, or of a connection nobody
    /// has accepted yet, is better left unknown: before Linux 6.17 they are root's, whoever's they were.
    pub uid: Option<u32>,
    /// Interface it is bound to; 0 for none
    pub device: Option<u32>,
}

/// What a socket does with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HolderState {
    /// It listens
    Listener,
    /// It is bound and nothing else
    Bound,
    /// It is, was or tries to be connected, whether the port was chosen by bind(), by connect() or by its listener
    Connected,
    /// TIME_WAIT, or FIN_WAIT2 as a timewait socket. It keeps the options of the socket it came from
    /// (`inet_twsk_alloc()`), and that one had them of its listener.
    TimeWait,
}

/// Why a port is refused, in words somebody can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// bind(): a listener shares its port with nobody but by SO_REUSEPORT, whatever SO_REUSEADDR says
    HolderListens,
    /// listen(): another socket has come first. Both could be bound, by SO_REUSEADDR, while none of them listened
    AnotherListens,
    /// The one that asks has no SO_REUSEADDR. The holder may have none either
    RequestLacksReuseAddress,
    /// The one that asks has SO_REUSEADDR, the holder has not
    HolderLacksReuseAddress,
    /// The same, the holder being a timewait socket: the socket it came from had no SO_REUSEADDR, and to set it now, or
    /// in the next process, does not change that
    TimeWaitLacksReuseAddress,
    /// The one that asks has SO_REUSEPORT, the holder has not, and nothing else lets it in
    HolderLacksReusePort,
    /// The holder listens with SO_REUSEPORT, the one that asks has it not
    RequestLacksReusePort,
    /// Both have SO_REUSEPORT, but not the same user
    ReusePortOfAnotherUser,
}

/// Something about a holder that is not known and decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// IPV6_V6ONLY
    V6Only,
    /// SO_REUSEADDR
    ReuseAddress,
    /// SO_REUSEPORT
    ReusePort,
    /// Its user
    User,
    /// The interface it is bound to
    Device,
    /// Nothing about a socket, but what the bucket of the port remembers: it may let the request in by SO_REUSEPORT
    Bucket,
}

/// What comes of two sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// They can have the port together
    Accepted,
    /// They cannot
    Refused(Rule),
    /// It depends on these, of the holder
    Undecided(Vec<Fact>),
}

/// What comes of a request among all sockets of its port. A holder is named by its place in the list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nobody is in the way
    Accepted,
    /// This one is for certain, and others may be
    Refused {
        /// Which holder
        holder: usize,
        /// By which rule
        rule: Rule,
    },
    /// Nobody is for certain, but this one may be
    Undecided {
        /// Which holder
        holder: usize,
        /// What would have to be known of it
        unknown: Vec<Fact>,
    },
}

/// Whether a holder is in the way (`inet_csk_bind_conflict()`, of which Linux 6.1 made `inet_bind_conflict()`; with
/// `relax` and `reuseport_ok`, as for a port that was asked for by number).
///
/// What is not known of the holder is tried both ways. Where that makes no difference, it need not be known.
#[must_use]
pub fn conflict(request: &Request, holder: &Holder) -> Verdict {
    if request.local.port() != holder.local.port() {
        return Verdict::Accepted;
    }
    let known = known(request, holder);
    let rule = |guess: Facts| rule(request, holder, guess);
    let guesses = || (0..1_u8 << FACTS.len()).map(facts).filter(|guess| is_in_line(*guess, known));
    let Some(first) = guesses().next() else { return Verdict::Accepted };
    if guesses().all(|guess| rule(guess).is_some() == rule(first).is_some()) {
        // The first guess is that the holder has none of the options, so the rule named presumes none.
        return rule(first).map_or(Verdict::Accepted, Verdict::Refused);
    }
    let decides = |index: usize| {
        guesses().any(|guess| {
            let mut other = guess;
            if let Some(fact) = other.get_mut(index) {
                *fact = !*fact;
            }
            is_in_line(other, known) && rule(guess).is_some() != rule(other).is_some()
        })
    };
    let unknown = FACTS.iter().enumerate().filter(|(index, _)| decides(*index)).map(|(_, fact)| match fact {
        Fact::User if holder.uid.is_some() => Fact::Bucket,
        fact => *fact,
    });
    Verdict::Undecided(unknown.collect())
}

/// Whether the kernel grants a request while these sockets have the port; the one that asks is not among them.
#[must_use]
pub fn decide(request: &Request, holders: &[Holder]) -> Outcome {
    let has_ally = holders.iter().any(|holder| may_have_opened_the_bucket(holder, request));
    let mut undecided = None;
    for (holder, verdict) in holders.iter().map(|holder| conflict(request, holder)).enumerate() {
        let unknown = match verdict {
            Verdict::Accepted => continue,
            Verdict::Refused(_) if has_ally => vec![Fact::Bucket],
            Verdict::Refused(rule) => return Outcome::Refused { holder, rule },
            Verdict::Undecided(unknown) => unknown,
        };
        undecided.get_or_insert(Outcome::Undecided { holder, unknown });
    }
    undecided.unwrap_or(Outcome::Accepted)
}

/// Whether the bucket may let a request in because of this holder, with no look at any other (`sk_reuseport_match()`).
///
/// A socket with SO_REUSEPORT leaves its user and address there when it is granted the port, be it by SO_REUSEADDR
/// (`inet_csk_update_fastreuse()`). Whether another one has come after it, nobody can tell.
fn may_have_opened_the_bucket(holder: &Holder, request: &Request) -> bool {
    let (asked, held) = (request.local.ip(), holder.local.ip());
    let is_same_port = request.local.port() == holder.local.port();
    is_same_port
        && request.options.reuse_port
        && match holder.state {
            // It was its listener, of any address and user, which may be gone.
            HolderState::Connected | HolderState::TimeWait => holder.reuse_port == Some(true),
            HolderState::Listener | HolderState::Bound => {
                holder.reuse_port != Some(false)
                    && holder.uid.is_none_or(|uid| uid == request.uid)
                    && (held.to_canonical().is_unspecified() || !asked.to_canonical().is_unspecified())
                    && is_overlap(held, holder.v6_only == Some(true), asked, request.options.v6_only)
            }
        }
}

/// What the rule looks at, of the holder: V6ONLY, SO_REUSEADDR, SO_REUSEPORT, whether SO_REUSEPORT is for the same user,
/// whether the two may meet on one interface.
type Facts = [bool; FACTS.len()];

const FACTS: [Fact; 5] = [Fact::V6Only, Fact::ReuseAddress, Fact::ReusePort, Fact::User, Fact::Device];

fn facts(bits: u8) -> Facts {
    let mut bits = bits;
    FACTS.map(|_| {
        let fact = bits & 1 == 1;
        bits >>= 1;
        fact
    })
}

fn is_in_line(guess: Facts, known: [Option<bool>; FACTS.len()]) -> bool {
    guess.iter().zip(known).all(|(guess, known)| known.is_none_or(|known| *guess == known))
}

fn known(request: &Request, holder: &Holder) -> [Option<bool>; FACTS.len()] {
    let v6_only = if holder.local.is_ipv4() { Some(false) } else { holder.v6_only };
    let is_same_user = match holder.state {
        HolderState::TimeWait => Some(true),
        // The user of the bucket may be the listener's, see the module.
        HolderState::Connected => holder.uid.and_then(|uid| (uid == request.uid).then_some(true)),
        HolderState::Listener | HolderState::Bound => holder.uid.map(|uid| uid == request.uid),
    };
    let may_meet = if request.device == 0 {
        Some(true)
    } else {
        holder.device.map(|device| device == 0 || device == request.device)
    };
    [v6_only, holder.reuse_address, holder.reuse_port, is_same_user, may_meet]
}

/// The rule proper.
fn rule(request: &Request, holder: &Holder, facts: Facts) -> Option<Rule> {
    let [v6_only, reuse_address, reuse_port, is_same_user, may_meet] = facts;
    let asked = request.options;
    if !may_meet || !is_overlap(request.local.ip(), asked.v6_only, holder.local.ip(), v6_only) {
        return None;
    }
    let is_listener = holder.state == HolderState::Listener;
    if asked.reuse_address && reuse_address && !is_listener {
        return None;
    }
    match (asked.reuse_port, reuse_port) {
        (true, true) if is_same_user => None,
        (true, true) => Some(Rule::ReusePortOfAnotherUser),
        (false, true) if is_listener => Some(Rule::RequestLacksReusePort),
        (true, false) if is_listener || !asked.reuse_address => Some(Rule::HolderLacksReusePort),
        _ if is_listener => Some(match request.call {
            Call::Bind => Rule::HolderListens,
            Call::Listen => Rule::AnotherListens,
        }),
        _ if !asked.reuse_address => Some(Rule::RequestLacksReuseAddress),
        _ if holder.state == HolderState::TimeWait => Some(Rule::TimeWaitLacksReuseAddress),
        _ => Some(Rule::HolderLacksReuseAddress),
    }
}
