// SPDX-License-Identifier: MIT OR Apache-2.0
//! Listening sockets.
//!
//! A Unix socket leaves its name behind when a process dies. Such a name is removed,
//! but only after a connection attempt showed that nobody listens there: taking a name
//! away from a living server would make it unreachable without a sign.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

/// Connections the kernel queues before we accept them.
const BACKLOG: i32 = 1024;

/// Listens on a TCP address (SO_REUSEADDR: an old connection in TIME_WAIT is no obstacle).
pub fn tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

/// The address a TCP listener has, for port 0.
pub fn tcp_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    TcpListener::from(fd.try_clone()?).local_addr()
}

/// Listens on a Unix socket path; replaces the name a dead process left.
pub fn unix(path: &Path) -> io::Result<OwnedFd> {
    match UnixListener::bind(path) {
        Ok(listener) => Ok(listener.into()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !is_stale(path) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            Ok(UnixListener::bind(path)?.into())
        }
        Err(error) => Err(error),
    }
}

/// A socket name with nobody behind it. Anything else, such as a file, is left alone.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_unix_name_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(unix(&path).unwrap());
        assert!(path.exists(), "closing leaves the name");
        unix(&path).unwrap();
    }

    #[test]
    fn a_living_unix_server_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _alive = unix(&path).unwrap();
        assert_eq!(unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(unix(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = tcp_address(&first).unwrap();
        assert_eq!(tcp(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
