//! An attached member without the SDK: the protocol and nothing else. For tests that look from outside, or attack.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use baton_wire::attach::{Access, Answer, Attach, Attached, HEADER_LEN, Header, Kind, Request};

/// What the daemon gave.
pub struct Raw {
    /// The control connection; the member hangs up when it is dropped.
    pub connection: UnixStream,
    /// Number and incarnation.
    pub attached: Attached,
    /// Who holds what.
    pub metadata: OwnedFd,
    /// The blocks.
    pub payload: OwnedFd,
}

/// Attaches as `name` without an inbox that others could find.
///
/// # Errors
/// The socket's, or what the daemon says.
pub fn attach(socket: &Path, name: &str, access: Access) -> io::Result<Raw> {
    let mut connection = UnixStream::connect(socket)?;
    let ask = Attach {
        name: name.parse().map_err(io::Error::other)?,
        inbox: None,
        access,
        start_time: start_time(std::process::id())?,
        token: u64::from(std::process::id()) << 20 | rand_like(name),
    };
    let bytes = Request::Attach(ask).encode(1).map_err(io::Error::other)?;
    baton_fdpass::send_all(&connection, &bytes, &[]).map_err(io::Error::from)?;
    let mut head = [0; HEADER_LEN];
    let received = baton_fdpass::recv(&connection, &mut head, 3).map_err(io::Error::from)?;
    connection.read_exact(head.get_mut(received.len..).unwrap_or_default())?;
    let header = Header::decode(&head, Kind::Answer).map_err(io::Error::other)?;
    let mut body = vec![0; header.body_len];
    connection.read_exact(&mut body)?;
    let attached = match Answer::decode(&body).map_err(io::Error::other)? {
        Answer::Attached(attached) => attached,
        other => return Err(io::Error::other(format!("{other:?}"))),
    };
    let mut fds = received.fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| io::Error::other("no descriptors came with the answer"));
    let (metadata, payload) = (next()?, next()?);
    Ok(Raw { connection, attached, metadata, payload })
}

fn rand_like(name: &str) -> u64 {
    name.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) & 0xf_ffff
}

/// Field 22 of proc_pid_stat(5).
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other("/proc/PID/stat does not parse"))
}
