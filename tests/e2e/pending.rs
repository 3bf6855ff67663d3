// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must become true and is not yet: not part of the suite until it is.
//!
//! To be moved to `hostile.rs` with the change that makes it pass.

use std::time::{Duration, Instant};

use tests_support::wire::{Client, ClientError};

use crate::hostile::{DEVICE, site};

/// A host that meets the connection cap learns why, in words, and not by an end of file.
#[test]
fn the_connection_cap_answers_clearly() {
    let site = site(|config| config.listen_key("max_sessions = 4"));
    let _within: Vec<Client> = (0..4).map(|_| site.node.open(DEVICE)).collect();
    let start = Instant::now();
    match Client::open(site.node.host(), DEVICE) {
        Err(ClientError::Refused(_, text)) => assert!(text.contains("max_sessions"), "unclear: {text}"),
        other => panic!("the fifth session was not told why it cannot be had: {other:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(5), "an answer, not a time-out");
}
