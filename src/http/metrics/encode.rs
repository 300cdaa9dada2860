//! The samples in the format that the scraper asks for: OpenMetrics 1.0, or Prometheus's text format 0.0.4.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as Named};

use super::family::{FamilyType, Unit};
use super::samples::{Reading, Sample, Samples};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// By the `Accept` header: OpenMetrics where it is named and not refused.
    pub(super) fn wanted(accept: Option<&str>) -> Self {
        let named = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts.next() == Some("application/openmetrics-text");
            let is_refused =
                parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            is_it && !is_refused
        };
        match accept {
            Some(accept) if accept.split(',').any(named) => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

pub(super) fn encode(samples: Samples, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(samples));
    let mut text = String::new();
    let encoded = match format {
        Format::OpenMetrics => text::encode(&mut text, &registry),
        Format::Text => prometheus_text::encode(&mut text, &registry),
    };
    encoded.expect("a String takes all that is written to it");
    text
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (family, samples) in self.families() {
            let stem = format!("xdb_{}", family.stem);
            let unit = match family.unit {
                Unit::None => None,
                Unit::Seconds => Some(&Named::Seconds),
                Unit::Bytes => Some(&Named::Bytes),
            };
            let kind = match family.kind {
                FamilyType::Gauge => MetricType::Gauge,
                FamilyType::Counter => MetricType::Counter,
                FamilyType::Info => MetricType::Info,
                FamilyType::Histogram => MetricType::Histogram,
            };
            let help = format!("{}.", family.help);
            let mut metric = encoder.encode_descriptor(&stem, &help, unit, kind)?;
            for sample in samples {
                match family.kind {
                    FamilyType::Info => metric.encode_info(&sample.labels)?,
                    kind if sample.labels.is_empty() => write(&mut metric, kind, sample)?,
                    kind => write(&mut metric.encode_family(&sample.labels)?, kind, sample)?,
                }
            }
        }
        Ok(())
    }
}

fn write(
    metric: &mut MetricEncoder<'_>,
    kind: FamilyType,
    sample: &Sample,
) -> Result<(), fmt::Error> {
    match (kind, &sample.value) {
        (FamilyType::Counter, Reading::Count(count)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(count, None)
        }
        (FamilyType::Counter, Reading::Number(number)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(number, None)
        }
        (_, Reading::Classes(classes, sum)) => {
            let count = classes.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<NoLabelSet>(*sum, count, classes, None)
        }
        (_, Reading::Count(count)) => metric.encode_gauge(count),
        (_, Reading::Number(number)) => metric.encode_gauge(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_given_to_those_that_ask_for_it() {
        // What Prometheus 2.53 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some(prometheus), Format::OpenMetrics),
            (Some("text/plain;version=0.0.4"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept:?}");
        }
    }
}
