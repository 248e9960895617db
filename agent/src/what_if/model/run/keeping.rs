//! Timewait sockets, from when a connection leaves one until it is gone.

use super::{super::choice::Slot, Happening, Model, Place, TimeWait, netns_of};
use crate::{model::Timestamp, ports::accounting::TIME_WAIT_LENGTH};

impl Model<'_> {
    /// A timewait socket keeps four numbers until its time is over. `began`: since when it is in TIME_WAIT proper, if it ever is.
    pub(super) fn keep(
        &mut self,
        at: Timestamp,
        place: Place,
        bound: Option<u16>,
        began: Option<Timestamp>,
        until: Timestamp,
    ) {
        let netns = netns_of(&place);
        let host = self.hosts.entry(netns).or_default();
        host.time_wait += 1;
        let (reuse, usable) = (host.reuse, host.usable);
        let id = self.time_waits.len();
        let mut frees = until;
        match place {
            Place::Port(lane, port) => {
                let ports = self.lanes.entry(lane).or_default();
                ports.put(port, Slot::TimeWait { id, is_reusable: false });
                self.run.ports(&lane, ports.used(), usable);
                let hold = reuse.hold(&lane.route);
                if let Some(began) = began.filter(|_| hold < TIME_WAIT_LENGTH && bound.is_none()) {
                    frees = frees.min(began.plus(hold));
                    self.push(began.plus(hold).max(at), Happening::Reusable(id));
                }
            }
            Place::Numbers(..) => {
                self.numbers.insert(place, id);
            }
        }
        self.time_waits.push(TimeWait { netns, place, bound, is_reusable: false, is_gone: false, frees });
        self.push(until.max(at), Happening::Over(id));
        self.total += 1;
        self.run.time_wait(self.total, at);
    }

    pub(super) fn reusable(&mut self, id: usize) {
        let Some(time_wait) = self.time_waits.get_mut(id).filter(|it| !it.is_gone) else { return };
        time_wait.is_reusable = true;
        if let Place::Port(lane, port) = time_wait.place {
            self.lanes.entry(lane).or_default().put(port, Slot::TimeWait { id, is_reusable: true });
        }
    }

    pub(super) fn over(&mut self, id: usize) {
        let Some(time_wait) = self.time_waits.get(id).filter(|it| !it.is_gone) else { return };
        let slot = Slot::TimeWait { id, is_reusable: time_wait.is_reusable };
        if let Place::Port(lane, port) = time_wait.place {
            self.lanes.entry(lane).or_default().free(port, slot);
        }
        self.leave(id);
    }

    /// A timewait socket is gone; its port has been seen to.
    pub(super) fn leave(&mut self, id: usize) {
        let Some(time_wait) = self.time_waits.get_mut(id).filter(|it| !it.is_gone) else { return };
        time_wait.is_gone = true;
        let host = self.hosts.entry(time_wait.netns).or_default();
        host.time_wait = host.time_wait.saturating_sub(1);
        if let Some(port) = time_wait.bound {
            host.unbind(port);
        }
        if self.numbers.get(&time_wait.place) == Some(&id) {
            self.numbers.remove(&time_wait.place);
        }
        self.total = self.total.saturating_sub(1);
    }
}
