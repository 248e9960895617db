//! A network namespace as the model has it: its settings at a time, and what connect() can choose from.

use std::time::Duration;

use crate::{
    hash::FastMap,
    ports::accounting::{PortSpace, Reuse, TIME_WAIT_LENGTH},
    what_if::{change::Changes, workload::Look},
};

/// A namespace.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// What connect() can choose from; none if it is not known
    pub(super) space: Option<PortSpace>,
    pub(super) usable: u32,
    pub(super) reuse: Reuse,
    pub(super) max_time_wait: u64,
    /// How long a FIN_WAIT2 minisocket waits for the FIN
    pub(super) fin_timeout: Duration,
    /// Timewait sockets it has
    pub(super) time_wait: u64,
    /// Ports that connections took by bind(), with how many each
    pub(super) bound: FastMap<u16, u32>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            space: None,
            usable: 0,
            reuse: Reuse { mode: 0, delay: TIME_WAIT_LENGTH, has_timestamps: false },
            max_time_wait: u64::MAX,
            fin_timeout: TIME_WAIT_LENGTH,
            time_wait: 0,
            bound: FastMap::default(),
        }
    }
}

impl Host {
    /// Takes the settings over that were read, with what is to be different.
    pub(super) fn set(&mut self, look: &Look, changes: &Changes) {
        let mut look = look.clone();
        let settings = &mut look.settings;
        if let (Some(range), Some(_)) = (changes.port_range, settings.port_range) {
            // Nothing of the old range was reserved: then nothing is known to be.
            if settings.reserved_ports.is_none()
                && PortSpace::of(&Look { settings: settings.clone(), ..Look::default() }).is_some()
            {
                settings.reserved_ports = Some(Vec::new());
            }
            settings.port_range = Some(range);
        }
        settings.tw_reuse = changes.tw_reuse.or(settings.tw_reuse);
        self.reuse = Reuse::of(settings);
        self.max_time_wait = settings.max_tw_buckets.unwrap_or(u64::MAX);
        let fin_timeout = settings.fin_timeout_s.map(|seconds| Duration::from_secs(seconds.into()));
        self.fin_timeout = fin_timeout.map_or(TIME_WAIT_LENGTH, |timeout| timeout.min(TIME_WAIT_LENGTH));
        self.space = PortSpace::of(&look);
        self.usable = self.space.as_ref().map_or(0, PortSpace::usable);
    }

    pub(super) fn bind(&mut self, port: u16) {
        *self.bound.entry(port).or_default() += 1;
    }

    pub(super) fn unbind(&mut self, port: u16) {
        if let Some(count) = self.bound.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.bound.remove(&port);
            }
        }
    }
}
