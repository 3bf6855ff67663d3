// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP relay that can reset its connections.
//!
//! A reset in the middle of a connection is what a firewall, a NAT gateway or a rebooted router does; the processes at both
//! ends live on. The kernel's own way to do it (`ss -K`) needs a kernel option that many machines lack.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::peers::PeerError;

const BUFFER_BYTES: usize = 128 * 1024;

/// A running relay; ends on drop.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    storage: SocketAddr,
    /// Both ends of every connection since the last reset.
    links: Mutex<Vec<End>>,
    ends: AtomicBool,
}

struct End {
    stream: TcpStream,
    /// Common to both ends: the connection is to be reset, not closed.
    aborted: Arc<AtomicBool>,
}

impl Relay {
    /// In front of a port of 127.0.0.1.
    pub(crate) fn start(storage_port: u16) -> Result<Self, PeerError> {
        let failed = |error: io::Error| PeerError::new(format!("relay: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let storage = SocketAddr::from((Ipv4Addr::LOCALHOST, storage_port));
        let shared = Arc::new(Shared { storage, links: Mutex::default(), ends: AtomicBool::new(false) });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accepting.accept(&listener));
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Resets every connection, in both directions; new ones are relayed again. Returns how many ends there were.
    pub(crate) fn reset(&self) -> usize {
        let links = std::mem::take(&mut *self.shared.links());
        for end in &links {
            end.aborted.store(true, Ordering::SeqCst);
        }
        for end in &links {
            // The kernel sends the reset in this call and wakes the copying threads. Closing would do it when they have let
            // go of the socket, and until a busy machine lets them the requests of a host would go nowhere. It
            // fails only for a connection that is over already.
            let _ = rustix::net::connect_unspec(&end.stream);
        }
        links.len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.reset();
        // The acceptor wakes up by a connection, for which nobody waits.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn links(&self) -> std::sync::MutexGuard<'_, Vec<End>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &TcpListener) {
        for host in listener.incoming() {
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            // A storage server that is gone: the host end is dropped, as the server's kernel would.
            let _ = host.and_then(|host| self.relay(host));
        }
    }

    fn relay(&self, host: TcpStream) -> io::Result<()> {
        let storage = TcpStream::connect(self.storage)?;
        let aborted = Arc::new(AtomicBool::new(false));
        for end in [&host, &storage] {
            end.set_nodelay(true)?;
            self.links().push(End { stream: end.try_clone()?, aborted: Arc::clone(&aborted) });
        }
        let (host_reads, storage_reads) = (host.try_clone()?, storage.try_clone()?);
        let also_aborted = Arc::clone(&aborted);
        thread::spawn(move || copy(host_reads, storage, &aborted));
        thread::spawn(move || copy(storage_reads, host, &also_aborted));
        Ok(())
    }
}

/// One direction, until its source ends; the end is passed on unless the connection is being reset.
fn copy(mut from: TcpStream, mut to: TcpStream, aborted: &AtomicBool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(received @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..received]).is_err() {
            break;
        }
    }
    if !aborted.load(Ordering::SeqCst) {
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::Relay;

    #[test]
    fn bytes_go_through_and_a_reset_is_a_reset() {
        let storage = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let relay = Relay::start(storage.local_addr().expect("it listens").port()).expect("it starts");
        let mut host = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).expect("it accepts");
        let (mut server, _) = storage.accept().expect("the relay connects");
        let mut byte = [0];
        host.write_all(b"a").expect("sent");
        server.read_exact(&mut byte).expect("received");
        server.write_all(b"b").expect("sent");
        host.read_exact(&mut byte).expect("received");
        assert_eq!(byte, *b"b");
        assert_eq!(relay.reset(), 2);
        for end in [&mut host, &mut server] {
            let error = end.read(&mut byte).expect_err("an end of the stream would not be a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        // The relay goes on.
        let mut host = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).expect("it accepts");
        let (mut server, _) = storage.accept().expect("the relay connects");
        host.write_all(b"c").expect("sent");
        server.read_exact(&mut byte).expect("received");
        assert_eq!(byte, *b"c");
        // An orderly end is passed on as one.
        drop(host);
        assert_eq!(server.read(&mut byte).expect("an end of the stream"), 0);
    }
}
