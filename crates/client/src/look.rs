//! Looking at other members' blocks, for tools: who holds a block, and a copy of its bytes.
//!
//! ```text
//!   look, blocks_in_use        the hold words, read in shared memory: nobody notices
//!   snapshot                   ── borrow ──▶ daemon adds this endpoint as a holder; copy; ── return ──▶ as before
//! ```

use std::io;

use baton_pool::{BlockId, BlockView};
use baton_wire::attach::{Answer, ErrorCode, Request};
use baton_wire::report::{BlockInfo, Holder};

use crate::Client;
use crate::control::AskError;
use crate::error::BorrowError;

/// A block as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Number, size, and who held it (the one who looked is not listed).
    pub info: BlockInfo,
    /// Its bytes. If nobody has sent the block yet it may not be frozen; then these may be half old, half new.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Who holds a block now; `None` if there is no such block. Nobody is asked: a read of shared memory.
    pub fn look(&self, block: BlockId) -> Option<BlockInfo> {
        self.inner.member.pool().look(block).map(info)
    }

    /// All blocks that somebody holds or has unread, by number. A pass over all hold words.
    pub fn blocks_in_use(&self) -> Vec<BlockInfo> {
        self.inner.member.pool().blocks_in_use().map(info).collect()
    }

    /// A copy of a block that others hold. While it is copied, this endpoint is one more holder, so that it cannot
    /// become another block.
    ///
    /// # Errors
    /// [`BorrowError`].
    pub fn snapshot(&self, block: BlockId) -> Result<Snapshot, BorrowError> {
        let strange = || io::Error::other("an answer to something else");
        let refused = |error: AskError| match error {
            AskError::Refused(failure) if failure.code == ErrorCode::NotFound => {
                BorrowError::Free { block, message: failure.message }
            }
            AskError::Refused(failure) => BorrowError::Refused { block, message: failure.message },
            AskError::Away(error) => BorrowError::Disconnected(error),
            AskError::Protocol(detail) => BorrowError::Disconnected(io::Error::other(detail)),
        };
        let number = block.get();
        let (answer, _) = self.inner.control.ask(&Request::Borrow { block: number }).map_err(refused)?;
        let Answer::Borrowed { block: info } = answer else { return Err(strange().into()) };
        let bytes = self.inner.member.pool().copy_of(block);
        // A daemon that was restarted meanwhile knows of no loan; then the hold ends with this endpoint.
        if let Err(error) = self.inner.control.ask(&Request::Return { block: number }) {
            tracing::debug!("block {block} is given back when this member leaves: {error}");
        }
        let bytes =
            bytes.ok_or_else(|| BorrowError::Free { block, message: format!("block {block} is free") })?;
        Ok(Snapshot { info, bytes })
    }
}

fn info(view: BlockView) -> BlockInfo {
    let holder = |(id, inbox): (baton_pool::EndpointId, bool)| Holder { endpoint: id.get(), inbox };
    BlockInfo {
        block: view.id.get(),
        generation: view.generation.into(),
        len: view.len,
        class_bytes: view.class_bytes,
        holders: view.holders.into_iter().map(holder).collect(),
    }
}
