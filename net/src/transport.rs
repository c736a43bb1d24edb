//! How bytes go in and out of one connection. Plain TCP here; TLS would be another [`Transport`].

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use socket2::SockRef;

/// Bytes in and out of one connection, both directions polled from one task.
pub(crate) trait Transport {
    /// Receives what is there, at most `into.len()` bytes; 0 means that the peer sends no more.
    fn poll_receive(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Sends what the socket takes of `slices`, of which at least one is not empty.
    fn poll_send(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Asks to be woken for input only when so many bytes are there; 1 for any. Only a hint, kept until changed.
    fn expect(&self, bytes: usize);

    /// Ends one direction or both; a pending receive or send returns.
    fn shutdown(&self, how: Shutdown);

    /// Gives the socket back, although replies in flight may keep the connection's state for longer.
    fn close(&self);
}

/// A glommio stream: each call tries the system call first and waits in the ring only if that would block.
pub(crate) struct TcpTransport {
    /// Borrowed for the length of one poll, never across an await. `None` once closed.
    stream: RefCell<Option<TcpStream>>,
    expected: Cell<usize>,
}

impl TcpTransport {
    /// Takes over an accepted stream, turns off Nagle's delay, and over the loopback congestion control as far as possible.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true).map_err(io::Error::from)?;
        if stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
            // There is nothing to avoid congesting, and a default that paces, like BBR, costs half of the throughput. Where
            // this cannot be set the default stays.
            drop(SockRef::from(&descriptor(&stream)).set_tcp_congestion(b"reno"));
        }
        Ok(Self { stream: RefCell::new(Some(stream)), expected: Cell::new(1) })
    }
}

fn descriptor(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: `stream` owns the descriptor and is borrowed as long as the result.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Transport for TcpTransport {
    fn poll_receive(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut *self.stream.borrow_mut() {
            Some(stream) => Pin::new(stream).poll_read(context, into),
            None => closed(),
        }
    }

    fn poll_send(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = &mut *stream else { return closed() };
        loop {
            let socket = descriptor(stream);
            let socket = SockRef::from(&socket);
            match socket.send_vectored_with_flags(slices, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                other => return Poll::Ready(other),
            }
        }
        // glommio's stream has no vectored write: it tries the first slice once more and waits until there is room.
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        Pin::new(stream).poll_write(context, first)
    }

    fn expect(&self, bytes: usize) {
        let stream = self.stream.borrow();
        let Some(stream) = &*stream else { return };
        if self.expected.replace(bytes) == bytes {
            return;
        }
        let low_water = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: the descriptor is open, `stream` owns it, and the value is read for the length of the call only.
        let result = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const low_water).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        // It cannot fail on an open TCP socket, and if it did we would only be woken more often.
        debug_assert_eq!(result, 0, "SO_RCVLOWAT {low_water}: {}", io::Error::last_os_error());
    }

    fn shutdown(&self, how: Shutdown) {
        if let Some(stream) = &*self.stream.borrow() {
            // Fails when the peer is gone already, which is as good.
            let _ = SockRef::from(&descriptor(stream)).shutdown(how);
        }
    }

    fn close(&self) {
        self.stream.take();
    }
}
