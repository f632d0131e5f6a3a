//! Questions to the daemon: as a member, or as an [`Observer`] that takes no endpoint.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use baton_wire::attach::{Answer, Request};
use baton_wire::report::{AuditReport, BlockInfo, InboxInfo, Member, PoolInfo};

use crate::client::{connect_error, socket_path};
use crate::control::{AskError, Connection};
use crate::error::{ConnectError, QueryError};

/// A connection for questions only. It maps nothing and is no member; `baton ls` and `baton audit` are made of it.
#[derive(Debug)]
pub struct Observer {
    connection: Connection,
}

impl Observer {
    /// Connects to the daemon at `uri`, trying for `timeout` while the socket is absent or refuses.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(uri: &str, timeout: Duration) -> Result<Self, ConnectError> {
        let path = socket_path(uri)?;
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match Connection::open(&path) {
                Ok(connection) => return Ok(Self { connection }),
                Err(error) if deadline.is_some_and(|end| Instant::now() >= end) => {
                    return Err(connect_error(uri, error.into()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Lists the inboxes that can be sent to.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn who_receives(&mut self) -> Result<Vec<InboxInfo>, QueryError> {
        inboxes(self.connection.ask(&Request::Inboxes))
    }

    /// Lists the members of the pool.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn members(&mut self) -> Result<Vec<Member>, QueryError> {
        members(self.connection.ask(&Request::Members))
    }

    /// The pool as a whole.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn pool(&mut self) -> Result<PoolInfo, QueryError> {
        pool(self.connection.ask(&Request::Pool))
    }

    /// Lists blocks that somebody holds or has unread, by number, a page at a time: at most `limit` from number `from`
    /// on, all or those of one endpoint. With the number that the next page starts at, if there is one.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn blocks(
        &mut self,
        held_by: Option<u16>,
        from: u32,
        limit: u32,
    ) -> Result<(Vec<BlockInfo>, Option<u32>), QueryError> {
        blocks(self.connection.ask(&Request::Blocks { held_by, from, limit }))
    }

    /// Has the daemon check every block's holders.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn audit(&mut self) -> Result<AuditReport, QueryError> {
        audit(self.connection.ask(&Request::Audit))
    }
}

type Answered = Result<(Answer, Vec<OwnedFd>), AskError>;

fn answer<T>(answered: Answered, pick: impl FnOnce(Answer) -> Option<T>) -> Result<T, QueryError> {
    let strange = || QueryError::Disconnected(io::Error::other("an answer to something else"));
    match answered {
        Ok((answer, _)) => pick(answer).ok_or_else(strange),
        Err(AskError::Away(error)) => Err(QueryError::Disconnected(error)),
        Err(AskError::Refused(failure)) => {
            Err(QueryError::Refused { code: failure.code.to_string(), message: failure.message })
        }
        Err(AskError::Protocol(detail)) => Err(QueryError::Disconnected(io::Error::other(detail))),
    }
}

pub(crate) fn inboxes(answered: Answered) -> Result<Vec<InboxInfo>, QueryError> {
    answer(answered, |a| if let Answer::Inboxes { inboxes } = a { Some(inboxes) } else { None })
}

pub(crate) fn members(answered: Answered) -> Result<Vec<Member>, QueryError> {
    answer(answered, |a| if let Answer::Members { members } = a { Some(members) } else { None })
}

pub(crate) fn blocks(answered: Answered) -> Result<(Vec<BlockInfo>, Option<u32>), QueryError> {
    answer(answered, |a| if let Answer::Blocks { blocks, next } = a { Some((blocks, next)) } else { None })
}

pub(crate) fn pool(answered: Answered) -> Result<PoolInfo, QueryError> {
    answer(answered, |a| if let Answer::Pool(pool) = a { Some(pool) } else { None })
}

pub(crate) fn audit(answered: Answered) -> Result<AuditReport, QueryError> {
    answer(answered, |a| if let Answer::Audit(report) = a { Some(report) } else { None })
}
