// SPDX-License-Identifier: MIT OR Apache-2.0
//! Engine and services against a fake clock, fake lanes and fake storage: one file per subject.
