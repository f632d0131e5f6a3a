//! Asking a daemon that serves already to be its keeper.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use baton_fdpass as fdpass;
use baton_wire::attach::{Answer, DecodeError, HEADER_LEN, Header, Kind, Request};

/// A daemon that is just being started again answers when it serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The keeper's end of the daemon's socket pair.
    Kept(OwnedFd),
    /// Nobody listens there.
    NobodyThere,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the memory daemon that runs already cannot be asked to be kept: {0}")]
    Io(#[from] io::Error),
    #[error("the memory daemon that runs already answers something else: {0}")]
    Decode(#[from] DecodeError),
    #[error("the memory daemon that runs already does not want another keeper: {0}")]
    Refused(String),
}

/// Asks the daemon at `socket`.
pub(crate) fn ask(socket: &Path) -> Result<Asked, AskError> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Asked::NobodyThere);
        }
        Err(error) => return Err(error.into()),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&Request::Keep.encode(1).map_err(io::Error::other)?)?;
    let mut head = [0; HEADER_LEN];
    let received = fdpass::recv(&stream, &mut head, 1).map_err(io::Error::from)?;
    if received.len == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let rest = head.get_mut(received.len..).unwrap_or_default();
    stream.read_exact(rest)?;
    let header = Header::decode(&head, Kind::Answer)?;
    let mut body = vec![0; header.body_len];
    stream.read_exact(&mut body)?;
    match (Answer::decode(&body)?, received.fds.into_iter().next()) {
        (Answer::Kept, Some(socket)) => Ok(Asked::Kept(socket)),
        (Answer::Error(failure), _) => Err(AskError::Refused(failure.message)),
        (other, _) => Err(AskError::Refused(format!("{other:?}"))),
    }
}
