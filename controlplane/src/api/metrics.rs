// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/metrics` in the OpenMetrics text format.
//!
//! Nothing is counted here: counters live in the data plane, and a collector
//! reads one snapshot for each scrape. A registry of counters that are updated
//! as things happen would need a lock or atomics on the I/O path.

use std::fmt;
use std::sync::Arc;

use program::{BudgetCause, DeviceState, DeviceStatus, PathState, PathStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::metrics_table::{METRICS, Metric, NodeValue, Value};
use crate::services::{Node, Snapshot};

/// Media type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const DEVICE_STATES: [DeviceState; 5] = [
    DeviceState::Unknown,
    DeviceState::Optimal,
    DeviceState::Degraded,
    DeviceState::Held,
    DeviceState::Failed,
];

const PATH_STATES: [PathState; 9] = [
    PathState::Up,
    PathState::Standby,
    PathState::Probation,
    PathState::Slow,
    PathState::Held,
    PathState::Down,
    PathState::Unproven,
    PathState::Refused,
    PathState::Drained,
];

/// The exposition of one snapshot.
pub(crate) fn text(node: &Arc<Node>, snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { node: Arc::clone(node), snapshot }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

struct Scrape {
    node: Arc<Node>,
    snapshot: Snapshot,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let kind = if metric.counter {
                ConstCounter::new(0.0).metric_type()
            } else {
                ConstGauge::new(0.0).metric_type()
            };
            let family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            Family { metric, encoder: family }.encode(self)?;
        }
        Ok(())
    }
}

struct Family<'m, 'e> {
    metric: &'m Metric,
    encoder: MetricEncoder<'e>,
}

impl Family<'_, '_> {
    fn encode(mut self, scrape: &Scrape) -> fmt::Result {
        let devices = || scrape.snapshot.devices.iter().map(|sample| &sample.status);
        match &self.metric.value {
            Value::Node(value) => self.node(&scrape.node, *value),
            Value::Device(read) => devices().try_for_each(|d| self.sample(&[("device", &d.name)], read(d))),
            Value::Cause(read) => devices().try_for_each(|d| self.causes(d, *read)),
            Value::DeviceState => devices().try_for_each(|d| self.device_states(d)),
            Value::Path(read) => {
                each_path(devices(), |d, p| self.sample(&[("device", &d.name), ("path", &p.name)], read(p)))
            }
            Value::KnownOfPath(read) => each_path(devices(), |d, p| match read(p) {
                Some(value) => self.sample(&[("device", &d.name), ("path", &p.name)], value),
                None => Ok(()),
            }),
            Value::PathState => each_path(devices(), |d, p| self.path_states(d, p)),
            Value::PathLatency => each_path(devices(), |d, p| self.path_latency(d, p)),
        }
    }

    fn node(&mut self, node: &Node, value: NodeValue) -> fmt::Result {
        match value {
            NodeValue::Build => {
                self.sample(&[("version", env!("CARGO_PKG_VERSION")), ("node", node.name())], 1.0)
            }
            NodeValue::Generation => self.sample(&[], node.program().generation as f64),
            NodeValue::Events => self.sample(&[], node.last_event() as f64),
            NodeValue::ReportsDropped => self.sample(&[], node.reports_dropped() as f64),
            NodeValue::AnswerAge => match node.last_answer_age() {
                Some(age) => self.sample(&[], age.as_secs_f64()),
                None => Ok(()),
            },
        }
    }

    fn causes(&mut self, device: &DeviceStatus, read: fn(&BudgetCause) -> f64) -> fmt::Result {
        device.budget.causes.iter().try_for_each(|cause| {
            let path = cause.path.as_deref().unwrap_or_default();
            let labels = [("device", device.name.as_str()), ("path", path), ("rule", cause.rule)];
            self.sample(&labels, read(cause))
        })
    }

    fn device_states(&mut self, device: &DeviceStatus) -> fmt::Result {
        DEVICE_STATES.iter().try_for_each(|state| {
            let labels = [("device", device.name.as_str()), ("state", state.as_str())];
            self.sample(&labels, f64::from(u8::from(*state == device.state)))
        })
    }

    fn path_states(&mut self, device: &DeviceStatus, path: &PathStatus) -> fmt::Result {
        PATH_STATES.iter().try_for_each(|state| {
            let labels =
                [("device", device.name.as_str()), ("path", path.name.as_str()), ("state", state.as_str())];
            self.sample(&labels, f64::from(u8::from(*state == path.state)))
        })
    }

    fn path_latency(&mut self, device: &DeviceStatus, path: &PathStatus) -> fmt::Result {
        for (quantile, us) in [("0.5", path.p50_us), ("0.99", path.p99_us)] {
            if us > 0 {
                let labels =
                    [("device", device.name.as_str()), ("path", path.name.as_str()), ("quantile", quantile)];
                self.sample(&labels, us as f64 / 1e6)?;
            }
        }
        Ok(())
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        if labels.is_empty() {
            return self.write_without_labels(value);
        }
        let encoder = self.encoder.encode_family(&labels)?;
        if self.metric.counter {
            ConstCounter::new(value).encode(encoder)
        } else {
            ConstGauge::new(value).encode(encoder)
        }
    }

    fn write_without_labels(&mut self, value: f64) -> fmt::Result {
        use prometheus_client::encoding::NoLabelSet;
        if self.metric.counter {
            self.encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None)
        } else {
            self.encoder.encode_gauge(&value)
        }
    }
}

fn each_path<'d>(
    devices: impl Iterator<Item = &'d DeviceStatus>,
    mut each: impl FnMut(&DeviceStatus, &PathStatus) -> fmt::Result,
) -> fmt::Result {
    for device in devices {
        for path in &device.paths {
            each(device, path)?;
        }
    }
    Ok(())
}
