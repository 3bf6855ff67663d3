// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network namespace of one test.
//!
//! Made and removed with iproute2, so that a person can enter a kept one with
//! `ip netns exec`. The name carries the process id: what a killed test left behind is
//! removed by the next.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use crate::{Command, tools};

const PREFIX: &str = "hft";

/// Removed on drop. Needs root.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes an empty namespace with its loopback interface up.
    pub fn new() -> Self {
        static SEQUENCE: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces: run it as root (see tests/README.md)"
        );
        sweep();
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{sequence}", std::process::id());
        tools::run("ip", ["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside, with words separated by blanks; it must succeed.
    pub fn ip(&self, words: &str) -> String {
        let all = ["-n", self.name.as_str()].into_iter().chain(words.split_whitespace());
        tools::run("ip", all)
    }

    /// Runs `nft` inside; it must succeed.
    pub fn nft(&self, command: &str) -> String {
        let output = Command::new("nft").arg(command).within(self).output();
        assert!(
            output.status.success(),
            "nft {command} in {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a thread needs to enter.
    pub(crate) fn handle(&self) -> NamespaceHandle {
        let path = Path::new("/run/netns").join(&self.name);
        NamespaceHandle(File::open(path).expect("the namespace exists"))
    }
}

/// Lets a thread enter a namespace.
#[derive(Debug)]
pub(crate) struct NamespaceHandle(File);

impl NamespaceHandle {
    /// Moves the calling thread inside for good; sockets it makes belong to the namespace.
    pub(crate) fn enter(self) {
        setns(self.0, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not `run`: a panic here would hide the failure that led to it.
        let _ = tools::run_status("ip", ["netns", "del", &self.name]);
    }
}

/// Removes namespaces of test processes that are gone.
fn sweep() {
    let listed = tools::run("ip", ["netns", "list"]);
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(rest) = name.strip_prefix("hft-") else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            // Another test may remove it at the same time.
            let _ = tools::run_status("ip", ["netns", "del", name]);
        }
    }
}
