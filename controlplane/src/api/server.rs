// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sockets of the API and the server on them.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::middleware;

use super::access::{Caller, Rules, guard};
use super::listener::{Bounded, Source};
use super::routes;
use crate::services::Node;

/// Bound sockets, not served yet.
///
/// They are bound before the data plane starts, so that a taken port is
/// reported before any host was let in.
#[derive(Debug)]
pub struct ApiListeners {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
}

/// A socket of the API that could not be bound.
#[derive(Debug)]
pub struct BindError {
    address: String,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.error.kind() {
            io::ErrorKind::AddrInUse => "; another program has it: choose another `api` in [listen]",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            io::ErrorKind::PermissionDenied => "; this user may not",
            _ => "",
        };
        write!(f, "cannot listen on {} for the API: {}{advice}", self.address, self.error)
    }
}

impl std::error::Error for BindError {}

impl ApiListeners {
    /// Binds the TCP address and the control socket (0600).
    ///
    /// The caller holds the lock of the state directory, so a socket that is
    /// there is left over from a node that is gone.
    ///
    /// # Errors
    ///
    /// [`BindError`] with advice.
    pub fn bind(tcp: Option<SocketAddr>, unix: Option<&Path>) -> Result<Self, BindError> {
        let tcp = tcp.map(|address| {
            TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(|error| BindError { address: address.to_string(), error })
        });
        let unix = unix.map(|path| {
            bind_unix(path)
                .map(|listener| (listener, path.to_owned()))
                .map_err(|error| BindError { address: path.display().to_string(), error })
        });
        Ok(Self { tcp: tcp.transpose()?, unix: unix.transpose()? })
    }

    /// The TCP address in use.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Between the two calls the directory's rights and the check of the peer's user hold.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the API until the runtime ends.
pub(crate) fn serve(node: &Arc<Node>, listeners: ApiListeners) -> io::Result<()> {
    let socket = listeners
        .unix
        .as_ref()
        .map_or_else(|| "of the node".to_owned(), |(_, path)| path.display().to_string());
    let rules = Rules { own_uid: nix::unistd::geteuid().as_raw(), socket };
    let router = routes::router(Arc::clone(node)).layer(middleware::from_fn_with_state(rules, guard));
    if let Some(tcp) = listeners.tcp {
        spawn(tokio::net::TcpListener::from_std(tcp)?, router.clone());
    }
    if let Some((unix, _)) = listeners.unix {
        spawn(tokio::net::UnixListener::from_std(unix)?, router);
    }
    Ok(())
}

fn spawn<S: Source>(source: S, router: Router) {
    let service = router.into_make_service_with_connect_info::<Caller>();
    let server = axum::serve(Bounded::new(source), service);
    // Accept errors are handled by the listener, so the server never ends by itself.
    tokio::spawn(async move { server.await });
}
