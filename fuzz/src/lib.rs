// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies of the fuzz targets. They are plain functions without libFuzzer, so that ordinary tests can run
//! them too.

pub mod bodies;
mod driver;
