//! Which two ends are one connection: both are on this host, and their numbers are each other's mirror image.

use std::{collections::VecDeque, net::SocketAddr};

use super::collect::Told;
use crate::{
    hash::FastMap,
    model::{OpenKind, Timestamp},
};

/// For each end that connect() made, the place of the other one. `told` is by the end of each.
pub(super) fn pair(told: &[Told]) -> Vec<Option<usize>> {
    let mut accepted: FastMap<(SocketAddr, SocketAddr), VecDeque<usize>> = FastMap::default();
    for (place, end) in told.iter().enumerate().filter(|(_, end)| end.opened == OpenKind::Passive) {
        accepted.entry((end.connection.remote, end.connection.local)).or_default().push_back(place);
    }
    let mut partners = vec![None; told.len()];
    for (ours, partner) in told.iter().zip(&mut partners).filter(|(end, _)| end.opened == OpenKind::Active) {
        let Some(waiting) = accepted.get_mut(&(ours.connection.local, ours.connection.remote)) else { continue };
        // Ports are used again: the one that was there at the same time.
        let place = waiting.iter().position(|theirs| told.get(*theirs).is_some_and(|theirs| is_one(ours, theirs)));
        *partner = place.and_then(|place| waiting.remove(place));
    }
    partners
}

/// Whether two mirror images were there at the same time, and where they can meet.
fn is_one(ours: &Told, theirs: &Told) -> bool {
    let is_loopback = ours.connection.remote.ip().is_loopback();
    let can_meet = !is_loopback || ours.connection.netns == theirs.connection.netns;
    let end = |end: &Told| end.ended.unwrap_or(Timestamp(u64::MAX));
    let begin = |end: &Told| end.begun.or(end.ended).unwrap_or_default();
    can_meet
        && match (ours.begun, theirs.begun) {
            (Some(_), Some(_)) => begin(ours) <= end(theirs) && begin(theirs) <= end(ours),
            // All that is known is when each ended: in the same second.
            _ => end(ours).since(end(theirs)).max(end(theirs).since(end(ours))) < std::time::Duration::from_secs(1),
        }
}
