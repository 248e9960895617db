//! What is exposed: a value that is made once a round and never changed.

use std::collections::HashMap;

use compact_str::CompactString;

use super::{
    catalogue::{ALL, Metric},
    labels::Group,
};

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count
    Count(u64),
    /// A measure
    Measure(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Count(is_so.into())
    }
}

impl From<f64> for Value {
    fn from(measure: f64) -> Self {
        Self::Measure(measure)
    }
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The group of processes it is about
    pub group: Option<Group>,
    /// Values of the metric's own labels, in their order
    pub labels: Vec<CompactString>,
    /// What it is now
    pub value: Value,
}

/// Every series of every metric.
#[derive(Clone, Debug, Default)]
pub struct Families {
    by_name: HashMap<&'static str, Vec<Series>>,
}

impl Families {
    /// Adds a series of the host or of firstfin itself.
    pub fn add(&mut self, metric: &Metric, labels: &[&str], value: impl Into<Value>) {
        self.put(metric, None, labels, value.into());
    }

    /// Adds a series of a group of processes.
    pub fn add_of(&mut self, group: &Group, metric: &Metric, labels: &[&str], value: impl Into<Value>) {
        self.put(metric, Some(group.clone()), labels, value.into());
    }

    fn put(&mut self, metric: &Metric, group: Option<Group>, labels: &[&str], value: Value) {
        debug_assert_eq!((group.is_some(), labels.len()), (metric.is_per_process, metric.labels.len()), "{metric:?}");
        let labels = labels.iter().map(CompactString::new).collect();
        self.by_name.entry(metric.name).or_default().push(Series { group, labels, value });
    }

    /// Those of a metric.
    #[must_use]
    pub fn of(&self, metric: &Metric) -> &[Series] {
        self.by_name.get(metric.name).map_or(&[], Vec::as_slice)
    }

    /// Every metric that has series, in the order of the catalogue.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, &[Series])> {
        ALL.iter().map(|metric| (*metric, self.of(metric))).filter(|(_, series)| !series.is_empty())
    }
}
