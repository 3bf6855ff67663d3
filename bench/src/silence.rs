// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link that goes silent: the packets of one port are dropped, in both directions, by nft.
//!
//! For that this program, and all that it starts, moves to a network namespace of its own, which has nothing but a loopback
//! interface: no rule touches the machine's network.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::peers::{PeerError, search_path};

/// Whether this user may make a link silent.
pub(crate) fn is_allowed() -> bool {
    geteuid().is_root()
}

/// Moves the calling thread, and what it starts from now on, to a network namespace of its own.
///
/// # Errors
///
/// This user may not, or there is no `ip`.
pub(crate) fn enter_namespace() -> Result<(), PeerError> {
    let hint = "silence needs root; leave it out with --kinds";
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|e| PeerError::new(format!("no network namespace: {e}; {hint}")))?;
    tool("ip", "link set lo up")
}

/// A silent port; there is one at a time. Ends on drop.
#[derive(Debug)]
pub(crate) struct Silence {
    lasts: bool,
}

impl Silence {
    /// From now on nothing comes from or goes to this port.
    ///
    /// # Errors
    ///
    /// nft refuses.
    pub(crate) fn of(port: u16) -> Result<Self, PeerError> {
        Self::prepare(port)?.begin()
    }

    /// Starts nft, which waits for its rule: the time that takes is no part of the silence.
    ///
    /// # Errors
    ///
    /// There is no `nft`.
    pub(crate) fn prepare(port: u16) -> Result<Prepared, PeerError> {
        let mut command = command("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let nft = command.spawn().map_err(|e| PeerError::new(format!("nft: {e}")))?;
        Ok(Prepared { nft, port })
    }

    /// Ends it, so that what is still waited for comes.
    ///
    /// # Errors
    ///
    /// nft refuses.
    pub(crate) fn end(mut self) -> Result<(), PeerError> {
        self.lasts = false;
        lift()
    }
}

/// A silence that has not begun. On drop it never does.
#[derive(Debug)]
pub(crate) struct Prepared {
    nft: Child,
    port: u16,
}

impl Prepared {
    /// From now on nothing comes from or goes to this port.
    ///
    /// # Errors
    ///
    /// nft refuses.
    pub(crate) fn begin(mut self) -> Result<Silence, PeerError> {
        let port = self.port;
        // All or nothing, in one transaction.
        let rule = format!(
            "table inet silence {{ chain in {{ type filter hook input priority 0; tcp dport {port} drop; tcp sport {port} drop; }}; }}\n"
        );
        let input = self.nft.stdin.take().map_or(Ok(()), |mut input| input.write_all(rule.as_bytes()));
        input.map_err(|e| PeerError::new(format!("nft: {e}")))?;
        let status = self.nft.wait().map_err(|e| PeerError::new(format!("nft: {e}")))?;
        if status.success() {
            return Ok(Silence { lasts: true });
        }
        let errors = self.nft.stderr.take().map(std::io::read_to_string);
        Err(PeerError::new(format!("nft: {}", errors.and_then(Result::ok).unwrap_or_default().trim())))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Without a rule nft ends by itself.
        drop(self.nft.stdin.take());
        let _ = self.nft.wait();
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if self.lasts {
            // What is left of the run ends with its processes; the next one has another port.
            let _ = lift();
        }
    }
}

fn lift() -> Result<(), PeerError> {
    tool("nft", "delete table inet silence")
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path());
    command
}

/// Runs a tool with words separated by blanks; it must succeed.
fn tool(program: &str, words: &str) -> Result<(), PeerError> {
    let output = command(program).args(words.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.map_err(|e| PeerError::new(format!("{program}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(PeerError::new(format!("{program} {words}: {}", errors.trim())))
}
