// SPDX-License-Identifier: MIT OR Apache-2.0
//! A relay between Holdfast and a storage server, as load balancers and tunnels are: it
//! ends the TCP connection of each side and carries bytes across.
//!
//! That makes it the place *in the network* where a write can hide: it acknowledges bytes
//! that the server has not seen, can lose its near side (Holdfast's) by a reset or an end of
//! file while its far side (the server's) stands, and can deliver what it has long
//! afterwards. Threads that block, three for each connection: a few connections are all it
//! is for.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use nix::sys::socket::{self, setsockopt, sockopt};

use crate::{Endpoint, Namespace};

/// Receive buffer of the near side: small, so that a few KiB close its window.
const RECEIVE_BUFFER_BYTES: usize = 8192;
/// The near side is read in pieces of this size.
const CHUNK_BYTES: usize = 2048;

/// How the near side of a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A TCP reset.
    Reset,
    /// An end of file; the other direction still works.
    Fin,
}

/// A running relay; ends on drop, and all its connections with it.
#[derive(Debug)]
pub struct Relay {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// In order of their coming; those that ended stay.
    connections: Vec<Connection>,
    /// New connections end at once.
    refusing: bool,
    ended: bool,
}

#[derive(Debug)]
struct Connection {
    /// `None` once it was reset.
    near: Option<Arc<TcpStream>>,
    far: Arc<TcpStream>,
    /// What was read from the near side is kept.
    holding: bool,
    /// Nothing more is read from the near side.
    deaf: bool,
    /// Read from the near side and not delivered yet.
    kept: Vec<u8>,
    /// Nothing more comes from the near side.
    near_ended: bool,
    /// The server has ended the connection.
    far_ended: bool,
    /// It was open when something was held up.
    stalled: bool,
}

impl Relay {
    /// Listens at `endpoint` inside `namespace` and carries each connection to `target`,
    /// which is reached from the caller's namespace.
    pub fn start(namespace: &Namespace, endpoint: &Endpoint, target: &Endpoint) -> Self {
        let (Endpoint::Tcp(near), Endpoint::Tcp(far)) = (endpoint, target) else {
            panic!("a relay is used over TCP")
        };
        let listener = Arc::new(listen_within(namespace, *near));
        let shared = Arc::<Shared>::default();
        let (far, accepting, relaying) = (*far, Arc::clone(&listener), Arc::clone(&shared));
        let acceptor = std::thread::spawn(move || accept(&accepting, far, &relaying));
        Self { endpoint: endpoint.clone(), shared, listener, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Keeps what comes from the near side of the connections that are open now.
    pub fn hold(&self) {
        self.shared.update(|connection| {
            connection.holding = true;
            connection.stalled = true;
        });
    }

    /// Reads no more from the near side of the connections that are open now: their
    /// windows close.
    pub fn stop_reading(&self) {
        self.shared.update(|connection| {
            connection.deaf = true;
            connection.stalled = true;
        });
    }

    /// Connections that come from now on end at once.
    pub fn refuse(&self) {
        self.shared.lock().refusing = true;
    }

    /// The connections that are open now lose their near side; their far side stands.
    pub fn cut(&self, how: Cut) {
        self.shared.update(|connection| match how {
            Cut::Reset => connection.reset_near(),
            Cut::Fin => {
                if let Some(near) = &connection.near {
                    // It fails only on a connection that its peer has ended already.
                    let _ = near.shutdown(Shutdown::Write);
                }
            }
        });
    }

    /// Delivers what was kept, reads on, takes new connections.
    pub fn let_loose(&self) {
        self.shared.lock().refusing = false;
        self.shared.update(|connection| {
            connection.holding = false;
            connection.deaf = false;
        });
    }

    /// Whether each connection that was once held up is over at the server: it has read all
    /// that will ever come on it, and its end.
    pub fn stalled_ended(&self) -> bool {
        self.shared.lock().connections.iter().all(|connection| !connection.stalled || connection.far_ended)
    }

    /// Bytes read and not delivered, of each connection in order of their coming.
    pub fn kept_bytes(&self) -> Vec<usize> {
        self.shared.lock().connections.iter().map(|connection| connection.kept.len()).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.update(|connection| {
            // Threads that block in a read wake with an end of file.
            connection.reset_near();
            let _ = connection.far.shutdown(Shutdown::Both);
        });
        // Linux wakes an accept that way.
        let _ = socket::shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let ended = acceptor.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the relay panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the state panics")
    }

    fn update(&self, change: impl FnMut(&mut Connection)) {
        self.lock().connections.iter_mut().for_each(change);
        self.changed.notify_all();
    }

    /// Waits until a connection satisfies a condition or the relay ends.
    fn until(&self, index: usize, holds: impl Fn(&Connection) -> bool) -> MutexGuard<'_, State> {
        let waits = |state: &mut State| !state.ended && !holds(&state.connections[index]);
        self.changed.wait_while(self.lock(), waits).expect("no holder of the state panics")
    }

    fn add(&self, near: TcpStream, far: TcpStream) -> usize {
        let mut state = self.lock();
        state.connections.push(Connection {
            near: Some(Arc::new(near)),
            far: Arc::new(far),
            holding: false,
            deaf: false,
            kept: Vec::new(),
            near_ended: false,
            far_ended: false,
            stalled: false,
        });
        state.connections.len() - 1
    }

    fn near(&self, index: usize) -> Option<Arc<TcpStream>> {
        self.lock().connections[index].near.clone()
    }

    fn far(&self, index: usize) -> Arc<TcpStream> {
        Arc::clone(&self.lock().connections[index].far)
    }

    /// Takes what comes from Holdfast.
    fn take(&self, index: usize) {
        let mut chunk = [0; CHUNK_BYTES];
        while let Ok(len @ 1..) = self.read_near(index, &mut chunk) {
            self.lock().connections[index].kept.extend_from_slice(&chunk[..len]);
            self.changed.notify_all();
        }
        self.lock().connections[index].near_ended = true;
        self.changed.notify_all();
    }

    fn read_near(&self, index: usize, chunk: &mut [u8]) -> io::Result<usize> {
        drop(self.until(index, |connection| !connection.deaf || connection.near.is_none()));
        // Held during the read alone, so that a reset can close it.
        self.near(index).map_or(Ok(0), |near| (&*near).read(chunk))
    }

    /// Delivers it to the server, to the end of either.
    fn deliver(&self, index: usize) {
        let far = self.far(index);
        loop {
            let ready = |c: &Connection| !c.holding && (!c.kept.is_empty() || c.near_ended);
            let mut state = self.until(index, ready);
            let kept = std::mem::take(&mut state.connections[index].kept);
            let ended = state.ended;
            drop(state);
            if ended || kept.is_empty() || (&*far).write_all(&kept).is_err() {
                break;
            }
        }
        let _ = far.shutdown(Shutdown::Write);
    }

    /// From the server to Holdfast, to the end of either.
    fn give_back(&self, index: usize) {
        let far = self.far(index);
        let mut chunk = [0; CHUNK_BYTES];
        while let Ok(len @ 1..) = (&*far).read(&mut chunk) {
            // What cannot be delivered any more is read all the same: the server is well.
            if let Some(near) = self.near(index) {
                let _ = (&*near).write_all(&chunk[..len]);
            }
        }
        if let Some(near) = self.near(index) {
            let _ = near.shutdown(Shutdown::Write);
        }
        self.lock().connections[index].far_ended = true;
    }
}

impl Connection {
    /// Closed without lingering: the kernel sends a reset when the last user of it is
    /// gone, and a reader is woken for that.
    fn reset_near(&mut self) {
        let Some(near) = self.near.take() else { return };
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&*near, sockopt::Linger, &at_once).expect("a socket has a linger time");
        let _ = near.shutdown(Shutdown::Read);
    }
}

/// Sockets belong to the namespace of the thread that made them.
fn listen_within(namespace: &Namespace, address: SocketAddr) -> TcpListener {
    let handle = namespace.handle();
    let listening = std::thread::spawn(move || {
        handle.enter();
        TcpListener::bind(address)
    });
    let listener = listening.join().expect("the thread does not panic");
    let listener = listener.unwrap_or_else(|e| panic!("cannot listen at {address}: {e}"));
    // Connections inherit it.
    setsockopt(&listener, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES).expect("a socket has a buffer");
    listener
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    while let Ok((near, _peer)) = listener.accept() {
        if shared.lock().ended {
            return;
        }
        if shared.lock().refusing {
            continue;
        }
        // A server that is not there is told to the near side as an end of file.
        let Ok(far) = TcpStream::connect(target) else { continue };
        for stream in [&near, &far] {
            // It fails only on a connection that is gone already, which its threads then find.
            let _ = stream.set_nodelay(true);
        }
        let index = shared.add(near, far);
        for work in [Shared::take, Shared::deliver, Shared::give_back] {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || work(&shared, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::{Cut, Relay};
    use crate::{Endpoint, Namespace, loopback, wait};

    /// A relay before a listener, and one connection through it: near side, relay, far side.
    fn connected() -> (TcpStream, Relay, TcpStream) {
        let namespace = Namespace::new();
        let near = Endpoint::tcp([127, 0, 0, 1], 10809);
        let listener = TcpListener::bind((loopback(), 10809)).expect("the address is ours");
        let far = Endpoint::Tcp(listener.local_addr().expect("it is bound"));
        let relay = Relay::start(&namespace, &near, &far);
        let handle = namespace.handle();
        let connecting = std::thread::spawn(move || {
            handle.enter();
            TcpStream::connect(("127.0.0.1", 10809)).expect("the relay listens")
        });
        let near = connecting.join().expect("the thread does not panic");
        let (far, _) = listener.accept().expect("the relay connects");
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(wait::BOUND)).expect("a socket has a bound");
        }
        (near, relay, far)
    }

    fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).expect("it comes");
        bytes
    }

    /// A ghost in the network: kept, its sender cut off, delivered in the end.
    #[test]
    fn what_was_kept_is_delivered_after_a_cut() {
        for cut in [Cut::Reset, Cut::Fin] {
            let (mut near, relay, mut far) = connected();
            near.write_all(b"before").expect("it is open");
            assert_eq!(read(&mut far, 6), b"before");
            relay.hold();
            near.write_all(b"ghost").expect("it is open");
            wait::until_true("the relay to keep it", || relay.kept_bytes() == [5]);
            relay.cut(cut);
            let end = near.read(&mut [0]);
            match cut {
                Cut::Reset => assert_eq!(end.expect_err("reset").kind(), ErrorKind::ConnectionReset),
                Cut::Fin => assert_eq!(end.expect("an end of file"), 0),
            }
            assert!(!relay.stalled_ended());
            relay.let_loose();
            assert_eq!(read(&mut far, 5), b"ghost");
            drop((near, far));
            wait::until_true("the connection to be over", || relay.stalled_ended());
        }
    }

    /// A relay that reads no more fills its sender's queue.
    #[test]
    fn a_deaf_relay_closes_its_window() {
        let (near, relay, mut far) = connected();
        relay.stop_reading();
        near.set_nonblocking(true).expect("a socket can be");
        let mut written = 0;
        let full = loop {
            match (&near).write(&[7; 4096]) {
                Ok(len) => written += len,
                Err(e) => break e,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        relay.let_loose();
        assert_eq!(read(&mut far, written), vec![7; written]);
    }
}
