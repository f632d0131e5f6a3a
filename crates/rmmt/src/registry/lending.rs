//! Blocks that tools look into: the asker becomes one more holder until it gives the block back.
//!
//! ```text
//!   Borrow ─▶ lent ──Return, bye, hang-up──▶ given back        asker dies ─▶ its endpoint is reaped, the loan with it
//! ```
//! The list of loans is the daemon's own and is not kept: after a restart a loan lasts until its endpoint ends.

use baton_pool::{BlockId, EndpointRef, LookError};
use baton_wire::attach::{ErrorCode, Failure};
use baton_wire::report::BlockInfo;

use super::Registry;

/// Loans of one endpoint at a time: a tool looks at one block after the other.
const LOANS_MAX: usize = 16;

impl Registry {
    /// Lends a block that somebody holds.
    pub(crate) fn borrow_block(&mut self, asker: EndpointRef, block: BlockId) -> Result<BlockInfo, Failure> {
        if self.lent.iter().filter(|(endpoint, _)| *endpoint == asker).count() >= LOANS_MAX {
            let sentence = format!("you have borrowed {LOANS_MAX} blocks already; give one back first");
            return Err(Failure::new(ErrorCode::Busy, sentence));
        }
        let view = self.pool.lend_for_reading(block, asker).map_err(|error| {
            let code = match error {
                LookError::NoSuchBlock(_) | LookError::Free(_) => ErrorCode::NotFound,
                LookError::NotAdmitted => ErrorCode::NotAttached,
                LookError::Yours(_) => ErrorCode::BadRequest,
                _ => ErrorCode::Busy,
            };
            Failure::new(code, error.to_string())
        })?;
        self.lent.push((asker, block));
        Ok(crate::report::block(view))
    }

    /// Ends a loan.
    pub(crate) fn return_block(&mut self, asker: EndpointRef, block: BlockId) -> Result<(), Failure> {
        let at =
            self.lent.iter().position(|loan| *loan == (asker, block)).ok_or_else(|| {
                Failure::new(ErrorCode::NotFound, format!("block {block} is not lent to you"))
            })?;
        self.lent.swap_remove(at);
        self.end_loan(asker, block);
        Ok(())
    }

    /// Ends all loans of an endpoint.
    pub(super) fn return_all(&mut self, asker: EndpointRef) {
        let (of_asker, others): (Vec<_>, Vec<_>) =
            self.lent.drain(..).partition(|(endpoint, _)| *endpoint == asker);
        self.lent = others;
        for (_, block) in of_asker {
            self.end_loan(asker, block);
        }
    }

    fn end_loan(&self, asker: EndpointRef, block: BlockId) {
        if let Err(error) = self.pool.take_lent_back(block, asker) {
            // It gave the hold up by itself, with the means of a member: then there is nothing left to end.
            tracing::debug!("rmmt: block {block} lent to endpoint={}: {error}", asker.id);
        }
    }
}
