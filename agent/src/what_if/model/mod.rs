//! What the kernel would have done with a workload. Event by event, on the recording's own clock, and nothing is drawn: the
//! same workload and changes give the same run.

mod choice;
mod host;
mod pool;
mod run;
mod tally;

pub(super) use self::{
    run::run,
    tally::{RouteRun, Run},
};
use crate::{model::Netns, ports::Route};

/// A route as it is with several addresses at either end, where the recording has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    /// As it was recorded
    pub(super) route: Route,
    /// Which of the local addresses
    pub(super) local: u16,
    /// Which of the remote ones
    pub(super) remote: u16,
}

impl Lane {
    pub(super) const fn netns(&self) -> Netns {
        self.route.netns
    }
}
