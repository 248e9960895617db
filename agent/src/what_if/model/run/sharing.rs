//! Connections that stay open: a request takes one that is there, or waits for it.

use super::{super::pool::Key, Happening, Model};
use crate::{model::Timestamp, what_if::workload::End};

impl Model<'_> {
    /// A connection that is there already, a new one, or none for now.
    pub(super) fn requested(&mut self, place: usize, key: Key, at: Timestamp) {
        let pool = self.pools.entry(key).or_default();
        if let Some((made, _)) = pool.idle.pop() {
            self.serve(made, place, at);
            return;
        }
        if self.changes.pool.is_some_and(|most| pool.open >= most) {
            pool.waiting.push_back((place, at));
            return;
        }
        let Some(made) = self.open(place, at) else { return };
        self.pools.entry(key).or_default().open += 1;
        self.serve(made, place, at);
    }

    fn serve(&mut self, made: usize, place: usize, at: Timestamp) {
        let Some(connection) = self.made.get_mut(made) else { return };
        connection.exchange = place;
        connection.uses += 1;
        let exchange = self.workload.exchanges.get(place);
        let ends = exchange.into_iter().flat_map(|exchange| exchange.client.iter().chain(&exchange.server));
        if let Some(lasted) = ends.filter_map(|end: &End| end.lasted).next() {
            self.push(at.plus(lasted), Happening::Served(made));
        }
    }

    pub(super) fn served(&mut self, made: usize, at: Timestamp) {
        let Some((key, uses)) = self.made.get(made).and_then(|it| Some((it.key?, it.uses))) else { return };
        let pool = self.pools.entry(key).or_default();
        if let Some((next, since)) = pool.waiting.pop_front() {
            self.run.waited += 1;
            self.run.longest_wait = self.run.longest_wait.max(at.since(since));
            self.serve(made, next, at);
            return;
        }
        pool.idle.push((made, uses));
        if let Some(keep_alive) = self.changes.keep_alive {
            self.push(at.plus(keep_alive), Happening::IdleOver(made, uses));
        }
    }

    pub(super) fn idle_over(&mut self, made: usize, uses: u64, at: Timestamp) {
        let Some(key) = self.made.get(made).and_then(|it| it.key) else { return };
        let pool = self.pools.entry(key).or_default();
        let Some(place) = pool.idle.iter().position(|idle| *idle == (made, uses)) else { return };
        pool.idle.remove(place);
        pool.open = pool.open.saturating_sub(1);
        self.client_ends(made, at);
        self.server_ends(made, at);
    }
}
