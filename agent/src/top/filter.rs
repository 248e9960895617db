//! Which entries of a list a typed text is about.

use super::model::Row;
use crate::report::{BindFailure, ConnectFailures, Holder, PortUse, ProcessInfo, Resets};

/// The longest text that can be typed.
const LONGEST: usize = 60;

/// A text that a name, unit, container or destination has to contain, in whatever case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    text: String,
}

impl Filter {
    /// What was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn push(&mut self, character: char) {
        if !character.is_control() && self.text.chars().count() < LONGEST {
            self.text.push(character);
        }
    }

    pub(super) fn pop(&mut self) {
        self.text.pop();
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
    }

    fn is_in(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.text.to_lowercase())
    }

    fn names(&self, process: Option<&ProcessInfo>) -> bool {
        let Some(process) = process else { return false };
        let container = process.container.iter().flat_map(|container| {
            let pod = container.pod_name();
            [Some(container.short_name().to_owned()), Some(container.id.to_string()), pod].into_iter().flatten()
        });
        let names = [&process.exe, &process.unit].into_iter().flatten().map(ToString::to_string);
        self.is_in(&format!("{}[{}]", process.comm, process.pid))
            || names.chain(container).any(|name| self.is_in(&name))
    }

    pub(super) fn takes_row(&self, row: &Row) -> bool {
        self.text.is_empty() || self.names(Some(&row.process)) || row.destinations.iter().any(|place| self.is_in(place))
    }

    pub(super) fn takes_ports(&self, it: &PortUse) -> bool {
        self.text.is_empty()
            || self.is_in(&format!("{} -> {}", it.local, it.remote))
            || it.processes.iter().any(|user| self.names(user.process.as_ref()))
    }

    pub(super) fn takes_bind(&self, it: &BindFailure) -> bool {
        let holder = |holder: &Holder| self.names(holder.process.as_ref());
        self.text.is_empty()
            || self.names(Some(&it.process))
            || it.local.as_deref().is_some_and(|local| self.is_in(local))
            || it.holders.iter().any(holder)
    }

    pub(super) fn takes_connect(&self, it: &ConnectFailures) -> bool {
        self.text.is_empty() || self.names(it.process.as_ref()) || self.is_in(&it.remote)
    }

    pub(super) fn takes_reset(&self, it: &Resets) -> bool {
        self.text.is_empty()
            || self.names(it.process.as_ref())
            || self.is_in(&it.remote)
            || it.local.as_deref().is_some_and(|local| self.is_in(local))
    }
}
