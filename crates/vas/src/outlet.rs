//! Where frames go: a seam, so that a player can be tried without a pool.

use aits_service::{NamedSender, NotSentReason};
use baton_client::Block;

/// Why a frame was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dropped {
    /// Nobody has the inbox open.
    NoReceiver,
    /// The inbox is full of frames that cannot be revoked.
    InboxFull,
}

/// Takes finished frames and never waits for their reader.
pub(crate) trait Outlet<B> {
    /// Hands a frame over, or drops it. Answers how many older frames were taken back unread to make room.
    fn publish(&self, block: B) -> Result<u32, Dropped>;
}

impl Outlet<Block> for NamedSender {
    fn publish(&self, block: Block) -> Result<u32, Dropped> {
        match self.send_newest(block) {
            Ok(revoked) => Ok(revoked),
            Err(not_sent) => match not_sent.reason {
                NotSentReason::NoReceiver => Err(Dropped::NoReceiver),
                NotSentReason::Full => Err(Dropped::InboxFull),
                NotSentReason::Refused => {
                    // The decoder and one receiver are the only holders, so this is a fault of the pool's state.
                    tracing::warn!("the pool refused to hand a frame to {}", self.name());
                    Err(Dropped::NoReceiver)
                }
            },
        }
    }
}
