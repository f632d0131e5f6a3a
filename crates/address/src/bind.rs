//! Binding, blocking and without a runtime: it happens once per listener.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::Address;

/// Connections that the kernel keeps for a server that has not accepted them yet (it lowers this to
/// `net.core.somaxconn`). The standard library's 128 is a burst of an ordinary page load.
const BACKLOG: i32 = 1024;

/// How long to wait for another server that is just binding in the same directory: it needs microseconds.
const LOCK_WAIT: Duration = Duration::from_secs(2);

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
        // Between the look and the removal nobody may put a new file there.
        let _lock = lock_directory(&self.path);
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
        result.map_err(|source| self.bind_error(source))
    }

    /// Binds `count` listening sockets to one address (`SO_REUSEPORT`); the kernel spreads connections over them by a
    /// hash. Port 0 lets the kernel choose one port for all. If somebody else listens there, even with `SO_REUSEPORT`, it
    /// is in use. A Unix socket has no such group: its one listener is what comes back.
    ///
    /// # Errors
    /// [`BindError`]: in use, or what the system said.
    pub fn bind_group(&self, count: usize) -> Result<Vec<Listener>, BindError> {
        match self {
            Address::Tcp { host, port } => {
                bind_tcp_group(host, *port, count).map_err(|source| self.bind_error(source))
            }
            Address::Unix { .. } => Ok(vec![self.bind()?]),
        }
    }

    fn bind_error(&self, source: io::Error) -> BindError {
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address: self.clone() },
            io::ErrorKind::AlreadyExists => match self {
                Address::Unix { path } => BindError::NotASocket { path: path.clone() },
                Address::Tcp { .. } => BindError::Io { address: self.clone(), source },
            },
            _ => BindError::Io { address: self.clone(), source },
        }
    }
}

/// The first socket is bound without `SO_REUSEPORT`, which would let it join whoever is there already, of the same user;
/// it gets the option afterwards, so that the others can join it.
fn bind_tcp_group(host: &str, port: u16, count: usize) -> io::Result<Vec<Listener>> {
    let first = bind_tcp(host, port)?;
    rustix::net::sockopt::set_socket_reuseport(&first, true)?;
    let Socket::Tcp(socket) = &first.socket else { return Ok(vec![first]) };
    let address = socket.local_addr()?;
    let local = first.local.clone();
    let mut group = vec![first];
    // The kernel makes the group when the second one listens, and takes the first one in.
    while group.len() < count {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        group.push(Listener { socket: Socket::Tcp(socket.into()), local: local.clone(), guard: None });
    }
    Ok(group)
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

/// A lock on the directory that a socket's file lies in: two servers that find the same stale file must not both replace
/// it, nor the second one the first one's new one. On the directory, so that no lock file is left over; it ends with the
/// descriptor, also by a kill. Best effort: where the directory cannot be opened, or a stranger keeps it locked (anybody
/// may lock `/tmp`), going on is better than not to start.
fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty()).ok()?;
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return None,
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    // Until it listens: a bound socket that does not listen yet looks stale to another server.
    let _lock = lock_directory(path);
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
    fn of_servers_that_race_for_a_stale_socket_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = unix(&dir);
        for _ in 0..50 {
            drop(UnixListener::bind(&path).unwrap()); // stale
            let start = std::sync::Barrier::new(4);
            let bind = || {
                start.wait();
                address.bind().ok()
            };
            let winners: Vec<Listener> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(winners.len(), 1);
            UnixStream::connect(&path).unwrap();
            drop(winners);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_group_shares_one_port_and_nobody_else_does() {
        let address: Address = "ip://127.0.0.1:0".parse().unwrap();
        let group = address.bind_group(4).unwrap();
        let local = group[0].local().clone();
        assert!(group.iter().all(|listener| *listener.local() == local));
        assert!(matches!(local.bind(), Err(BindError::InUse { .. })));
        assert!(matches!(local.bind_group(2), Err(BindError::InUse { .. })));
        // All of them get connections, the first one as well.
        let Address::Tcp { port, .. } = local else { panic!("not TCP") };
        let mut got = [0; 4];
        let mut clients = Vec::new();
        for listener in &group {
            rustix::io::ioctl_fionbio(listener, true).unwrap();
        }
        for _ in 0..200 {
            clients.push(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
        }
        for (got, listener) in got.iter_mut().zip(&group) {
            while rustix::net::accept(listener).is_ok() {
                *got += 1;
            }
        }
        assert_eq!(got.iter().sum::<i32>(), 200);
        assert!(got.iter().all(|got| *got > 0), "{got:?}");
    }

    #[test]
    fn a_port_in_use_is_said() {
        let first = "ip://127.0.0.1:0".parse::<Address>().unwrap().bind().unwrap();
        assert!(matches!(first.local().bind(), Err(BindError::InUse { .. })));
    }
}
