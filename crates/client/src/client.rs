//! One endpoint in the pool.

use std::sync::Arc;

use baton_wire::report::{AuditReport, InboxInfo, Member, PoolInfo};

use crate::block::{BlockMut, EndpointId};
use crate::error::{AllocError, ConnectError, OpenError, QueryError};
use crate::inbox::Inbox;
use crate::options::ConnectOptions;
use crate::sender::Sender;

/// One endpoint in the pool. A cheap handle: clones are the same endpoint, any thread may use it.
#[derive(Debug, Clone)]
pub struct Client {
    never: Arc<std::convert::Infallible>,
}

impl Client {
    /// Attaches this process to the pool of the daemon at `uri` (`un://PATH`).
    ///
    /// Keeps trying for `options.timeout` while the socket is absent or refuses; a refusal by the daemon itself is
    /// final at once.
    pub fn connect(uri: &str, options: ConnectOptions) -> Result<(Client, Inbox), ConnectError> {
        let _ = options;
        Err(ConnectError::Unreachable { uri: uri.into(), source: std::io::ErrorKind::Unsupported.into() })
    }

    /// Loans a block of at least `len` bytes; the handle shows exactly `len`.
    pub fn alloc(&self, len: usize) -> Result<BlockMut, AllocError> {
        let _ = len;
        match *self.never {}
    }

    /// Opens the inbox registered as `inbox`. A round trip to the daemon (well under a millisecond, blocking).
    pub fn sender(&self, inbox: &str) -> Result<Sender, OpenError> {
        let _ = inbox;
        match *self.never {}
    }

    /// Lists the inboxes that can be sent to.
    pub fn who_receives(&self) -> Result<Vec<InboxInfo>, QueryError> {
        match *self.never {}
    }

    /// Lists the members of the pool.
    pub fn members(&self) -> Result<Vec<Member>, QueryError> {
        match *self.never {}
    }

    /// The pool as a whole.
    pub fn pool(&self) -> Result<PoolInfo, QueryError> {
        match *self.never {}
    }

    /// Has the daemon check every block's holders.
    pub fn audit(&self) -> Result<AuditReport, QueryError> {
        match *self.never {}
    }

    /// This endpoint's number.
    pub fn endpoint(&self) -> EndpointId {
        match *self.never {}
    }
}
