// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may ask what.
//!
//! | caller | may |
//! |---|---|
//! | TCP, `Host` is an address (or `localhost`) | read |
//! | TCP, `Host` is any other name | nothing: DNS rebinding |
//! | Unix socket, own user or root | read and change |
//! | Unix socket, another user | nothing |

use std::net::{IpAddr, SocketAddr};

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;

use super::answer::Refusal;
use super::listener::{Bounded, Source};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody on TCP, connected to this address of ours.
    Tcp {
        /// Our end of the connection.
        local: SocketAddr,
    },
    /// A process on this machine.
    Unix {
        /// Its user, from the kernel.
        uid: Option<u32>,
    },
}

impl<S: Source> Connected<IncomingStream<'_, Bounded<S>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Bounded<S>>) -> Self {
        *stream.remote_addr()
    }
}

/// What [`guard`] needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// User this process runs as.
    pub(crate) own_uid: u32,
    /// Where changes are taken, for the message.
    pub(crate) socket: String,
}

/// Lets a request through or refuses it.
pub(crate) async fn guard(
    State(rules): State<Rules>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match check(&rules, caller, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check(rules: &Rules, caller: Caller, request: &Request) -> Result<(), Refusal> {
    match caller {
        Caller::Unix { uid } if uid == Some(rules.own_uid) || uid == Some(0) => Ok(()),
        Caller::Unix { .. } => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "this socket answers the user that runs the node, and root",
            "run the command as that user",
        )),
        Caller::Tcp { local } => {
            check_host(request, local)?;
            if matches!(*request.method(), Method::GET | Method::HEAD) {
                return Ok(());
            }
            Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "the API is read-only on TCP",
                format!("changes are taken on the Unix socket {}", rules.socket),
            ))
        }
    }
}

fn check_host(request: &Request, local: SocketAddr) -> Result<(), Refusal> {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    // With an absolute target the authority is in the request line.
    let host = request.uri().authority().map(axum::http::uri::Authority::as_str).or(host);
    let Some(host) = host else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the request has no Host header", "send one"));
    };
    if is_own_address(host, local) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "the Host header names another host",
        format!("address the API as http://{local} or http://localhost:{}", local.port()),
    ))
}

/// Whether a Host header names this listener: by its address, by `localhost`
/// or, for connections that came in on loopback, by any loopback address.
fn is_own_address(host: &str, local: SocketAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return local.ip().to_canonical().is_loopback();
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let Ok(address) = bare.parse::<IpAddr>() else { return false };
    let (address, own) = (address.to_canonical(), local.ip().to_canonical());
    address == own || (address.is_loopback() && own.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_answers_its_own_user_and_root() {
        let rules = Rules { own_uid: 1000, socket: "/s".to_owned() };
        let request = Request::new(axum::body::Body::empty());
        let may = |uid| check(&rules, Caller::Unix { uid }, &request).is_ok();
        assert!(may(Some(1000)) && may(Some(0)));
        assert!(!may(Some(1001)) && !may(None));
    }

    #[test]
    fn only_addresses_of_ours_pass_as_host() {
        let local: SocketAddr = "127.0.0.1:10880".parse().expect("address");
        for good in
            ["127.0.0.1:10880", "127.0.0.1", "localhost:10880", "LOCALHOST", "[::1]:10880", "127.0.0.2"]
        {
            assert!(is_own_address(good, local), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:10880",
            "10.0.0.1",
            "",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_own_address(bad, local), "{bad}");
        }
        let lan: SocketAddr = "10.0.0.5:10880".parse().expect("address");
        assert!(is_own_address("10.0.0.5:10880", lan) && !is_own_address("127.0.0.1", lan));
        assert!(!is_own_address("localhost", lan));
        let mapped: SocketAddr = "[::ffff:10.0.0.5]:1".parse().expect("address");
        assert!(is_own_address("10.0.0.5", mapped));
        let six: SocketAddr = "[fd00::1]:1".parse().expect("address");
        assert!(is_own_address("[fd00::1]:1", six) && is_own_address("[fd00::1]", six));
    }
}
