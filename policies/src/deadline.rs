// SPDX-License-Identifier: MIT OR Apache-2.0
//! At what age a request is moved to another path (rule W15).
//!
//! **Model.** A request waits its turn behind the bytes ahead of it on its lane, and
//! that wait is no fault. So its age limit is a base plus the time those bytes need at
//! 8 MiB/s, the least progress still called service. Without the second part a 4 KiB read
//! behind 128 MiB of writes would be "late" on every path, and overload would look like
//! failure, which makes it worse.
//!
//! On the last usable path the limit is four times longer. There is nowhere to move to:
//! the age only makes the state visible, and calling a merely slow last path failed would
//! turn slowness into an outage.
//!
//! Age moves a request. It never closes a lane; silence does ([`crate::silence`]).

use crate::Nanos;
use crate::limits::{LAST_PATH_FACTOR, PROGRESS_BYTES_PER_SECOND, SECOND};

/// Age in nanoseconds, from its sending, at which a request is moved.
///
/// `base` is the configured limit (default 1 s for reads, 2 s for writes). `bytes_ahead` are
/// the payload bytes of both directions that the lane must carry before the request is
/// done: what was sent before it and is not answered, and its own. Saturates.
pub fn request_deadline(base: Nanos, bytes_ahead: u64, last_path: bool) -> Nanos {
    let seconds = bytes_ahead / PROGRESS_BYTES_PER_SECOND;
    let rest_bytes = bytes_ahead % PROGRESS_BYTES_PER_SECOND;
    let ahead = seconds
        .saturating_mul(SECOND)
        .saturating_add((rest_bytes * SECOND).div_ceil(PROGRESS_BYTES_PER_SECOND));
    let age = base.saturating_add(ahead);
    if last_path { age.saturating_mul(LAST_PATH_FACTOR) } else { age }
}
