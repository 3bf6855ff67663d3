// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbd-server: one child process per connection.
//!
//! That makes it the one server of which a single path can be stopped in the middle of its
//! work (rule T4). It forks children only when it runs as a daemon, so it is no child of
//! ours: it is found by its pid file and ended by that id.

use std::fmt::Write as _;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Trace;
use crate::{Command, Endpoint, TestDir, wait};

/// Requests that a child works on at once; the others wait in its memory.
const THREADS: u32 = 16;

/// A running nbd-server; killed with its children on drop.
#[derive(Debug)]
pub struct NbdServer {
    endpoint: Endpoint,
    pid_file: PathBuf,
    parent: i32,
}

impl NbdServer {
    /// Serves a file as one export over TCP.
    pub fn start(dir: &TestDir, name: &str, endpoint: &Endpoint, export: &str, file: &str) -> Self {
        Self::start_with(dir, name, endpoint, &[(export.to_owned(), file.to_owned())], None)
    }

    /// Serves several files, each as the export of its name, and notes its changes if asked to.
    pub fn start_with(
        dir: &TestDir,
        name: &str,
        endpoint: &Endpoint,
        exports: &[(String, String)],
        trace: Option<&Trace>,
    ) -> Self {
        let config_path = dir.write(&format!("{name}.conf"), config(endpoint, exports));
        let pid_file = dir.join(&format!("{name}.pid"));
        let mut command = Command::new("nbd-server")
            .args(["-C".to_owned(), config_path.display().to_string()])
            .args(["-p".to_owned(), pid_file.display().to_string()]);
        if let Some(trace) = trace {
            command = trace.attach(command);
        }
        let output = command.output();
        assert!(
            output.status.success(),
            "nbd-server: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        endpoint.await_listening();
        let parent = wait::until("nbd-server to write its pid", || {
            std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
        });
        Self { endpoint: endpoint.clone(), pid_file, parent }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Process ids of the children, one per connection, oldest first.
    pub fn children(&self) -> Vec<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.parent);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let ids = text.split_whitespace().filter_map(|word| word.parse().ok());
        ids.filter(|id| !is_gone(*id)).collect()
    }

    /// Stops the child of every connection that is open now; returns their process ids.
    pub fn stop_children(&self) -> Vec<i32> {
        let children = self.children();
        assert!(!children.is_empty(), "nobody is connected");
        for child in &children {
            kill(Pid::from_raw(*child), Signal::SIGSTOP).expect("our server's child can be stopped");
        }
        let stopped = |id: i32| state(id) == Some('T') || is_gone(id);
        wait::until_true("the children to be stopped", || children.iter().all(|id| stopped(*id)));
        children
    }

    /// Lets stopped children go on.
    pub fn resume_children(&self) {
        for child in self.children() {
            kill(Pid::from_raw(child), Signal::SIGCONT).expect("our server's child can go on");
        }
    }

    /// Kills the server and its children.
    pub fn kill(&mut self) {
        let mut ids = self.children();
        ids.push(self.parent);
        for id in ids {
            // It may have ended by itself in between.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn config(endpoint: &Endpoint, exports: &[(String, String)]) -> String {
    let Endpoint::Tcp(address) = endpoint else { panic!("nbd-server is used over TCP here") };
    let mut text = format!(
        "[generic]\nlistenaddr = {}\nport = {}\nallowlist = true\nmax_threads = {THREADS}\n",
        address.ip(),
        address.port(),
    );
    for (export, file) in exports {
        let _ = write!(text, "[{export}]\nexportname = {file}\nflush = true\nfua = true\ntrim = true\n");
    }
    text
}

/// Ended, and perhaps not yet waited for by its parent.
fn is_gone(pid: i32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

fn state(pid: i32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}
