//! Families -> text: OpenMetrics 1.0, or the format before it, 0.0.4.
//!
//! The library writes OpenMetrics only. The older format is the same but for three things: no `# UNIT`, no `# EOF`, and
//! a counter is called by the name of its samples, `_total` included.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder, MetricEncoder, text,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit as LibraryUnit,
};

use super::{
    catalogue::{ALL, Kind, Metric, Unit},
    families::{Families, Series, Value},
};

/// A format of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0
    OpenMetrics,
    /// The format of Prometheus before OpenMetrics, 0.0.4
    Prometheus,
}

impl Format {
    /// What an HTTP client wants: OpenMetrics if it names it, else what everybody reads.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let wants_open_metrics = accept.split(',').any(|range| {
            let mut parameters = range.split(';').map(str::trim);
            let is_named =
                parameters.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            // `q=0` is a refusal.
            is_named
                && !parameters.any(|it| {
                    it.strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok()).is_some_and(|it| it <= 0.0)
                })
        });
        if wants_open_metrics { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// What the answer is called.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes what is in each of `parts`, which have no metric in common.
///
/// # Errors
/// Those of the library's encoder; none is known.
pub fn encode(parts: &[&Families], format: Format) -> Result<String, fmt::Error> {
    let mut open_metrics = String::with_capacity(64 << 10);
    for families in parts {
        // A collector has to own what it shows, and is asked once: its registry lives for this call.
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Shown((*families).clone())));
        text::encode_registry(&mut open_metrics, &registry)?;
    }
    text::encode_eof(&mut open_metrics)?;
    Ok(match format {
        Format::OpenMetrics => open_metrics,
        Format::Prometheus => older(&open_metrics),
    })
}

#[derive(Debug)]
struct Shown(Families);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (metric, series) in self.0.iter() {
            let unit = metric.unit.map(|unit| match unit {
                Unit::Seconds => LibraryUnit::Seconds,
                Unit::Bytes => LibraryUnit::Bytes,
                // The library's own is `ratios`, which is nobody's convention.
                Unit::Ratio => LibraryUnit::Other(unit.name().to_owned()),
            });
            let kind = match metric.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut family = encoder.encode_descriptor(metric.stem(), metric.help, unit.as_ref(), kind)?;
            for series in series {
                let labels = Labels { metric, series };
                // Without labels there are no braces either, and only one series.
                if series.group.is_none() && metric.labels.is_empty() {
                    expose(family, metric.kind, series.value)?;
                    break;
                }
                expose(family.encode_family(&labels)?, metric.kind, series.value)?;
            }
        }
        Ok(())
    }
}

fn expose(encoder: MetricEncoder<'_>, kind: Kind, value: Value) -> Result<(), fmt::Error> {
    match (kind, value) {
        (Kind::Gauge, Value::Count(value)) => ConstGauge::new(value).encode(encoder),
        (Kind::Gauge, Value::Measure(value)) => ConstGauge::new(value).encode(encoder),
        (Kind::Counter, Value::Count(value)) => ConstCounter::new(value).encode(encoder),
        (Kind::Counter, Value::Measure(value)) => ConstCounter::new(value).encode(encoder),
    }
}

struct Labels<'a> {
    metric: &'static Metric,
    series: &'a Series,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let group = self.series.group.iter().flat_map(|group| group.labels());
        let own = self.metric.labels.iter().zip(&self.series.labels);
        for (name, value) in group.map(|(name, value)| (*name, value)).chain(own.map(|(name, value)| (*name, value))) {
            (name, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// OpenMetrics -> the format before it.
fn older(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let counter = about.and_then(|about| {
            let (family, rest) = about.split_once(' ')?;
            let metric = ALL.iter().find(|metric| metric.family() == family && metric.kind == Kind::Counter)?;
            Some((metric.name, rest))
        });
        match counter {
            Some((name, rest)) => {
                text.push_str(line.get(..7).unwrap_or_default());
                text.push_str(name);
                text.push(' ');
                text.push_str(rest);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}
