//! The configuration that is in force, and its reading anew.

use crate::{
    config::{Config, ConfigError, Source, read},
    metrics,
};

/// The one in force, and where it is from.
#[derive(Debug)]
pub(super) struct Configuration {
    /// As it was at the start, of what only a restart takes over
    at_start: Config,
    current: Config,
    source: Source,
}

impl Configuration {
    pub(super) fn new(config: Config, source: Source) -> Self {
        Self { at_start: config.clone(), current: config, source }
    }

    pub(super) const fn current(&self) -> &Config {
        &self.current
    }

    /// Reads it again and takes it over. Returns the keys whose new value only a restart takes over.
    ///
    /// # Errors
    /// The new one cannot be used; the old one is in force.
    pub(super) fn reload(&mut self) -> Result<Vec<String>, ConfigError> {
        self.current = read(&self.source)?;
        Ok(self.at_start.needing_restart(&self.current))
    }

    pub(super) fn metrics(&self) -> metrics::Settings {
        let metrics = &self.current.metrics;
        metrics::Settings { top: metrics.top, labels: metrics.labels.clone() }
    }
}
