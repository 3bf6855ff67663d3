// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters behind the `?` of an NBD URI.

use alloc::string::String;
use alloc::vec::Vec;

use crate::uri::host::is_host_name;
use crate::uri::percent::{decode, error};
use crate::uri::{SOCKET_PATH_MAX_BYTES, TlsParameters, UriError, UriProblem};

/// What the parameters say, with the places of those that the scheme may not allow.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) socket: Option<(usize, Vec<u8>)>,
    pub(super) tls: TlsParameters,
    pub(super) first_tls_parameter: Option<usize>,
}

/// Parses `text`, which stands at `base` in the URI. Empty parts (`a=b&&c=d`) are harmless.
pub(super) fn parse(text: &str, base: usize) -> Result<Query, UriError> {
    let mut query = Query::default();
    let mut seen: Vec<&str> = Vec::new();
    let mut at = base;
    for part in text.split('&') {
        if !part.is_empty() {
            let Some((key, value)) = part.split_once('=') else {
                return error(at, UriProblem::NoValue);
            };
            if seen.contains(&key) {
                return error(at, UriProblem::Repeated);
            }
            seen.push(key);
            query.set(key, value, at)?;
        }
        at += part.len() + 1;
    }
    Ok(query)
}

impl Query {
    fn set(&mut self, key: &str, value: &str, at: usize) -> Result<(), UriError> {
        let value_at = at + key.len() + 1;
        let decoded = decode(value, value_at)?;
        match key {
            "socket" => {
                check_socket(&decoded, value_at)?;
                self.socket = Some((at, decoded));
                return Ok(());
            }
            "tls-type" if decoded != b"x509" => return error(value_at, UriProblem::TlsType),
            "tls-type" => {}
            "tls-hostname" => {
                let name = String::from_utf8(decoded).ok().filter(|name| is_host_name(name));
                let Some(name) = name else {
                    return error(value_at, UriProblem::TlsHostname);
                };
                self.tls.hostname = Some(name);
            }
            "tls-verify-peer" => {
                self.tls.verify_peer = match decoded.as_slice() {
                    b"0" => false,
                    b"1" => true,
                    _ => return error(value_at, UriProblem::TlsVerifyPeer),
                };
            }
            _ => return error(at, UriProblem::Parameter),
        }
        self.first_tls_parameter.get_or_insert(at);
        Ok(())
    }
}

/// A path without NUL, or a NUL and an abstract name without NUL.
fn check_socket(path: &[u8], at: usize) -> Result<(), UriError> {
    let name = path.strip_prefix(&[0]).unwrap_or(path);
    if name.contains(&0) {
        return error(at, UriProblem::Nul);
    }
    if name.is_empty() || path.len() > SOCKET_PATH_MAX_BYTES {
        return error(at, UriProblem::SocketPath);
    }
    Ok(())
}
