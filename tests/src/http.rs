// SPDX-License-Identifier: MIT OR Apache-2.0
//! A very small HTTP/1.1 client, over TCP or a Unix socket: one request per connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::Endpoint;

const BOUND: Duration = Duration::from_secs(45);

/// Where an HTTP server listens.
#[derive(Clone, Debug)]
pub struct Http {
    endpoint: Endpoint,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
}

impl Http {
    /// Talks to the server there.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// GET; an error is a connection that broke.
    pub fn get(&self, path: &str) -> std::io::Result<HttpAnswer> {
        self.send("GET", path, "holdfast", "")
    }

    /// POST with a JSON body.
    pub fn post(&self, path: &str, body: &str) -> std::io::Result<HttpAnswer> {
        self.send("POST", path, "holdfast", body)
    }

    /// Any request; `host` is the Host header, or the address itself if it is a TCP one
    /// and `host` is "holdfast".
    pub fn send(&self, method: &str, path: &str, host: &str, body: &str) -> std::io::Result<HttpAnswer> {
        let host = match &self.endpoint {
            Endpoint::Tcp(address) if host == "holdfast" => address.to_string(),
            _ => host.to_owned(),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = match &self.endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(BOUND))?;
                exchange(stream, &request)?
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(BOUND))?;
                exchange(stream, &request)?
            }
        };
        Ok(parse(&answer))
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> HttpAnswer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {answer:?}"));
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    HttpAnswer { status, body: if chunked { join_chunks(body) } else { body.to_owned() } }
}

fn join_chunks(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        body.push_str(&tail[..size]);
        rest = tail[size..].trim_start_matches("\r\n");
    }
    body
}
