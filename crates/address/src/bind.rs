//! Binding, blocking and without a runtime: it happens once per listener.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::Address;

/// Connections that the kernel keeps for a server that has not accepted them yet (it lowers this to
/// `net.core.somaxconn`). The standard library's 128 is a burst of an ordinary page load.
const BACKLOG: i32 = 1024;

/// Why an address could not be listened at.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The text is not an address.
    #[error(transparent)]
    Parse(#[from] crate::ParseError),
    /// Somebody serves there.
    #[error("{address} is in use; stop the other server or choose another address")]
    InUse {
        /// Where.
        address: Address,
    },
    /// Something that is no socket lies at the path, and is left alone.
    #[error("{} exists and is not a socket; remove it or choose another path", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen at {address}: {source}")]
    Io {
        /// Where.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound, listening socket of either kind. The file of a Unix socket is removed with its [`SocketGuard`].
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    local: Address,
    guard: Option<SocketGuard>,
}

/// The socket of a [`Listener`], in blocking mode.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// Unix stream.
    Unix(UnixListener),
}

/// Removes the socket file when dropped, if it is still the one that was bound (a successor may have replaced it).
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    /// The address in use: with the port that the kernel chose.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// Takes up a listening socket that came from elsewhere: from a parent, or from the process before this one. Its file,
    /// if it has one, is not removed with it.
    ///
    /// # Errors
    /// The descriptor is no listening stream socket of these two families.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let no = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        if !rustix::net::sockopt::socket_acceptconn(&fd)? {
            return Err(no("the socket does not listen"));
        }
        let (socket, local) = match rustix::net::sockopt::socket_domain(&fd)? {
            AddressFamily::UNIX => {
                let socket = UnixListener::from(fd);
                let local = socket.local_addr()?;
                let path = local.as_pathname().ok_or_else(|| no("the socket has no path"))?.to_owned();
                (Socket::Unix(socket), Address::Unix { path })
            }
            AddressFamily::INET | AddressFamily::INET6 => {
                let socket = TcpListener::from(fd);
                let local = socket.local_addr()?;
                (Socket::Tcp(socket), Address::Tcp { host: local.ip().to_string(), port: local.port() })
            }
            _ => return Err(no("neither a TCP nor a Unix socket")),
        };
        Ok(Self { socket, local, guard: None })
    }

    /// Leaves the socket's file where it is when this listener goes: somebody else looks after it.
    #[must_use]
    pub fn leave_file(mut self) -> Self {
        if let Some(guard) = self.guard.take() {
            std::mem::forget(guard);
        }
        self
    }

    /// Takes the socket out, with the guard of its file (None for TCP).
    pub fn into_parts(self) -> (Socket, Option<SocketGuard>) {
        (self.socket, self.guard)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == (self.device, self.inode)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

impl Address {
    /// Binds and listens.
    ///
    /// # Errors
    /// [`BindError`]: in use, not a socket, or what the system said.
    pub fn bind(&self) -> Result<Listener, BindError> {
        let result = match self {
            Address::Tcp { host, port } => bind_tcp(host, *port),
            Address::Unix { path } => bind_unix(path),
        };
        result.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address: self.clone() },
            io::ErrorKind::AlreadyExists => match self {
                Address::Unix { path } => BindError::NotASocket { path: path.clone() },
                Address::Tcp { .. } => BindError::Io { address: self.clone(), source },
            },
            _ => BindError::Io { address: self.clone(), source },
        })
    }
}

fn bind_tcp(host: &str, port: u16) -> io::Result<Listener> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    // `TcpListener::bind` tries one after the other and sets SO_REUSEADDR.
    let socket = TcpListener::bind(addresses.as_slice())?;
    rustix::net::listen(&socket, BACKLOG)?;
    let local = socket.local_addr()?;
    let local = Address::Tcp { host: local.ip().to_string(), port: local.port() };
    Ok(Listener { socket: Socket::Tcp(socket), local, guard: None })
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_if_stale(path)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Before `bind`, so that the file never exists with a wider mode (Linux gives the file the socket's own mode).
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let (device, inode) = identity(path)?;
    Ok(Listener {
        socket: Socket::Unix(UnixListener::from(socket)),
        local: Address::Unix { path: path.to_owned() },
        guard: Some(SocketGuard { path: path.to_owned(), device, inode }),
    })
}

/// Clears the way for `bind`: `AddrInUse` if somebody answers there, `AlreadyExists` if it is no socket.
fn remove_if_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(meta) if !meta.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog (WouldBlock) or a missing permission: somebody may well be there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn unix(dir: &tempfile::TempDir) -> (PathBuf, Address) {
        let path = dir.path().join("s.sock");
        (path.clone(), Address::Unix { path })
    }

    #[test]
    fn a_socket_file_is_private_and_goes_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        let listener = address.bind().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_kept_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        let stale = UnixListener::bind(&path).unwrap();
        assert!(matches!(address.bind(), Err(BindError::InUse { .. })));
        drop(stale); // the file stays, as after a kill
        assert!(path.exists());
        let first = address.bind().unwrap();
        // The guard of a replaced socket leaves its successor's file alone.
        std::fs::remove_file(&path).unwrap();
        let second = address.bind().unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn other_files_and_bad_places_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(address.bind(), Err(BindError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let nowhere = Address::Unix { path: dir.path().join("no/such/dir/s.sock") };
        assert!(matches!(nowhere.bind(), Err(BindError::Io { .. })));
        let long = Address::Unix { path: dir.path().join("x".repeat(200)) };
        assert!(matches!(long.bind(), Err(BindError::Io { .. })));
    }

    #[test]
    fn a_socket_from_elsewhere_is_taken_up_with_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        for bound in [address, "ip://127.0.0.1:0".parse().unwrap()] {
            let first = bound.bind().unwrap().leave_file();
            let fd = first.as_fd().try_clone_to_owned().unwrap();
            let local = first.local().clone();
            drop(first);
            assert_eq!(*Listener::from_fd(fd).unwrap().local(), local);
        }
        assert!(path.exists());
        let (connected, _other) = UnixStream::pair().unwrap();
        for no_listener in [OwnedFd::from(connected), std::fs::File::open("/dev/null").unwrap().into()] {
            Listener::from_fd(no_listener).unwrap_err();
        }
    }

    #[test]
    fn a_port_in_use_is_said() {
        let first = "ip://127.0.0.1:0".parse::<Address>().unwrap().bind().unwrap();
        assert!(matches!(first.local().bind(), Err(BindError::InUse { .. })));
    }
}
