// SPDX-License-Identifier: MIT OR Apache-2.0
//! One measurement: one target, one workload, some seconds.

use serde::{Deserialize, Serialize};

/// What a client measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests answered.
    pub requests: u64,
    /// Requests per second.
    pub iops: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99 % latency.
    pub p99_us: f64,
    /// Processor time of the client.
    pub client_cpu_s: f64,
}

/// One measurement with its surroundings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Round, from 0.
    pub round: u32,
    /// Name of the workload.
    pub workload: String,
    /// Name of the target.
    pub target: String,
    /// What the client measured; `None` when it failed.
    pub figures: Option<Figures>,
    /// Why it failed.
    pub error: Option<String>,
    /// Processor time of the proxy; `None` for direct access.
    pub proxy_cpu_s: Option<f64>,
    /// Processor time of the storage server.
    pub storage_cpu_s: f64,
    /// Processor time of everything else on the machine: what disturbed.
    pub other_cpu_s: f64,
    /// Time that the hypervisor took.
    pub steal_s: f64,
    /// Wall time, start and end of the client included.
    pub wall_s: f64,
}

impl Sample {
    /// A number of the client.
    pub fn figure(&self, pick: impl Fn(&Figures) -> f64) -> Option<f64> {
        self.figures.as_ref().map(pick)
    }

    /// Processor time per request, in microseconds.
    pub fn us_per_request(&self, cpu_s: f64) -> Option<f64> {
        let requests = self.figures?.requests;
        (requests > 0).then(|| cpu_s * 1e6 / requests as f64)
    }
}
