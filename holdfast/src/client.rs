// SPDX-License-Identifier: MIT OR Apache-2.0
//! Talking to a node's API: one request, one answer, over TCP or the Unix socket.
//!
//! HTTP/1.0 and a closed connection are all a command needs; the API's answers
//! carry no encoding then. A client library would be larger than the rest of
//! this binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use controlplane::api::ErrorDocument;

use crate::demo;
use crate::failure::{Failure, Status};

/// An answer larger than this is not read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The same for what stands before the body.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Longer than the longest poll.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(45);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Where an API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `http://HOST:PORT`.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // Both `unix:/path` and the URL form `unix:///path`.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("the path of the socket is missing".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let Some(authority) = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
            return Err("it must be http://HOST:PORT or unix:PATH".to_owned());
        };
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        if authority.contains('/') || port.and_then(|port| port.parse::<u16>().ok()).is_none() {
            return Err("it must be http://HOST:PORT, with a port and nothing behind it".to_owned());
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The API of one node.
#[derive(Debug)]
pub(crate) struct Client {
    candidates: Vec<Endpoint>,
    /// Nobody said which one.
    searching: bool,
}

impl Client {
    /// The node at `api` or, if that is not given, at `HOLDFAST_API` or a default place.
    pub(crate) fn new(api: Option<&Endpoint>) -> Result<Self, Failure> {
        let from_environment = match std::env::var("HOLDFAST_API") {
            Ok(text) if !text.is_empty() => Some(text.parse().map_err(|why| {
                Failure::new(Status::Usage, format!("HOLDFAST_API is \"{}\": {why}", text.escape_debug()))
            })?),
            _ => None,
        };
        Ok(match api.cloned().or(from_environment) {
            Some(endpoint) => Self { candidates: vec![endpoint], searching: false },
            None => Self { candidates: default_places(), searching: true },
        })
    }

    /// The body of the answer to a GET.
    pub(crate) fn get(&self, target: &str) -> Result<String, Failure> {
        self.request("GET", target)
    }

    /// The body of the answer to a POST.
    pub(crate) fn post(&self, target: &str) -> Result<String, Failure> {
        self.request("POST", target)
    }

    /// The body of the answer to a GET while it comes. The node must send something every 45 s.
    pub(crate) fn stream(&self, target: &str) -> Result<impl BufRead, Failure> {
        self.with_node(|stream, endpoint| open_stream(stream, endpoint, target))
    }

    fn request(&self, method: &str, target: &str) -> Result<String, Failure> {
        self.with_node(|stream, endpoint| exchange(stream, endpoint, method, target))
    }

    fn with_node<R>(
        &self,
        ask: impl Fn(Box<dyn Stream>, &Endpoint) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let mut tried = Vec::new();
        for endpoint in &self.candidates {
            match connect(endpoint) {
                Ok(stream) => return ask(stream, endpoint),
                Err(error) => tried.push(format!("{endpoint}: {error}")),
            }
        }
        let tried = tried.join("\n  ");
        Err(Failure::new(
            Status::Unavailable,
            if self.searching {
                format!(
                    "no running node was found, tried\n  {tried}\nstart one with `holdfast serve`, or name its API with --api or HOLDFAST_API"
                )
            } else {
                format!("the node cannot be reached at {tried}")
            },
        ))
    }
}

/// Sockets first: they take changes too.
fn default_places() -> Vec<Endpoint> {
    let mut places = vec![Endpoint::Unix("/var/lib/holdfast/api.sock".into())];
    places.extend(demo::directories().into_iter().map(|dir| Endpoint::Unix(dir.join("api.sock"))));
    places.retain(|place| !matches!(place, Endpoint::Unix(path) if is_strangers(path)));
    places.push(Endpoint::Tcp("127.0.0.1:10880".to_owned()));
    places
}

/// Whether a socket lies in a directory of another user, as anyone may make one in `/tmp`.
fn is_strangers(socket: &Path) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let dir = socket.parent().and_then(|dir| std::fs::symlink_metadata(dir).ok());
    // Root may talk to the daemon of any user; it names a strange one with --api.
    dir.is_some_and(|dir| dir.uid() != own && dir.uid() != 0 && !socket.starts_with("/var/lib"))
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connect(endpoint: &Endpoint) -> io::Result<Box<dyn Stream>> {
    match endpoint {
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
            Ok(Box::new(stream))
        }
        Endpoint::Tcp(authority) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in authority.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT_WAIT_MAX) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
                        return Ok(Box::new(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

fn put(stream: &mut dyn Stream, endpoint: &Endpoint, method: &str, target: &str) -> Result<(), Failure> {
    let host = match endpoint {
        Endpoint::Tcp(authority) => authority,
        Endpoint::Unix(_) => "holdfast",
    };
    let request = format!("{method} {target} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| no_answer(endpoint, &error))
}

fn no_answer(endpoint: &Endpoint, error: &io::Error) -> Failure {
    Failure::new(Status::Unavailable, format!("{endpoint} did not answer: {error}"))
}

fn strange_answer(endpoint: &Endpoint) -> Failure {
    Failure::new(Status::Unavailable, format!("{endpoint} does not answer as a node does"))
}

fn exchange(
    mut stream: Box<dyn Stream>,
    endpoint: &Endpoint,
    method: &str,
    target: &str,
) -> Result<String, Failure> {
    put(&mut *stream, endpoint, method, target)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| no_answer(endpoint, &error))?;
    let (code, body) = parse_answer(&answer).ok_or_else(|| strange_answer(endpoint))?;
    if (200..300).contains(&code) { Ok(body) } else { Err(refusal(&body, code)) }
}

/// Reads the head of an answer and leaves the rest.
fn open_stream(
    mut stream: Box<dyn Stream>,
    endpoint: &Endpoint,
    target: &str,
) -> Result<BufReader<Box<dyn Stream>>, Failure> {
    put(&mut *stream, endpoint, "GET", target)?;
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = lines.by_ref().take(HEAD_BYTES_MAX).read_line(&mut head);
        if read.map_err(|error| no_answer(endpoint, &error))? == 0 || head.len() as u64 > HEAD_BYTES_MAX {
            return Err(strange_answer(endpoint));
        }
    }
    let code = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    match code.ok_or_else(|| strange_answer(endpoint))? {
        200..300 => Ok(lines),
        code => {
            let mut body = String::new();
            let read = lines.take(ANSWER_BYTES_MAX).read_to_string(&mut body);
            read.map_err(|error| no_answer(endpoint, &error))?;
            Err(refusal(&body, code))
        }
    }
}

/// Status and body of an answer that is there in full.
fn parse_answer(answer: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let code = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (length.is_none_or(|length| length == body.len())).then(|| (code, body.to_owned()))
}

fn refusal(body: &str, code: u16) -> Failure {
    let Ok(document) = serde_json::from_str::<ErrorDocument>(body) else {
        return Failure::new(Status::Refused, format!("the node answered with status {code}"));
    };
    let hint = if document.hint.is_empty() { String::new() } else { format!("\n{}", document.hint) };
    match document.mistakes {
        Some(mistakes) => Failure::new(Status::Configuration, format!("{}\n\n{mistakes}", document.error)),
        None => Failure::new(Status::Refused, format!("{}{hint}", document.error)),
    }
}

/// A name as a segment of a request target.
pub(crate) fn segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_parsed_and_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:10880", "http://127.0.0.1:10880"),
            ("http://[::1]:10880/", "http://[::1]:10880"),
            ("unix:/run/api.sock", "unix:/run/api.sock"),
            ("unix:///run/api.sock", "unix:/run/api.sock"),
            ("unix:api.sock", "unix:api.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()).as_deref(), Ok(shown));
        }
        for wrong in
            ["", "127.0.0.1:10880", "https://h:1", "http://h", "http://h:x", "http://h:1/v1", "unix:"]
        {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn answers_are_taken_whole_or_not_at_all() {
        let whole = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(parse_answer(whole), Some((200, "ok".to_owned())));
        assert_eq!(parse_answer(b"HTTP/1.1 404 Not Found\r\n\r\n"), Some((404, String::new())));
        for cut in 0..whole.len() {
            assert_eq!(parse_answer(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(parse_answer(b"NBDMAGICIHAVEOPT\0\x03"), None);
    }

    #[test]
    fn refusals_carry_the_hint_and_their_status() {
        let failure = refusal("{\"error\":\"no\",\"hint\":\"do that\"}", 404);
        assert_eq!((failure.to_string().as_str(), failure.status()), ("no\ndo that", Status::Refused));
        let failure = refusal("{\"error\":\"bad\",\"hint\":\"\",\"mistakes\":\"m\"}", 422);
        assert_eq!(failure.status(), Status::Configuration);
        assert_eq!(refusal("<html>", 502).to_string(), "the node answered with status 502");
    }

    #[test]
    fn names_become_segments() {
        assert_eq!(segment("vol0"), "vol0");
        assert_eq!(segment("x/y z?\u{e9}"), "x%2Fy%20z%3F%C3%A9");
    }
}
