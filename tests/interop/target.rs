// SPDX-License-Identifier: MIT OR Apache-2.0
//! What client programs are pointed at.

use tests_support::{Endpoint, TestDir, run, run_status};

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

/// A loop device over an image; gone with the test, or when its last user closes it.
pub(crate) struct LoopDevice {
    path: String,
}

impl LoopDevice {
    pub(crate) fn over(image: &str) -> Self {
        Self { path: run("losetup", ["--find", "--show", image]).trim().to_owned() }
    }

    /// `/dev/loopN`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Flushes of its cache that the kernel has asked of it (the 16th counter of the block layer).
    pub(crate) fn flushes(&self) -> u64 {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let counters = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("it has counters");
        let flushes = counters.split_whitespace().nth(15).expect("flushes are counted since Linux 5.5");
        flushes.parse().expect("a number")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run_status("losetup", ["--detach", &self.path]);
    }
}
