//! The rules of bind() and listen() against the kernel's: thousands of sockets, and never another answer.

mod dice;
mod held;
mod socket;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use firstfin::{
    model::Call,
    rules::{Fact, Holder, HolderState, Outcome, Request, decide},
};
use libtest_mimic::Trial;
use rustix::net::{bind, listen};

use self::{
    dice::Dice,
    held::{Stage, Way, hide},
    socket::{Claim, is_granted},
};
use crate::{
    case::{Outcome as TestOutcome, alone, lesser, trials},
    netns::Net,
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("verdicts": two_sockets, many_sockets)
}

/// Another number, other sockets.
const SEED: u64 = 0x00f1_4571_f14f_0001;
const PAIRS: u16 = 6_000;
const CROWDS: u16 = 1_500;
/// Each case has a port of its own, from here.
const FIRST_PORT: u16 = 10_000;

/// What the rules said, and where the kernel said something else.
#[derive(Default)]
struct Tally {
    /// How often each rule decided
    said: BTreeMap<String, u32>,
    /// How often the kernel granted what it should not have
    gaps: u32,
    wrong: Vec<String>,
}

impl Tally {
    /// Compares a verdict with what the kernel did.
    fn compare(&mut self, what: &str, request: &Request, holders: &[Holder], is_granted: bool) {
        let outcome = decide(request, holders);
        let said = match &outcome {
            Outcome::Accepted => "accepted".to_owned(),
            Outcome::Refused { rule, .. } => format!("{rule:?}"),
            Outcome::Undecided { unknown, .. } => format!("undecided {unknown:?}"),
        };
        *self.said.entry(said).or_default() += 1;
        let is_wrong = match outcome {
            Outcome::Accepted => !is_granted,
            Outcome::Refused { .. } => is_granted,
            Outcome::Undecided { .. } => false,
        };
        if is_wrong && is_granted && is_in_the_gap(request, holders) {
            self.gaps += 1;
        } else if is_wrong {
            let kernel = if is_granted { "granted it" } else { "refused it (EADDRINUSE)" };
            self.wrong.push(format!("{what}:\n  {request:?}\n  {holders:?}\n  rules: {outcome:?}, kernel: {kernel}"));
        }
    }

    fn of(&self, said: &str) -> u32 {
        self.said.get(said).copied().unwrap_or_default()
    }

    fn undecided(&self) -> impl Iterator<Item = u32> {
        self.said.iter().filter(|(said, _)| said.starts_with("undecided")).map(|(_, times)| *times)
    }

    fn assert_right(&self, seed: u64) {
        let first = self.wrong.iter().take(3).cloned().collect::<Vec<_>>().join("\n");
        let all = self.said.values().sum::<u32>();
        assert!(
            self.wrong.is_empty(),
            "seed {seed:#x}: {} of {all} verdicts are not the kernel's; the first of them:\n{first}",
            self.wrong.len()
        );
        eprintln!("seed {seed:#x}: {all} verdicts, {} of them undecided", self.undecided().sum::<u32>());
        if self.gaps > 0 {
            lesser("this kernel overlooks some wildcard sockets at a port");
        }
    }
}

/// Linux 6.1 looks for a wildcard socket in the way of a certain address, and overlooks two: ::ffff:0.0.0.0, and 0.0.0.0
/// next to [::] ("tcp: Fix bind() regression for v4-mapped-v6 wildcard address" and "... for v6-only wildcard and
/// v4(-mapped-v6) non-wildcard addresses" are not in Debian's 6.1).
fn is_in_the_gap(request: &Request, holders: &[Holder]) -> bool {
    let release = rustix::system::uname();
    let is_affected = release.release().to_string_lossy().starts_with("6.1.");
    let has = |is_wildcard: fn(IpAddr) -> bool| holders.iter().any(|holder| is_wildcard(holder.local.ip()));
    let has_mapped = has(|ip| ip.is_ipv6() && ip.to_canonical() == IpAddr::from(Ipv4Addr::UNSPECIFIED));
    let has_both =
        has(|ip| ip == IpAddr::from(Ipv4Addr::UNSPECIFIED)) && has(|ip| ip == IpAddr::from(Ipv6Addr::UNSPECIFIED));
    is_affected && (has_mapped || has_both) && !request.local.ip().to_canonical().is_unspecified()
}

/// The same with all that there is to know of the holders, and with a part of it.
#[derive(Default)]
struct Tallies {
    known: Tally,
    hidden: Tally,
}

impl Tallies {
    fn compare(&mut self, what: &str, request: &Request, holders: &[Holder], is_granted: bool, dice: &mut Dice) {
        self.known.compare(what, request, holders, is_granted);
        let hidden: Vec<_> = holders.iter().map(|holder| hide(*holder, dice)).collect();
        self.hidden.compare(what, request, &hidden, is_granted);
    }

    fn assert_right(&self, seed: u64) -> &Tally {
        self.known.assert_right(seed);
        self.hidden.assert_right(seed);
        &self.known
    }
}

/// One socket holds a port, another one asks for it with bind() and, if it gets it, with listen().
fn two_sockets() -> TestOutcome {
    let _alone = alone();
    let tally = Net::new()?.inside(|| {
        let stage = Stage::new()?;
        let mut dice = Dice::new(SEED);
        let mut tally = Tallies::default();
        for number in 0..PAIRS {
            let way = dice.pick(&Way::ALL);
            play_pair(&stage, FIRST_PORT + number, way, &mut dice, &mut tally)
                .map_err(|error| io::Error::other(format!("seed {SEED:#x}, pair {number}, {way:?}: {error}")))?;
        }
        Ok(tally)
    })?;
    let known = tally.assert_right(SEED);
    for rule in [
        "accepted",
        "HolderListens",
        "AnotherListens",
        "RequestLacksReuseAddress",
        "HolderLacksReuseAddress",
        "TimeWaitLacksReuseAddress",
        "HolderLacksReusePort",
        "RequestLacksReusePort",
        "ReusePortOfAnotherUser",
    ] {
        assert!(known.of(rule) >= 10, "{rule} is not tried: {:?}", known.said);
    }
    // All is known of a holder, and of the bucket nothing.
    assert_eq!(
        known.undecided().sum::<u32>(),
        known.of(&format!("undecided {:?}", [Fact::Bucket])),
        "{:?}",
        known.said
    );
    Ok(())
}

fn play_pair(stage: &Stage, port: u16, way: Way, dice: &mut Dice, tally: &mut Tallies) -> io::Result<()> {
    let held = stage.hold(port, way, dice)?;
    let claim = held.claim.near(dice);
    let what = format!("{way:?}, held by {:?}", held.claim);
    let mut compare =
        |request: Request, holder: Holder, is_granted| tally.compare(&what, &request, &[holder], is_granted, dice);
    let socket = claim.socket()?;
    let is_bound = is_granted(bind(&socket, &SocketAddr::new(claim.address, port)))?;
    compare(claim.request(Call::Bind, port), held.holder, is_bound);
    if !is_bound {
        return Ok(());
    }
    let mut holder = held.holder;
    if let (Way::BoundThenListens, Some(other)) = (way, &held.socket) {
        let listens = is_granted(listen(other, 8))?;
        compare(held.claim.request(Call::Listen, port), claim.holder(HolderState::Bound, port), listens);
        if listens {
            holder.state = HolderState::Listener;
        }
    }
    let listens = is_granted(listen(&socket, 8))?;
    compare(claim.request(Call::Listen, port), holder, listens);
    Ok(())
}

/// Up to five sockets share a port as far as they can: each asks among all those that are there.
fn many_sockets() -> TestOutcome {
    let _alone = alone();
    let tally = Net::new()?.inside(|| {
        let mut dice = Dice::new(SEED);
        let mut tally = Tallies::default();
        for number in 0..CROWDS {
            play_crowd(FIRST_PORT + number, &mut dice, &mut tally)
                .map_err(|error| io::Error::other(format!("seed {SEED:#x}, crowd {number}: {error}")))?;
        }
        Ok(tally)
    })?;
    tally.assert_right(SEED);
    Ok(())
}

fn play_crowd(port: u16, dice: &mut Dice, tally: &mut Tallies) -> io::Result<()> {
    let (mut sockets, mut holders) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let claim = Claim::any(dice);
        let socket = claim.socket()?;
        let is_bound = is_granted(bind(&socket, &SocketAddr::new(claim.address, port)))?;
        tally.compare("bind()", &claim.request(Call::Bind, port), &holders, is_bound, dice);
        if !is_bound {
            continue;
        }
        let mut holder = claim.holder(HolderState::Bound, port);
        if dice.is_one_in(3) {
            let listens = is_granted(listen(&socket, 8))?;
            tally.compare("listen()", &claim.request(Call::Listen, port), &holders, listens, dice);
            if listens {
                holder.state = HolderState::Listener;
            }
        }
        sockets.push(socket);
        holders.push(holder);
    }
    Ok(())
}
