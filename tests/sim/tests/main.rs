// SPDX-License-Identifier: MIT OR Apache-2.0
//! The smoke run: seeds, coverage, determinism, and that damage is found (T5-T7).
#![allow(missing_docs)]

mod coverage;
mod damage;
mod limits;
mod schedules;
mod seeds;
mod shadow;
mod steering;
