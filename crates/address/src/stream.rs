//! Connections of either kind behind one type, for tokio.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::AddressFamily;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::{Address, Listener, Socket, SocketGuard};

/// A connected stream socket: TCP (with `TCP_NODELAY`) or Unix.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix stream.
    Unix(UnixStream),
}

impl Stream {
    /// Wraps a connected socket that came from elsewhere, for example over another socket.
    ///
    /// # Errors
    /// The descriptor is no stream socket of these two families, or it cannot be registered with the runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Stream> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        match rustix::net::sockopt::socket_domain(&fd)? {
            AddressFamily::UNIX => Ok(Stream::Unix(UnixStream::from_std(fd.into())?)),
            AddressFamily::INET | AddressFamily::INET6 => {
                let stream = TcpStream::from_std(fd.into())?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a TCP nor a Unix socket")),
        }
    }

    /// Gives the socket back, without its runtime.
    ///
    /// # Errors
    /// It cannot be deregistered from the runtime.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Stream::Tcp(stream) => Ok(stream.into_std()?.into()),
            Stream::Unix(stream) => Ok(stream.into_std()?.into()),
        }
    }
}

impl Address {
    /// Connects. TCP tries each address that the host's name has.
    ///
    /// # Errors
    /// What the system said to the last attempt.
    pub async fn connect(&self) -> io::Result<Stream> {
        match self {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Address::Unix { path } => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    }
}

/// A [`Listener`] registered with tokio.
#[derive(Debug)]
pub struct AsyncListener {
    socket: AsyncSocket,
    local: Address,
    _guard: Option<SocketGuard>,
}

#[derive(Debug)]
enum AsyncSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsyncListener {
    /// Registers a listener with the running runtime.
    ///
    /// # Errors
    /// The runtime cannot take it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn new(listener: Listener) -> io::Result<AsyncListener> {
        let local = listener.local().clone();
        let (socket, guard) = listener.into_parts();
        let socket = match socket {
            Socket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                AsyncSocket::Tcp(TcpListener::from_std(socket)?)
            }
            Socket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                AsyncSocket::Unix(UnixListener::from_std(socket)?)
            }
        };
        Ok(AsyncListener { socket, local, _guard: guard })
    }

    /// The address in use.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// The next connection. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// What `accept` said: of the connection (aborted meanwhile) or of this process (no descriptor left).
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            AsyncSocket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            AsyncSocket::Unix(socket) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Stream::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Stream::Unix(stream)
    }
}
