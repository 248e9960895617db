//! What `firstfin serve` is told to do: one file in TOML, and flags and environment variables for each of its keys.
//!
//! ```text
//! section    a section as a table: types, defaults and documentation of its keys in one place
//! values     values that are more than a word or a number
//! overrides  --set and the environment -> values of keys
//! read       file and overrides -> Config, or an error that names the place, the key and what is allowed
//! document   the default file, with its documentation
//! ```
//!
//! An override beats the file, the command line beats the environment, and what nobody says is the default.

mod document;
mod error;
mod overrides;
mod read;
mod section;
#[cfg(test)]
mod tests;
mod values;

use std::time::Duration;

use garde::Validate;
use serde::Deserialize;

pub(crate) use self::section::section;
pub use self::{
    document::document,
    error::{ConfigError, Problem},
    overrides::Override,
    read::{DEFAULT_PATH, Source, read},
    section::{Key, Section},
    values::Listen,
};
use crate::{
    alert, history,
    kernel::{containers, plan::Rung},
    metrics::ProcessLabel,
};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is observed, and how
    #[garde(dive)]
    pub observe: Observe,
    /// The endpoint
    #[garde(dive)]
    pub http: Http,
    /// The metrics
    #[garde(dive)]
    pub metrics: Metrics,
    /// Alerts
    #[garde(dive)]
    pub alerts: alert::Config,
    /// The history
    #[garde(dive)]
    pub history: history::Config,
    /// Names of containers
    #[garde(dive)]
    pub containers: containers::Config,
}

impl Config {
    /// Every section, in the order of the default file.
    pub const SECTIONS: [Section; 6] = [
        Observe::SECTION,
        Http::SECTION,
        Metrics::SECTION,
        alert::Config::SECTION,
        history::Config::SECTION,
        containers::Config::SECTION,
    ];

    /// Every key, in the order of the default file.
    pub fn keys() -> impl Iterator<Item = &'static Key> {
        Self::SECTIONS.into_iter().flat_map(|section| section.keys)
    }

    /// Keys whose new value only a restart takes over: `observe.ring_size`.
    #[must_use]
    pub fn needing_restart(&self, new: &Self) -> Vec<String> {
        let changed = [
            (Observe::SECTION.name, self.observe.needing_restart(&new.observe)),
            (Http::SECTION.name, self.http.needing_restart(&new.http)),
            (Metrics::SECTION.name, self.metrics.needing_restart(&new.metrics)),
            (alert::Config::SECTION.name, self.alerts.needing_restart(&new.alerts)),
            (history::Config::SECTION.name, self.history.needing_restart(&new.history)),
            (containers::Config::SECTION.name, self.containers.needing_restart(&new.containers)),
        ];
        let named = |(section, keys): (&'static str, Vec<&'static str>)| {
            keys.into_iter().map(move |key| format!("{section}.{key}"))
        };
        changed.into_iter().flat_map(named).collect()
    }
}

section! {
    /// What is observed, and how.
    "observe", Observe {
        /// How long a round is: every so often what was seen is counted, and handed to metrics, alerts and history.
        /// From 1s to 10m.
        [serde(deserialize_with = "values::interval"), garde(skip)]
        interval: Duration = Duration::from_secs(10), "\"10s\"", restart: false;
        /// Size of the ring buffer that carries events from the kernel: a power of two from 4KiB to 1GiB. A larger one
        /// survives longer bursts; what does not fit is lost, counted and exposed.
        [serde(deserialize_with = "values::ring_size"), garde(skip)]
        ring_size: u32 = 8 << 20, "\"8MiB\"", restart: true;
        /// Sockets that can be followed at the same time, from 1 to 16777216. Each takes about 230 bytes of kernel memory,
        /// whether used or not.
        [garde(range(min = 1, max = 1 << 24))]
        max_sockets: u32 = 131_072, "131072", restart: true;
        /// Use no better means of observation than this: "fentry", "kprobe" or "tracepoint". `firstfin doctor` says what
        /// is lost.
        [serde(deserialize_with = "values::max_rung"), garde(skip)]
        max_rung: Rung = Rung::Fentry, "\"fentry\"", restart: true;
    }
}

section! {
    /// The HTTP endpoint: /metrics, /healthz, /readyz, /report.
    "http", Http {
        /// Address and port, or "off". It has no authentication: an address other than loopback shows process names and
        /// addresses to whoever can reach it.
        [garde(skip)]
        listen: Listen = Listen::default(), "\"127.0.0.1:19293\"", restart: true;
    }
}

section! {
    /// What is exposed at /metrics.
    "metrics", Metrics {
        /// Groups of processes that have series of their own, from 1 to 200. All others are counted in one whose labels are
        /// all "other".
        [garde(range(min = 1, max = 200))]
        top: usize = 50, "50", restart: false;
        /// What makes a group of processes, and the labels it has: "process", "unit", "container", "pod",
        /// "namespace", "pod_uid", "exe", "cgroup", "netns"; and, at a price in series, "pid", "local", "remote".
        [garde(length(min = 1), custom(values::no_label_twice))]
        labels: Vec<ProcessLabel> = ProcessLabel::DEFAULT.to_vec(), "[\"process\", \"unit\", \"container\"]", restart: false;
    }
}
