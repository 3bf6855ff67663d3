// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel holds for TCP connections: the two places where a write can wait although
//! both processes believe they are done with it.

use crate::{Command, Endpoint, Namespace};

/// Queues of one connection, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Received and not read by the process.
    pub receive_bytes: u64,
    /// Written by the process and not acknowledged by the peer.
    pub send_bytes: u64,
}

/// Connections to `server` as their clients' kernel sees them, inside a namespace; also those
/// that no process holds any more.
pub fn client_queues(namespace: &Namespace, server: &Endpoint) -> Vec<Queues> {
    listed(&ss("dst", server).within(namespace))
}

/// Connections to `server` as its own kernel sees them, in the caller's namespace.
pub fn server_queues(server: &Endpoint) -> Vec<Queues> {
    listed(&ss("src", server))
}

fn ss(side: &str, server: &Endpoint) -> Command {
    let Endpoint::Tcp(address) = server else { panic!("only TCP is listed") };
    Command::new("ss").args(["-H", "-t", "-n", "-a"]).arg(format!("{side} {address}"))
}

fn listed(command: &Command) -> Vec<Queues> {
    let output = command.output();
    assert!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| !line.starts_with("LISTEN")).map(parse).collect()
}

/// `STATE RECV-Q SEND-Q LOCAL PEER`.
fn parse(line: &str) -> Queues {
    let mut words = line.split_whitespace().skip(1).map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(receive_bytes)), Some(Ok(send_bytes))) => Queues { receive_bytes, send_bytes },
        _ => panic!("ss: {line}"),
    }
}
