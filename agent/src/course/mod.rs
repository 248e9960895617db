//! The course of a session: what a report, which is of the end, does not keep. Pure.
//!
//! Everything is heard as [`recording::play`](crate::recording::play) tells it, and as a session does that is
//! [followed](crate::session::Session::follow): each input in the order in which the state takes it in, before it does.
//! Time is the time of events, not of a clock. So the course of a session and that of its recording are the same.

mod closings;
mod timeline;

pub use self::{
    closings::{ClosedBy, Closings, Paths, Sides},
    timeline::{Column, MAX_POINTS, MAX_PROCESSES, Point, Timeline},
};
use crate::{
    model::Census,
    report::SessionFacts,
    state::{Input, State},
};

/// The course of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Over time
    pub timeline: Timeline,
    /// How connections ended
    pub closings: Closings,
    /// Whether it was seen how long connect() looks for a port
    pub port_searches_observed: bool,
    /// Whether connect() was timed
    pub connect_timed: bool,
}

impl Course {
    /// Hears of an input. `state` is what was known before.
    pub fn hear(&mut self, state: &State, input: &Input) {
        match input {
            // What was there when the session began was there from its beginning.
            Input::Begin { .. } | Input::Process(_) | Input::Holders { .. } => {}
            Input::Event(event) => {
                if let Some(at) = event.at() {
                    self.timeline.advance(state, at);
                }
                if self.closings.note(state, event) {
                    self.timeline.count_end();
                }
            }
            Input::Census(census) | Input::Window { census, .. } => {
                self.timeline.advance(state, census.at);
                self.timeline.count_sockets(state, census);
            }
        }
    }

    /// The session is over: the last point in time is what its report says.
    pub fn end(&mut self, state: &State, census: &Census, facts: &SessionFacts) {
        self.timeline.end(state, census, state.started().plus(facts.duration));
        self.closings.end(state, facts);
        self.port_searches_observed = facts.port_searches.is_some();
        self.connect_timed = facts.handshakes.is_some();
    }
}
