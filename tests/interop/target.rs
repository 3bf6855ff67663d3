// SPDX-License-Identifier: MIT OR Apache-2.0
//! What client programs are pointed at.

use tests_support::{Endpoint, TestDir};

/// One export somewhere.
pub(crate) struct Target<'a> {
    /// Where it is served.
    pub(crate) endpoint: Endpoint,
    /// Its name.
    pub(crate) export: &'a str,
    /// Its size in bytes.
    pub(crate) size_bytes: u64,
    /// For files of the clients.
    pub(crate) dir: &'a TestDir,
}

impl Target<'_> {
    /// NBD URI.
    pub(crate) fn uri(&self) -> String {
        self.endpoint.uri(self.export)
    }
}
