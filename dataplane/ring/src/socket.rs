// SPDX-License-Identifier: MIT OR Apache-2.0
//! Socket options and what the kernel knows of a connection.
//!
//! Storage connections (lanes) and host connections want different things: a lane must
//! leave nothing in the kernel when it is given up or the process dies (rule W1), so
//! it lingers for no time; a host connection must deliver its last replies, so it is
//! closed in order.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getpeername, getsockname, setsockopt, socket,
    sockopt,
};

use crate::Fd;

/// When the kernel probes a connection on which nothing happens, and gives it up.
struct Keepalive {
    /// Seconds of silence before the first probe.
    idle_s: u32,
    /// Seconds between two probes.
    interval_s: u32,
    /// Probes without an answer until it gives up.
    count: u32,
}

const KEEPALIVE: Keepalive = Keepalive { idle_s: 60, interval_s: 10, count: 6 };
/// Of a lane that is kept for late replies alone. Only what its peer's kernel acknowledges
/// says that its writes are still alive (rule W13), and nothing else is sent on it.
const KEEPALIVE_QUIET: Keepalive = Keepalive { idle_s: 2, interval_s: 1, count: 4 };

/// Kinds of stream sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// TCP over IPv4.
    Ipv4,
    /// TCP over IPv6.
    Ipv6,
    /// Unix stream.
    Unix,
}

impl Family {
    /// Of an address.
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// A new stream socket, not connected.
pub fn stream(family: Family) -> io::Result<Fd> {
    let family = match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
        Family::Unix => AddressFamily::Unix,
    };
    Ok(Fd::new(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?))
}

/// Local source address, any port.
pub fn bind_source(fd: &Fd, address: IpAddr) -> io::Result<()> {
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0)))?;
    Ok(())
}

/// Options of a TCP lane, before it connects: no delay, no lingering (SIGKILL leaves
/// nothing to send, rule W1), a limit on unacknowledged bytes, probes when idle.
pub fn prepare_lane(fd: &Fd, user_timeout_ms: u32) -> io::Result<()> {
    setsockopt(fd, sockopt::TcpNoDelay, &true)?;
    set_linger_none(fd)?;
    set_user_timeout(fd, user_timeout_ms)?;
    set_keepalive(fd, &KEEPALIVE)
}

/// Options of a TCP host connection: no delay, probes when idle.
pub fn prepare_host(fd: &Fd) -> io::Result<()> {
    setsockopt(fd, sockopt::TcpNoDelay, &true)?;
    set_keepalive(fd, &KEEPALIVE)
}

/// SO_LINGER{1,0}: closing, also by the death of the process, resets the connection
/// and drops its send queue.
pub fn set_linger_none(fd: &Fd) -> io::Result<()> {
    setsockopt(fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
}

/// TCP_USER_TIMEOUT in milliseconds; 0 switches it off (a lane kept for late replies).
pub fn set_user_timeout(fd: &Fd, timeout_ms: u32) -> io::Result<()> {
    setsockopt(fd, sockopt::TcpUserTimeout, &timeout_ms)?;
    Ok(())
}

/// Probes a TCP lane that is kept for late replies every second: a peer that is gone is
/// known within 6 s, a stopped one (its kernel answers) is waited for.
pub fn probe_quiet_lane(fd: &Fd) -> io::Result<()> {
    set_keepalive(fd, &KEEPALIVE_QUIET)
}

fn set_keepalive(fd: &Fd, keepalive: &Keepalive) -> io::Result<()> {
    setsockopt(fd, sockopt::KeepAlive, &true)?;
    setsockopt(fd, sockopt::TcpKeepIdle, &keepalive.idle_s)?;
    setsockopt(fd, sockopt::TcpKeepInterval, &keepalive.interval_s)?;
    setsockopt(fd, sockopt::TcpKeepCount, &keepalive.count)?;
    Ok(())
}

/// Resets the connection now: connect(AF_UNSPEC) drops both queues and sends RST, also
/// while operations are armed on the socket. A Unix socket, which has no queue of its
/// own, is shut down both ways.
pub fn reset(fd: &Fd) {
    let unspecified = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    let len = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is a valid `sockaddr` of the size given; the kernel only reads it.
    let result = unsafe { libc::connect(fd.as_raw_fd(), &raw const unspecified, len) };
    if result != 0 {
        // ENOTCONN: it never connected, and has nothing to reset.
        let _ = nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

/// Half-close: the peer sees EOF after everything sent.
pub fn shutdown_write(fd: &Fd) {
    // ENOTCONN means the peer is gone, which the pending receive reports.
    let _ = nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Write);
}

/// The peer as text; `unix` for Unix sockets, `?` when it is gone.
pub fn peer_name(fd: &Fd) -> String {
    let Ok(address) = getpeername::<SockaddrStorage>(fd.as_raw_fd()) else { return "?".into() };
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => v4.to_string(),
        (_, Some(v6)) => v6.to_string(),
        _ => "unix".into(),
    }
}

/// Both ends of an IP connection, ours first; `None` for Unix sockets and dead connections.
pub fn ends(fd: &Fd) -> Option<(SocketAddr, SocketAddr)> {
    let ours = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let theirs = getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    Some((ip_of(&ours)?, ip_of(&theirs)?))
}

fn ip_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// What the kernel knows of a TCP connection (rule W16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Bytes in the send queue never sent yet.
    pub notsent_bytes: u32,
    /// Bytes in the send queue in all: not acknowledged, or never sent.
    pub outq_bytes: u32,
    /// Milliseconds since the last ACK arrived.
    pub last_ack_ms: u32,
    /// Probes of a closed window or an idle connection since the last ACK.
    pub probes: u32,
    /// Retransmission time-out in microseconds as the round trips measure it: before it was
    /// doubled by retransmissions, else a silent link would look patient, and without the
    /// kernel's floor of 200 ms, else every link would look slow.
    pub rto_us: u32,
}

/// Asks the kernel. A Unix socket, which has no ACKs, tells `outq_bytes` only.
pub fn tcp_info(fd: &Fd) -> io::Result<TcpInfo> {
    let outq_bytes = queue_bytes(fd, libc::TIOCOUTQ)?;
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `info`, which is zeroed and so
    // valid whatever part it fills; all fields are plain integers.
    let info = unsafe {
        let result = libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        );
        if result != 0 {
            return Ok(TcpInfo { outq_bytes, ..TcpInfo::default() });
        }
        info.assume_init()
    };
    Ok(TcpInfo {
        unacked: info.tcpi_unacked,
        notsent_bytes: queue_bytes(fd, SIOCOUTQNSD)?,
        outq_bytes,
        last_ack_ms: info.tcpi_last_ack_recv,
        probes: u32::from(info.tcpi_probes),
        rto_us: measured_rto_us(&info),
    })
}

fn measured_rto_us(info: &libc::tcp_info) -> u32 {
    let kernels = info.tcpi_rto >> info.tcpi_backoff.min(31);
    match info.tcpi_rtt {
        0 => kernels,
        rtt => kernels.min(rtt.saturating_add(info.tcpi_rttvar.saturating_mul(4))),
    }
}

/// `SIOCOUTQNSD` of <linux/sockios.h>: bytes queued and never sent.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;

fn queue_bytes(fd: &Fd, request: libc::Ioctl) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests store one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes.max(0) as u32)
}
