// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built binary between real hosts and real storage, while things break.
//!
//! What an operator is promised, tried from outside: no product code is linked. Each test
//! asserts three things of a fault: that it took place, that no host noticed, and that
//! everything is in use again afterwards.

mod api;
mod cache;
mod complaints;
mod exclusive;
mod explain;
mod faults;
mod flush;
mod gate_word;
mod gates;
mod ghost;
mod groups;
mod hostile;
mod input;
mod lifecycle;
mod long_stop;
mod matrix;
mod memory;
mod no_path;
mod own_restart;
mod pause;
mod pulls;
mod refusal;
mod rig;
mod scale;
