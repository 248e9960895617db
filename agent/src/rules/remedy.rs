//! What would let a refused request through.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Holder, HolderState, Outcome, Request, decide};

/// A change after which the same request is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// SO_REUSEADDR on the socket that asks
    ReuseAddress,
    /// SO_REUSEPORT on the socket that asks
    ReusePort,
    /// SO_REUSEADDR on it and on those that are there. For a timewait socket: on the socket it came from, hence from the
    /// next time on
    ReuseAddressOnBoth,
    /// SO_REUSEPORT on it and on those that are there
    ReusePortOnBoth,
    /// Waiting until TIME_WAIT is over
    TimeWaitEnds,
    /// Another port
    OtherPort,
}

/// Which single changes turn a request that is not granted, or not certainly, into one that certainly is; none if it is
/// granted as it is. A change on both sides is left out where the same change on one is enough.
#[must_use]
pub fn remedies(request: &Request, holders: &[Holder]) -> Vec<Remedy> {
    let is_granted = |request: &Request, holders: &[Holder]| decide(request, holders) == Outcome::Accepted;
    if is_granted(request, holders) {
        return Vec::new();
    }
    let with = |change: fn(&mut Request, &mut Holder)| {
        let (mut request, mut holders) = (*request, holders.to_vec());
        holders.iter_mut().for_each(|holder| change(&mut request, holder));
        is_granted(&request, &holders)
    };
    let mut remedies = Vec::new();
    if with(|request, _| request.options.reuse_address = true) {
        remedies.push(Remedy::ReuseAddress);
    } else if with(|request, holder| {
        request.options.reuse_address = true;
        holder.reuse_address = Some(true);
    }) {
        remedies.push(Remedy::ReuseAddressOnBoth);
    }
    if with(|request, _| request.options.reuse_port = true) {
        remedies.push(Remedy::ReusePort);
    } else if with(|request, holder| {
        request.options.reuse_port = true;
        holder.reuse_port = Some(true);
    }) {
        remedies.push(Remedy::ReusePortOnBoth);
    }
    let others: Vec<_> = holders.iter().filter(|holder| holder.state != HolderState::TimeWait).copied().collect();
    if is_granted(request, &others) {
        remedies.push(Remedy::TimeWaitEnds);
    }
    remedies.push(Remedy::OtherPort);
    remedies
}
