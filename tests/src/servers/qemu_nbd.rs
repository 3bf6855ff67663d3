// SPDX-License-Identifier: MIT OR Apache-2.0
//! qemu-nbd on a raw file.

use super::Server;
use crate::{Command, Endpoint, TestDir};

/// How to run qemu-nbd.
#[derive(Clone, Debug)]
pub struct QemuNbd {
    file: String,
    export: String,
}

impl QemuNbd {
    /// Serves a raw file as one export to up to eight clients, which is when qemu-nbd
    /// advertises multi-conn.
    pub fn file(file: &str, export: &str) -> Self {
        Self { file: file.to_owned(), export: export.to_owned() }
    }

    /// Starts it.
    pub fn start(&self, dir: &TestDir, name: &str, endpoint: &Endpoint) -> Server {
        let listen = match endpoint {
            Endpoint::Tcp(address) => {
                vec![format!("--bind={}", address.ip()), format!("--port={}", address.port())]
            }
            Endpoint::Unix(path) => vec![format!("--socket={}", path.display())],
        };
        let command = Command::new("qemu-nbd")
            .args(["--persistent", "--shared=8", "--format=raw", "--discard=unmap"])
            .args(listen)
            .arg(format!("--export-name={}", self.export))
            .arg(self.file.clone());
        Server::start(dir, name, command, endpoint, None)
    }
}
