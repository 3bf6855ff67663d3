// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions of the data plane, in words.
//!
//! They come up as figures and names; the one place that turns them into text is
//! [`policies::explain`].

use policies::explain::{Limit, Subject, Unit};
use program::{Comparison, Decision, FigureUnit};

/// A decision in one line, e.g. `suspect by W16: without an ACK 412 ms (at least 408 ms); not: ...; until: ...`.
pub fn sentence(decision: &Decision) -> String {
    let mut shown = policies::Decision::new(decision.at, Subject::Device, decision.what, decision.rule)
        .until(decision.until);
    shown.times = decision.times;
    for figure in &decision.figures {
        let unit = match figure.unit {
            FigureUnit::Count => Unit::Count,
            FigureUnit::Nanoseconds => Unit::Nanoseconds,
            FigureUnit::Bytes => Unit::Bytes,
            FigureUnit::Ppm => Unit::Ppm,
        };
        let limit = match figure.limit {
            None => Limit::Informs,
            Some((Comparison::AtLeast, limit)) => Limit::AtLeast(limit),
            Some((Comparison::Above, limit)) => Limit::Above(limit),
            Some((Comparison::Below, limit)) => Limit::Below(limit),
            Some((Comparison::AtMost, limit)) => Limit::AtMost(limit),
        };
        shown = shown.figure(figure.name, figure.value, unit, limit);
    }
    for refused in &decision.refused {
        shown = shown.refused(refused.alternative, refused.because);
    }
    shown.to_string()
}
