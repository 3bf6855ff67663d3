// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accepting API connections with a bound on their number and their patience.
//!
//! A connection has a place among [`API_CONNECTIONS_MAX`] and is closed when it
//! neither sends nor takes anything for [`API_IDLE_MAX`]; one that has not sent
//! its request within [`API_REQUEST_MAX`] is closed sooner. Who connects and
//! says nothing thus keeps nobody else out for long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::access::Caller;
use crate::limits::{ACCEPT_PAUSE, API_CONNECTIONS_MAX, API_IDLE_MAX, API_REQUEST_MAX};

/// A socket that accepts API connections.
pub(crate) trait Source: Send + 'static {
    /// Its connections.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who is at its end.
    fn next(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Caller)>> + Send;

    /// Our own address.
    fn own(&self) -> io::Result<Caller>;
}

impl Source for TcpListener {
    type Stream = TcpStream;

    async fn next(&mut self) -> io::Result<(TcpStream, Caller)> {
        let (stream, _) = Self::accept(self).await?;
        let local = stream.local_addr()?;
        Ok((stream, Caller::Tcp { local }))
    }

    fn own(&self) -> io::Result<Caller> {
        Ok(Caller::Tcp { local: self.local_addr()? })
    }
}

impl Source for UnixListener {
    type Stream = UnixStream;

    async fn next(&mut self) -> io::Result<(UnixStream, Caller)> {
        let (stream, _) = Self::accept(self).await?;
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        Ok((stream, Caller::Unix { uid }))
    }

    fn own(&self) -> io::Result<Caller> {
        Ok(Caller::Unix { uid: None })
    }
}

/// A [`Source`] with its bounds.
pub(crate) struct Bounded<S> {
    source: S,
    places: Arc<Semaphore>,
}

impl<S> Bounded<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, places: Arc::new(Semaphore::new(API_CONNECTIONS_MAX)) }
    }
}

impl<S: Source> Listener for Bounded<S> {
    type Io = Patient<S::Stream>;
    type Addr = Caller;

    async fn accept(&mut self) -> (Self::Io, Caller) {
        loop {
            // The semaphore is never closed; without a place nobody could be served anyway.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return std::future::pending().await;
            };
            match self.source.next().await {
                Ok((stream, caller)) => return (Patient::new(stream, place), caller),
                // A connection that broke before it was accepted, or no descriptors left: the
                // pause keeps the second from spinning.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        self.source.own()
    }
}

/// A connection that is closed when it idles.
pub(crate) struct Patient<T> {
    stream: T,
    deadline: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl<T> Patient<T> {
    fn new(stream: T, place: OwnedSemaphorePermit) -> Self {
        Self { stream, deadline: Box::pin(tokio::time::sleep(API_REQUEST_MAX)), _place: place }
    }

    fn extend(&mut self, by: Duration) {
        self.deadline.as_mut().reset(Instant::now() + by);
    }

    /// The error that ends the connection, once its time is over.
    fn expired<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                // The request may take its time to be answered, a long poll above all.
                self.extend(API_IDLE_MAX);
                Poll::Ready(result)
            }
            Poll::Pending => self.expired(cx),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Ready(result) => {
                self.extend(API_REQUEST_MAX);
                Poll::Ready(result)
            }
            Poll::Pending => self.expired(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
