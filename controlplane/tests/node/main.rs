// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole control plane over a fake data plane: API, events, reload, recording.

mod api;
mod explain;
mod harness;
mod reload;
