// SPDX-License-Identifier: MIT OR Apache-2.0
//! One test per rule of the protocol document, named after the rule; `docs/nbd-support.md` refers to them.
//!
//! Expected bytes are written down here from the document, never taken from the crate's own constants: a
//! wrong constant that both sides shared would pass every round trip.

#[path = "../../../fuzz/src/driver.rs"]
mod driver;

mod client_handshake;
mod client_replies;
mod codes;
mod gate;
mod hostile;
mod ledger;
mod pair;
mod read_assembly;
mod server_contexts;
mod server_describe;
mod server_handshake;
mod server_replies;
mod server_requests;
mod server_tls;
mod status_assembly;
mod support;
mod uri;
