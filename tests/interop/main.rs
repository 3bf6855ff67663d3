// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real clients and real servers around the built binary, nothing broken.
//!
//! [`clients`] says what a host program must find; `matrix` runs all of it over every kind
//! of storage. The same checks run against nbdkit alone: a check that only Holdfast passes
//! would be a check of our own opinion.

mod clients;
mod demo;
mod fence;
mod gate;
mod matrix;
mod rules;
mod target;
