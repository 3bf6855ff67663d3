// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes a URI apart: `scheme://authority/path?query`. Every slice keeps its place, so that an error can
//! point at it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::STRING_MAX_BYTES;
use crate::uri::percent::{decode, error};
use crate::uri::query::{self, Query};
use crate::uri::{DEFAULT_PORT, FILE_PATH_MAX_BYTES, Host, NbdUri, Transport, Uri, UriError, UriProblem};

/// Decoded bytes and where their parameter begins.
type Placed = (usize, Vec<u8>);

/// A slice of the URI and where it begins.
#[derive(Clone, Copy)]
struct Part<'a> {
    at: usize,
    text: &'a str,
}

impl Part<'_> {
    /// Cut in front of position `len`.
    fn split(self, len: usize) -> (Self, Self) {
        let (text, rest) = self.text.split_at(len);
        (Self { at: self.at, text }, Self { at: self.at + len, text: rest })
    }

    fn find(self, wanted: &[char]) -> usize {
        self.text.find(wanted).unwrap_or(self.text.len())
    }

    fn after(self, prefix: char) -> Option<Self> {
        let text = self.text.strip_prefix(prefix)?;
        Some(Self { at: self.at + prefix.len_utf8(), text })
    }

    fn end(self) -> usize {
        self.at + self.text.len()
    }

    fn problem<T>(self, problem: UriProblem) -> Result<T, UriError> {
        error(self.at, problem)
    }
}

impl Uri {
    /// Parses a URI.
    ///
    /// # Errors
    ///
    /// What is wrong with it, where, and what is allowed there.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let Some(scheme_len) = text.find("://") else {
            return error(0, UriProblem::NoScheme);
        };
        let (scheme, rest) = Part { at: 0, text }.split(scheme_len);
        let (_, rest) = rest.split("://".len());
        let (authority, rest) = rest.split(rest.find(&['/', '?', '#']));
        let (path, rest) = rest.split(rest.find(&['?', '#']));
        let (query, fragment) = rest.split(rest.find(&['#']));
        if fragment.after('#').is_some() {
            return fragment.problem(UriProblem::Fragment);
        }
        // Schemes do not depend on case (RFC 3986, section 3.1).
        let is = |name| scheme.text.eq_ignore_ascii_case(name);
        if is("file") {
            return file(authority, path, query);
        }
        let (tls, unix) = match () {
            () if is("nbd") => (false, false),
            () if is("nbds") => (true, false),
            () if is("nbd+unix") => (false, true),
            () if is("nbds+unix") => (true, true),
            () => return scheme.problem(UriProblem::Scheme),
        };
        let export = export(path)?;
        let parameters = match query.after('?') {
            Some(parameters) => query::parse(parameters.text, parameters.at)?,
            None => Query::default(),
        };
        if let (Some(position), false) = (parameters.first_tls_parameter, tls) {
            return error(position, UriProblem::TlsParameter);
        }
        let transport = if unix {
            local(authority, parameters.socket, query.end())?
        } else {
            tcp(authority, parameters.socket.map(|(position, _)| position))?
        };
        Ok(Self::Nbd(NbdUri { transport, export, tls: tls.then_some(parameters.tls) }))
    }
}

/// The path without its first slash, as the specification says; a second slash belongs to the name.
fn export(path: Part<'_>) -> Result<String, UriError> {
    let Some(name) = path.after('/') else {
        return Ok(String::new());
    };
    let decoded = decode(name.text, name.at)?;
    if decoded.contains(&0) {
        return name.problem(UriProblem::Nul);
    }
    if decoded.len() > STRING_MAX_BYTES {
        return name.problem(UriProblem::ExportTooLong);
    }
    String::from_utf8(decoded).or_else(|_| name.problem(UriProblem::NotUtf8))
}

fn tcp(authority: Part<'_>, socket_at: Option<usize>) -> Result<Transport, UriError> {
    if let Some(position) = socket_at {
        return error(position, UriProblem::SocketOverTcp);
    }
    if authority.text.contains('@') {
        return authority.problem(UriProblem::UserInfo);
    }
    let (host, port) = match authority.after('[') {
        Some(inside) => {
            let (host, rest) = inside.split(inside.find(&[']']));
            let Some(port) = rest.after(']') else {
                return authority.problem(UriProblem::Host);
            };
            (Host::parse_bracketed(host.text), port)
        }
        None if authority.find(&[':']) == 0 => return authority.problem(UriProblem::NoHost),
        None => {
            let (host, port) = authority.split(authority.find(&[':']));
            (Host::parse_plain(host.text), port)
        }
    };
    let Some(host) = host else {
        return authority.problem(UriProblem::Host);
    };
    Ok(Transport::Tcp { host, port: parse_port(port)? })
}

/// Nothing, a colon alone (which RFC 3986 allows), or a colon and a number.
fn parse_port(port: Part<'_>) -> Result<u16, UriError> {
    if port.text.is_empty() || port.text == ":" {
        return Ok(DEFAULT_PORT);
    }
    let Some(digits) = port.after(':') else {
        return port.problem(UriProblem::Host);
    };
    let is_number = digits.text.bytes().all(|c| c.is_ascii_digit());
    match digits.text.parse() {
        Ok(number) if is_number && number > 0 => Ok(number),
        _ => digits.problem(UriProblem::Port),
    }
}

fn local(authority: Part<'_>, socket: Option<Placed>, end: usize) -> Result<Transport, UriError> {
    if !authority.text.is_empty() {
        return authority.problem(UriProblem::Authority);
    }
    match socket {
        Some((_, path)) => Ok(Transport::Unix { path }),
        None => error(end, UriProblem::NoSocket),
    }
}

/// RFC 8089: the authority is empty or `localhost`.
fn file(authority: Part<'_>, path: Part<'_>, query: Part<'_>) -> Result<Uri, UriError> {
    if !authority.text.is_empty() && !authority.text.eq_ignore_ascii_case("localhost") {
        return authority.problem(UriProblem::Authority);
    }
    if query.after('?').is_some() {
        return query.problem(UriProblem::FileQuery);
    }
    let decoded = decode(path.text, path.at)?;
    if decoded.contains(&0) {
        return path.problem(UriProblem::Nul);
    }
    let names_something = !decoded.is_empty() && !decoded.ends_with(b"/");
    if !names_something || decoded.len() > FILE_PATH_MAX_BYTES {
        return path.problem(UriProblem::FilePath);
    }
    Ok(Uri::File { path: decoded })
}
