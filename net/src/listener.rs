//! The port of a shard.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};

use glommio::net::{TcpListener, TcpStream};
use minikafka_core::limits;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A bound port, listening. Lives on the executor that bound it.
#[derive(Debug)]
pub struct Listener {
    accepting: TcpListener,
    fd: RawFd,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address` (port 0: any free one) and listens.
    ///
    /// The address may be in use by connections of an earlier process (`SO_REUSEADDR`), but not by a listener: two
    /// shards on one port would be a mistake, hence no `SO_REUSEPORT`.
    ///
    /// # Errors
    /// The kernel's, with the address named.
    ///
    /// # Panics
    /// Outside of a glommio executor.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(named)?;
        socket.set_reuse_address(true).map_err(named)?;
        socket.bind(&address.into()).map_err(named)?;
        socket.listen(limits::LISTEN_BACKLOG as libc::c_int).map_err(named)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        let fd = socket.into_raw_fd();
        // SAFETY: the descriptor is a listening socket that nobody else owns: `into_raw_fd` gave it up.
        let accepting = unsafe { TcpListener::from_raw_fd(fd) };
        Ok(Self { accepting, fd, address })
    }

    /// The address bound, with the port that the kernel chose if it was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a connection.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        self.accepting.accept().await.map_err(io::Error::from)
    }

    /// Makes a pending accept return, and all later ones fail.
    pub(crate) fn stop(&self) {
        // SAFETY: `self.accepting` owns the descriptor and lives at least as long as the borrow of `self`.
        let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
        // Fails only if it was stopped before.
        let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
    }
}

/// Tells a peer that does not fit in `reply` and sends it away. Best effort: nothing waits for it.
pub(crate) fn send_away(stream: TcpStream, reply: &[u8]) {
    // SAFETY: `stream` owns the descriptor and is dropped after the last use of the borrow.
    let socket = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    let socket = SockRef::from(&socket);
    let _ = socket.send_with_flags(reply, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    let _ = socket.shutdown(Shutdown::Write);
    // A hello that is here already must be read: closing over unread input resets the connection and loses the reply.
    let mut hello = [std::mem::MaybeUninit::uninit(); limits::HELLO_HEAD_BYTES_MAX as usize];
    let _ = socket.recv_with_flags(&mut hello, libc::MSG_DONTWAIT);
}
